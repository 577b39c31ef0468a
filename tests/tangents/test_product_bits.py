"""Products of random graphs: C equals the reference, with equal bits at every level and for any threads."""

from __future__ import annotations

from typing import Any

import directions
import numpy as np
import pytest
import random_graphs
from directions import close
from engines import backends, fma_levels

import fastnet as fn
from fastnet.backends import executor, registry

if "c" not in backends():
    pytest.skip("no C backend", allow_module_level=True)

C: Any = registry.get("c")
GRAPHS, GROUPS, ROWS = 200, 40, 7
SLOW = [pytest.param(group, marks=pytest.mark.slow) for group in range(1, GROUPS)]
groups = pytest.mark.parametrize("group", [0, *SLOW])
LOSS = fn.MSELoss()


def drawn(group: int) -> Any:
    """Trees without layers in NumPy, their rows and targets."""
    for seed in range(group, GRAPHS, GROUPS):
        tree = random_graphs.tree(seed)
        if "Squares" not in str(tree):
            y = np.random.default_rng(seed + 1).normal(size=(ROWS, 2))
            yield seed, tree, random_graphs.inputs(tree, ROWS, seed), y


def model_of(tree: Any, seed: int, backend: str, dtype: str = "float64") -> fn.Sequential:
    model = random_graphs.fastnet_of(tree, dtype=dtype, backend=backend, seed=seed)
    if names := random_graphs.to_freeze(model, seed):
        model.freeze(*names)
    return model


def products(model: Any, x: Any, y: Any) -> dict[str, Any]:
    v = directions.direction(model, 1)
    found = {"y": model.jvp(x, x)[0], "jvp": model.jvp(x, x, v or None)[1]}
    if v:
        found |= {f"hvp {n}": a for n, a in model.hvp(LOSS, x, y, v).items()}
        found |= {f"gnvp {n}": a for n, a in model.gnvp(LOSS, x, y, v).items()}
    return found


@groups
def test_c_equals_the_reference(group):
    for seed, tree, x, y in drawn(group):
        own, other = (products(model_of(tree, seed, b), x, y) for b in ("c", "reference"))
        normed = "BatchNorm1d" in str(tree)  # it divides by standard deviations that may be small
        close(own, other, 1e-8 if normed else 1e-12, seed)


@groups
def test_symmetry_and_convexity(group):
    for seed, tree, x, y in drawn(group):
        model = model_of(tree, seed, "c")
        u, v = (directions.direction(model, k) for k in (1, 2))
        for product in (model.hvp, model.gnvp):
            of_u, of_v = product(LOSS, x, y, u), product(LOSS, x, y, v)
            a = sum(float((of_u[n] * v[n]).sum()) for n in v)
            b = sum(float((of_v[n] * u[n]).sum()) for n in v)
            size = sum(float(np.abs(of_u[n] * v[n]).sum()) for n in v) + abs(b)
            assert abs(a - b) <= 1e-8 * size, seed
        flat = sum(float((of_v[n] * v[n]).sum()) for n in v)
        assert flat >= -1e-12 * size, seed


@pytest.mark.skipif(not fma_levels(), reason="this machine has no FMA")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@groups
def test_bits(monkeypatch, group, dtype):
    """Of every level and number of threads; work of any size is shared."""
    monkeypatch.setattr(executor, "WORK_TO_SHARE", 0)
    before, threads = C.level(), fn.get_num_threads()
    try:
        for seed, tree, x, y in list(drawn(group))[:2]:
            found = []
            for level in fma_levels():
                C.set_level(level)
                for count in (1, 3):
                    with fn.threads(count):
                        found.append(products(model_of(tree, seed, "c", dtype), x, y))
            for other in found[1:]:
                for name, value in found[0].items():
                    np.testing.assert_array_equal(other[name], value, err_msg=f"{seed} {name}")
    finally:
        C.set_level(before)
        fn.set_num_threads(threads)
