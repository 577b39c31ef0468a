"""Training and prediction give the same bits, whatever the threads, the instruction set or the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import child
import gradcheck
import numpy as np
import pytest
from bits import BATCH, LABELS, LEARNING_RATE, SEED, X, digest, net, numbers, train
from engines import fma_levels
from onecall import TEAM, calls, same_bits

import fastnet as fn
from fastnet.backends import executor, registry
from fastnet.op import KERNELS

if reason := fn.backends()["c"].reason:
    pytest.skip(reason, allow_module_level=True)

C: Any = registry.get("c")
LEVELS = fma_levels()
THREADS = (1, 2, 3, 4, 8)

# SHA-256 of the net of bits.py after 500 steps. It changes where what fastnet computes changes, never
# with a compiler or a machine: docs/reproducibility.md says what is promised.
PINNED = {
    "float32": "0daef4bb2522f0280624b81654260856b95d233ec5b69c2d04024bd572e0e4d7",
    "float64": "b7c065014971329713a53048ad31b37fb55ec5cddb210c540ea4f8a32e053b3e",
}

# The same with products in bfloat16.
PINNED_IN_BFLOAT16 = "6c6d585f4f14044cecf68c1ff2382bacf53bc355836e07db0f34ad5014864543"

if not LEVELS:
    pytest.skip("this machine has no FMA", allow_module_level=True)

dtypes = pytest.mark.parametrize("dtype", PINNED)


@pytest.fixture(autouse=True)
def _shared_and_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work of any size is shared among threads, at the highest level if a test does not choose."""
    monkeypatch.setattr(executor, "WORK_TO_SHARE", 0)
    before, threads = C.level(), fn.get_num_threads()
    C.set_level(LEVELS[-1])
    yield
    C.set_level(before)
    fn.set_num_threads(threads)


def trained(dtype: str, **options: Any) -> str:
    model = net(dtype)
    train(model, **options)
    return digest(model)


@dtypes
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: C.levels()[level])
@pytest.mark.parametrize("threads", THREADS)
def test_training_gives_the_pinned_bits(dtype, level, threads):
    C.set_level(level)
    with fn.threads(threads):
        assert trained(dtype) == PINNED[dtype]


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: C.levels()[level])
@pytest.mark.parametrize("threads", THREADS)
def test_training_in_bfloat16_gives_the_pinned_bits(level, threads):
    """With instructions for bfloat16 and without."""
    C.set_level(level)
    model = net(precision="bfloat16")
    with fn.threads(threads):
        train(model)
    assert digest(model) == PINNED_IN_BFLOAT16


@pytest.mark.parametrize(
    ("dtype", "precision"), [("float32", None), ("float64", None), ("float32", "bfloat16")]
)
def test_products_that_are_worth_a_team(dtype, precision):
    """Layers so wide that their products, too, are cut into parts."""
    x, labels, found = numbers(3, 270, 330), numbers(4, 270, below=10), set()
    for threads in THREADS:
        layers = fn.Linear(330, 416), fn.BatchNorm1d(416), fn.ReLU(), fn.Linear(416, 203), fn.Tanh()
        model = fn.Sequential(
            *layers, fn.Linear(203, 10), dtype=dtype, backend="c", seed=SEED, precision=precision
        )
        with fn.threads(threads):
            trainer = fn.Trainer(model, fn.CrossEntropyLoss(), seed=SEED)
            trainer.fit(x, labels, epochs=3, batch_size=100, verbose=0)
        found.add(digest(model))
    assert len(found) == 1


@pytest.mark.slow
@dtypes
def test_twenty_runs(dtype):
    """Threads take their parts in another order each time."""
    found = set()
    for run in range(20):
        with fn.threads(THREADS[run % len(THREADS)]):
            found.add(trained(dtype))
    assert found == {PINNED[dtype]}


@dtypes
@pytest.mark.parametrize("chunks", [(1,) * 500, (1, 3, 7, 101), (250,)], ids=len)
def test_chunks_of_steps_change_nothing(dtype, chunks):
    assert trained(dtype, chunks=chunks) == PINNED[dtype]


@dtypes
def test_fit_takes_the_same_steps(dtype):
    model = net(dtype)
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(LEARNING_RATE), seed=SEED)
    for epochs in (1, 30, 69):
        trainer.fit(X, LABELS, epochs=epochs, batch_size=BATCH, verbose=0)
    assert digest(model) == PINNED[dtype]


CHILD = """
import json
from bits import digest, net, train
model = net()
train(model)
print(json.dumps(digest(model)))
"""


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: C.levels()[level])
def test_another_process(level):
    """The level and the number of threads from the environment."""
    variables = {"FASTNET_SIMD_LEVEL": str(level), "FASTNET_NUM_THREADS": "2"}
    assert child.run(CHILD, **variables) == PINNED["float32"]


@dtypes
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_share_their_work(name, dtype):
    """At sizes that are cut into many parts, of which every thread takes whichever it meets."""
    kernel = KERNELS[name]
    for rows, dims in [(130, (300, 97)), (97, (40, 784)), (5, (4099, 3)), (700, (130, 70))]:
        sizes = gradcheck.named(kernel.op, dims, rows)
        for call in calls(kernel, dtype, rows, sizes):
            expected = call.run(C)
            for threads in range(2, TEAM + 1):
                call.context["threads"] = threads
                same_bits(call, C, expected)


# Prediction: a row's bits are its own.


def predicting(dtype: str) -> tuple[fn.Sequential, Any, Any]:
    """A net with running statistics of its own, rows, and what it makes of each of them alone."""
    model = net(dtype)
    train(model, 20)
    x = np.tile(X, (2, 1))[:257].astype(dtype)
    return model, x, np.concatenate([model.predict(x[i : i + 1]) for i in range(len(x))])


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: C.levels()[level])
@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param((1, 2, 3, 5, 8, 14, 15, 16, 17, 31, 33, 64, 100, 256, 257), id="some"),
        pytest.param(range(1, 258), id="every", marks=pytest.mark.slow),
    ],
)
@dtypes
def test_a_row_predicts_to_its_own_bits_in_any_batch_and_place(dtype, level, sizes):
    """All rows in batches of this size, whose begin moves; every row comes to every place of a batch."""
    C.set_level(level)
    model, x, expected = predicting(dtype)
    for size in sizes:
        for begin in {0, 1, size // 2, len(x) - size}:
            part = slice(begin, begin + size)
            np.testing.assert_array_equal(model.predict(x[part]), expected[part])
            np.testing.assert_array_equal(
                model.predict(x[begin:], batch_size=size), expected[begin:]
            )
        place = np.roll(np.arange(len(x)), size)
        np.testing.assert_array_equal(model.predict(x[place]), expected[place])


def radial(dtype: str, outer: float) -> fn.Sequential:
    """A net whose products cancel for some of its rows and centres: `outer` of these lie far away."""
    layer = fn.RBF(70, 150)
    centers = numbers(7, 150, 70) / 9
    centers[::3] += outer
    layer.load_state_dict({"centers": centers, "widths": np.linspace(0.3, 2, 150)})
    return fn.Sequential(layer, fn.Linear(151, 3), dtype=dtype, backend="c", seed=SEED)


def radial_rows(dtype: str, outer: float) -> Any:
    """Rows near the centres of either kind."""
    x = numbers(8, 210, 70) / 9
    x[:70] += outer
    return x.astype(dtype)


@dtypes
@pytest.mark.parametrize("outer", [0.0, 1.0, 300.0])
def test_radial_basis_functions(dtype, outer):
    """Which distances and gradients are products depends on values, not on levels, threads and chunks."""
    x, t = radial_rows(dtype, outer), numbers(9, 210, 3)
    found, predicted = set(), set()
    for level in LEVELS:
        C.set_level(level)
        for threads in THREADS:
            for chunks in (1, 2):
                model = radial(dtype, outer)
                with fn.threads(threads):
                    trainer = fn.Trainer(model, fn.HuberLoss(), seed=SEED)
                    for _ in range(chunks):
                        trainer.fit(x, t, epochs=4 // chunks, batch_size=60, verbose=0)
                    model.zero_grad()
                    model.forward(x)
                    model.backward(t.astype(dtype))
                found.add(digest(model) + model.grads["0.centers"].tobytes().hex())
                predicted.add(model.predict(x).tobytes())
    assert len(found) == 1 and len(predicted) == 1
    whole = model.predict(x)
    for size in (1, 2, 5, 17, 64, 130):
        np.testing.assert_array_equal(model.predict(x, batch_size=size), whole)
    order = np.roll(np.arange(len(x)), 33)
    np.testing.assert_array_equal(model.predict(x[order]), whole[order])


@dtypes
def test_graphs_with_branches(dtype):
    """Skips, branches, gates and shared layers, at every level and number of threads."""
    x, t = numbers(5, 210, 40), numbers(6, 210, 3)
    found = set()
    for level in LEVELS:
        C.set_level(level)
        for threads in THREADS:
            shared = fn.Linear(48, 48)
            model = fn.Sequential(
                fn.Concat(fn.Linear(40, 37), fn.Sequential(fn.Linear(40, 11), fn.Sigmoid())),
                fn.Residual(shared, fn.Tanh(), fn.Dropout(0.2), shared),
                fn.Multiply(fn.Linear(48, 48), fn.Sequential(shared, fn.Sigmoid())),
                fn.Add(fn.Linear(48, 3), fn.Linear(48, 3), fn.Linear(48, 3, bias=False)),
                dtype=dtype,
                backend="c",
                seed=SEED,
            )
            with fn.threads(threads):
                trainer = fn.Trainer(model, fn.HuberLoss(), seed=SEED)
                trainer.fit(x, t, epochs=3, batch_size=60, verbose=0)
            found.add(digest(model))
    assert len(found) == 1
