"""Gradients of outputs with respect to inputs."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError

RNG = np.random.default_rng(6)


def net(backend, **options):
    layers = fn.Linear(5, 8), fn.BatchNorm1d(8), fn.Tanh(), fn.Dropout(0.5), fn.Linear(8, 3)
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=2, **options)
    model.forward(RNG.normal(2, 3, size=(50, 5)))  # moves the running statistics
    return model


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_it_is_the_slope_of_predict(backend, rows):
    model, x = net(backend), RNG.normal(size=(rows, 5))
    y = model.predict(x)
    for output in (None, 1, RNG.integers(0, 3, rows)):
        found = model.input_gradient(x, output)
        column = y.argmax(axis=1) if output is None else np.broadcast_to(output, rows)
        for i in range(5):
            h = np.zeros(5)
            h[i] = 1e-5
            slope = (model.predict(x + h) - model.predict(x - h)) / 2e-5
            np.testing.assert_allclose(found[:, i], slope[np.arange(rows), column], atol=1e-8)


def test_nothing_else_changes(backend):
    model, x = net(backend), RNG.normal(size=(20, 5))
    y = RNG.integers(0, 3, 20)
    model.value_and_grad(fn.CrossEntropyLoss(), x, y)
    gradients = {name: g.copy() for name, g in model.grads.items()}
    state = model.state_dict()
    output, loss = model.forward(x), fn.CrossEntropyLoss()
    state = model.state_dict()
    model.input_gradient(x)
    for name, g in model.grads.items():
        np.testing.assert_array_equal(g, gradients[name])
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    loss.forward(output, y)
    model.zero_grad()
    model.backward(loss.backward())  # of the forward before
    assert model.training


def test_a_frozen_model_has_gradients_of_its_inputs(backend):
    model, x = net(backend), RNG.normal(size=(4, 5))
    expected = model.input_gradient(x)
    np.testing.assert_array_equal(model.freeze().input_gradient(x), expected)


def test_no_rows(backend):
    assert net(backend).input_gradient(np.zeros((0, 5))).shape == (0, 5)


@pytest.mark.parametrize("output", [3, -1, 1.0, [0, 1], "0", True])
def test_bad_outputs(output):
    with pytest.raises(HyperparameterError, match=r"^output is .*expected None, the number"):
        net("reference").input_gradient(np.zeros((4, 5)), output)
