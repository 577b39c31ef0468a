"""GLU and SwiGLU: which half is the gate, and odd widths."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import ShapeError

X = np.random.default_rng(0).normal(size=(7, 38)) * 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


@pytest.mark.parametrize(
    ("layer", "formula"),
    [(fn.GLU, lambda a, b: a * sigmoid(b)), (fn.SwiGLU, lambda a, b: silu(a) * b)],
    ids=["GLU", "SwiGLU"],
)
def test_the_halves(backend, layer, formula):
    model = fn.Sequential(layer(), dtype="float64", backend=backend)
    want = formula(X[:, :19], X[:, 19:])
    np.testing.assert_allclose(model.predict(X), want, rtol=1e-13)
    np.testing.assert_allclose(layer().forward(X), want, rtol=1e-13)


@pytest.mark.parametrize("layer", [fn.GLU, fn.SwiGLU])
def test_large_numbers_overflow_nowhere(backend, layer):
    model = fn.Sequential(layer(), backend=backend)
    x = np.array([[-1e4, 1e4, 3, -3], [2, -2, 1e4, -1e4]], "f")
    assert np.isfinite(model.forward(x)).all()
    assert np.isfinite(model.backward(np.ones((2, 2), "f"))).all()


@pytest.mark.parametrize("layer", [fn.GLU, fn.SwiGLU])
@pytest.mark.parametrize("width", [1, 3, 7])
def test_an_odd_width_is_refused(layer, width):
    name = layer.__name__
    message = rf"^layer 1 \({name}\): rows of shape \({width},\) came; expected an even number"
    refused(lambda: fn.Sequential(fn.Linear(2, width), layer()), ShapeError, message)
    message = rf"^{name}: rows of shape \({width},\) came; expected an even number of features"
    refused(lambda: layer().forward(np.zeros((2, width))), ShapeError, message)
