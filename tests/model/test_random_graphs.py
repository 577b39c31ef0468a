"""Gradients of 300 random graphs: skips, branches, gates, shared and frozen layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import random_graphs
from engines import backends

import fastnet as fn
from fastnet.layers.block import Holder
from fastnet.tape import Tape, Value

ROWS = 9
GRAPHS, GROUPS = 300, 12
LOSS = fn.MSELoss()


def model_of(seed: int, backend: str, **options: Any) -> fn.Sequential:
    tree = random_graphs.tree(seed)
    model = random_graphs.fastnet_of(tree, dtype="float64", backend=backend, seed=seed, **options)
    if names := random_graphs.to_freeze(model, seed):
        model.freeze(*names)
    return model


def data_of(seed: int) -> tuple[Any, Any]:
    x = random_graphs.inputs(random_graphs.tree(seed), ROWS, seed)
    return x, np.random.default_rng(seed + 1).normal(size=(ROWS, 2))


def poison(model: fn.Sequential) -> None:
    """Fill the workspaces of the model's plans with NaN."""
    for executor in model._runtime.kept.executors.values():
        executor._workspace.fill(0xFF)


def by_tape(model: fn.Sequential, x: Any, y: Any) -> tuple[float, dict[str, Any]]:
    """Loss and gradients by the reference kernels one by one, each into arrays of its own."""
    tape = Tape(np.dtype("float64"), seed=model.seed)
    tape.training = True
    model.zero_grad()
    output = tape.enter(model, Value(np.array(x)))
    difference = output.array - y
    tape.backward(output, 2 * difference / difference.size)
    grads = {name: np.array(p.shown(p.grad)) for name, p in model._named().items() if not p.buffer}
    return float((difference**2).mean()), grads


def largest(*arrays: Any) -> float:
    return max((float(np.abs(a).max(initial=0)) for a in arrays), default=0.0)


def close(got: Any, want: Any, rtol: float, what: Any, scale: float = 0.0) -> None:
    """To a share of each number and of the largest one, or of `scale`: gradients may cancel."""
    scale = max(scale, largest(want))
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * scale, err_msg=str(what))


@pytest.mark.parametrize("group", range(GROUPS))
def test_gradients(group):
    """Of each backend against the tape's, and of the tape against central differences."""
    kinds = set()
    for seed in range(group, GRAPHS, GROUPS):
        x, y = data_of(seed)
        own = model_of(seed, "reference")
        kinds |= {type(child).__name__ for _, child in own._all()}
        state = own.state_dict()
        value, grads = by_tape(own, x, y)
        own.load_state_dict(state)  # batchnorm has moved its statistics
        _check_slope(own, grads, x, y, seed)
        for backend in backends():
            model = model_of(seed, backend)
            model.load_state_dict(state)
            model.value_and_grad(LOSS, x, y)
            poison(model)
            model.load_state_dict(state)
            assert model.value_and_grad(LOSS, x, y) == pytest.approx(
                value, rel=1e-8
            )  # batchnorm amplifies
            for name, grad in model.grads.items():
                want = np.zeros_like(grad) if name in model.frozen else grads[name]
                close(grad, want, 1e-8, (seed, backend, name), largest(*grads.values(), value))
    assert kinds >= {"Residual", "Concat", "Add", "Multiply", "Sequential"}


def _check_slope(model: fn.Sequential, grads: Any, x: Any, y: Any, seed: int) -> None:
    """The loss's slope along a random direction of all parameters."""
    random, h = np.random.default_rng(seed), 1e-6
    state = model.state_dict()
    along = {name: random.normal(size=grad.shape) for name, grad in grads.items()}
    values = []
    for t in (h, -h, 2 * h, -2 * h):
        moved = {n: v + t * along[n] if n in along else v for n, v in state.items()}
        model.load_state_dict(moved)
        values.append(model.value_and_grad(LOSS, x, y))
    model.load_state_dict(state)
    want = sum(float((grads[name] * along[name]).sum()) for name in grads)
    size = sum(float(np.abs(grads[name] * along[name]).sum()) for name in grads)
    slope = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * h)
    noise = 1e-15 / h * max(map(abs, values))
    assert slope == pytest.approx(want, rel=1e-4, abs=1e-5 * size + 100 * noise), seed


@pytest.mark.parametrize("seed", range(40))
def test_input_gradients(backend, seed):
    """dL/dx for a given dL/dy, whose workspace tensor may be the gradient of several tensors."""
    x, dy = data_of(seed)
    model, own = model_of(seed, backend), model_of(seed, "reference")
    own.load_state_dict(state := model.state_dict())
    tape, given = Tape(np.dtype("float64"), seed=own.seed), Value(np.array(x))
    own.bind()
    output = tape.enter(own, given)
    tape.backward(output, dy)
    for _ in range(2):
        model.load_state_dict(state)
        model.forward(x)
        close(model.backward(dy), given.grad, 1e-8, seed)
        poison(model)


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_training_agrees(backend, seed):
    """Several steps with an optimizer, whose update of a shared parameter comes once."""
    x, y = data_of(seed)
    found = []
    for name in ("reference", backend):
        model = model_of(seed, name)
        trainer = fn.Trainer(model, fn.HuberLoss(), fn.SGD(1e-3, momentum=0.5), seed=1)
        trainer.fit(
            np.concatenate([x] * 4), np.concatenate([y] * 4), epochs=4, batch_size=12, verbose=0
        )
        found.append((model.state_dict(), model.predict(x)))
    scale = largest(*found[0][0].values())
    for name, value in found[0][0].items():
        close(found[1][0][name], value, 1e-8, (seed, name), scale)
    close(found[1][1], found[0][1], 1e-7, seed)


def test_layers_occur_twice():
    """The graphs of this file have shared layers, frozen parameters and rows of two dimensions."""
    shared = frozen = flat = 0
    for seed in range(GRAPHS):
        model = model_of(seed, "reference")
        shared += bool(model._aliases())
        frozen += bool(model.frozen)
        flat += isinstance(model[0], fn.Flatten)
        assert isinstance(model, Holder)
    assert min(shared, frozen, flat) > 50
