"""Softmax and LogSoftmax where numbers are extreme and rows are long."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastnet as fn

dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
columns = pytest.mark.parametrize("columns", [2, 3, 16, 100, 1024, 2500])


@pytest.fixture(params=["float32", "float64"])
def both(request, backend):
    """Softmax and LogSoftmax as models."""
    return [
        fn.Sequential(make(), dtype=request.param, backend=backend)
        for make in (fn.Softmax, fn.LogSoftmax)
    ]


@columns
def test_they_belong_together(both, columns):
    """Rows sum to 1, one is the logarithm of the other, and a shift changes nothing."""
    x = np.random.default_rng(columns).integers(-6, 7, (19, columns)) / 4
    p, log_p = (model.forward(x) for model in both)
    tol = 1e-6 if p.dtype == np.float32 else 1e-13
    np.testing.assert_allclose(p.sum(axis=1, dtype=float), np.ones(19), rtol=tol)
    np.testing.assert_allclose(np.exp(log_p, dtype=float), p, rtol=20 * tol)
    for model, y in zip(both, (p, log_p), strict=True):
        np.testing.assert_array_equal(model.forward(x + 1024), y)


@columns
def test_gradients_of_rows_sum_to_zero(both, columns):
    """Since a shift of a row changes nothing."""
    random = np.random.default_rng(columns)
    x, dy = random.normal(size=(2, 7, columns))
    for model in both:
        model.forward(x)
        dx = model.backward(dy)
        tol = 1e-4 if dx.dtype == np.float32 else 1e-12
        assert np.abs(dx.sum(axis=1, dtype=float)).max() < tol


def test_extreme_inputs(both):
    """Exponentials of these overflow, and their softmax is 0 or 1."""
    x = np.array([[1e4, 0.0, -1e4], [-1e4, -1e4 + 1, 1e4], [0.0, 0.0, 0.0]])
    p, log_p = (model.forward(x) for model in both)
    np.testing.assert_array_equal(p[:2], [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(log_p[:2], [[0, -1e4, -2e4], [-2e4, -2e4 + 1, 0]])
    np.testing.assert_allclose(log_p[2], np.full(3, -math.log(3)), rtol=1e-7)


def test_nan_stays_in_its_row(backend):
    for make in (fn.Softmax, fn.LogSoftmax):
        layer, x = make(), np.zeros((3, 20))
        x[1, 17] = np.nan
        np.testing.assert_array_equal(
            np.isnan(layer.forward(x)), np.arange(60).reshape(3, 20) // 20 == 1
        )
        model = fn.Sequential(fn.Linear(1, 20), make(), backend=backend, seed=0)
        with model.edit() as values:
            values["0.bias"][3] = np.nan
        assert np.isnan(model.predict(np.ones((3, 1)))).all()


def test_their_code_shows_what_is_not_default():
    assert repr(fn.Softmax()) == "Softmax()"
    assert repr(fn.LogSoftmax(1)) == "LogSoftmax(dim=1)"
