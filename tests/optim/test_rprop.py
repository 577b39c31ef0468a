"""Rprop: what the comparison with PyTorch does not reach."""

from __future__ import annotations

import numpy as np
import pytest
from prescribed import set_gradients

import fastnet as fn


def net(backend, dtype="float64"):
    return fn.Sequential(fn.Linear(3, 2), fn.Linear(2, 1), dtype=dtype, backend=backend, seed=1)


def moved(model, optimizer, gradient):
    """By how much each parameter moves in a step with a gradient that is the same for all elements."""
    before = {name: p.copy() for name, p in model.named_parameters().items()}
    set_gradients(model, {name: np.full(p.shape, gradient) for name, p in before.items()})
    optimizer.step(model)
    return {name: p - before[name] for name, p in model.named_parameters().items()}


@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_only_signs_count(backend, scale):
    model, optimizer = net(backend), fn.Rprop(0.1)
    for gradient, step in [
        (2, -0.1),
        (7, -0.12),
        (-1, 0),
        (-3, 0.06),
        (-1, 0.072),
        (0, 0),
        (5, -0.072),
    ]:
        for name, by in moved(model, optimizer, gradient * scale).items():
            np.testing.assert_allclose(by, step, atol=1e-14, err_msg=f"{gradient}: {name}")


def test_a_product_of_gradients_that_underflows_counts_as_0(backend):
    """As in PyTorch, which multiplies the gradients before it looks at signs."""
    model, optimizer = net(backend), fn.Rprop(0.1)
    for gradient, step in [(1e-200, -0.1), (-1e-200, 0.1), (-1e-150, 0.1), (-1e-150, 0.12)]:
        for name, by in moved(model, optimizer, gradient).items():
            np.testing.assert_allclose(by, step, atol=1e-14, err_msg=f"{gradient}: {name}")


def test_a_parameter_that_is_trained_later_begins_with_lr(backend):
    model, optimizer = net(backend), fn.Rprop(0.1, groups=[{"params": "1.*", "lr": 0.0}])
    for _ in range(4):
        by = moved(model, optimizer, 1.0)
        assert not by["1.weight"].any() and not by["1.bias"].any()
    np.testing.assert_allclose(by["0.weight"], -0.1 * 1.2**3, atol=1e-14)
    optimizer.groups[0]["lr"] = 0.2
    by = moved(model, optimizer, -1.0)
    np.testing.assert_allclose(by["1.weight"], 0.0, atol=1e-14)  # the sign has changed
    by = moved(model, optimizer, -1.0)
    np.testing.assert_allclose(by["1.weight"], 0.1, atol=1e-14)


def test_lr_is_the_first_step_only_and_0_stops(backend):
    model, optimizer = net(backend), fn.Rprop(0.1)
    for lr, step in [(0.1, -0.1), (7.0, -0.12), (0.0, 0), (0.0, 0), (1e-9, -0.144)]:
        optimizer.lr = lr
        by = moved(model, optimizer, 1.0)
        np.testing.assert_allclose(by["0.weight"], step, atol=1e-14, err_msg=str(lr))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_stays(backend, dtype):
    model, optimizer = net(backend, dtype), fn.Rprop(0.1)
    for gradient in (1.0, np.nan, 1.0):
        by = moved(model, optimizer, gradient)
    state = optimizer.state_dict(model)
    for name, value in by.items():
        assert np.isnan(value).all() and np.isnan(state[f"size/{name}"]).all(), name
