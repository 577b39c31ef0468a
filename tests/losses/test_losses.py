"""Losses against their definitions, where numbers are extreme, and what targets they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import DataError, ShapeError

dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture(params=["float32", "float64"])
def identity(request, backend):
    """A model that hands its input on, so that a loss runs on the backend."""
    return fn.Sequential(fn.Dropout(0.0), dtype=request.param, backend=backend)


def value_and_gradient(model, loss, x, y):
    """The loss in one call, which a loss on its own must equal, and its gradient."""
    alone = fn.CrossEntropyLoss() if isinstance(loss, fn.CrossEntropyLoss) else fn.MSELoss()
    x = np.asarray(x, model.dtype)
    value = model.value_and_grad(loss, x, y)
    assert value == pytest.approx(alone.forward(x, y), rel=1e-6 if x.itemsize == 4 else 1e-14)
    return value, alone.backward()


def test_cross_entropy(identity):
    z, t = [[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]], [2, 0]
    value, grad = value_and_gradient(identity, fn.CrossEntropyLoss(), z, np.array(t))
    e = [math.exp(a) for a in z[0]]
    rows = [-math.log(e[2] / sum(e)), math.log(3)]
    assert value == pytest.approx(sum(rows) / 2, rel=3e-7)
    expected = [[e[0] / sum(e), e[1] / sum(e), e[2] / sum(e) - 1], [1 / 3 - 1, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(grad, np.array(expected) / 2, rtol=1e-6)


def test_cross_entropy_ignores_a_shift(identity):
    z, t = np.array([[0.5, 1.5, -1.0]]), np.array([1])
    values = [
        value_and_gradient(identity, fn.CrossEntropyLoss(), z + s, t)[0] for s in (0, 1024, -1024)
    ]
    assert values[0] == values[1] == values[2]


def test_cross_entropy_keeps_small_losses(identity):
    value, _ = value_and_gradient(identity, fn.CrossEntropyLoss(), [[5.0, 0.0]], np.array([0]))
    assert value == pytest.approx(math.log1p(math.exp(-5)), rel=2e-5)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint64", ">i4"])
def test_labels_of_any_integer_dtype(identity, kind):
    z, t = np.eye(4, 3), np.array([2, 1, 0, 1])
    loss = fn.CrossEntropyLoss()
    assert identity.value_and_grad(loss, z, t.astype(kind)) == identity.value_and_grad(loss, z, t)


def test_mse(identity):
    y, t = [[1.0, 2.0], [3.0, -4.0]], np.array([[0.0, 2.5], [3.0, 0.0]])
    value, grad = value_and_gradient(identity, fn.MSELoss(), y, t)
    assert value == (1 + 0.25 + 16) / 4
    np.testing.assert_array_equal(grad, np.array([[1.0, -0.5], [0.0, -4.0]]) / 2)


def test_sums_are_float64(backend):
    """One large row loss and 2¹⁶ small ones, which a float32 sum would round."""
    rows = 2**16
    model = fn.Sequential(fn.Dropout(0.0), backend=backend)
    x = np.zeros((1 + rows, 2), np.float32)
    x[0, 1] = 2.0**24
    value = model.value_and_grad(fn.CrossEntropyLoss(), x, np.zeros(1 + rows, int))
    assert value == pytest.approx((2.0**24 + rows * math.log(2)) / (1 + rows), rel=1e-9)
    x[0, 1] = 2.0**12
    x[1:, 0] = 1.0
    value = model.value_and_grad(fn.MSELoss(), x, np.zeros_like(x))
    assert value == (2.0**24 + rows) / (2 * (1 + rows))


@pytest.mark.parametrize(
    ("loss", "y", "error", "message"),
    [
        (fn.CrossEntropyLoss(), [0, 3], DataError, r"labels from 0 to 3; expected 0 to 2"),
        (fn.CrossEntropyLoss(), [-1, 0], DataError, r"labels from -1 to 0; expected 0 to 2"),
        (fn.CrossEntropyLoss(), [0.0, 1.0], DataError, r"float64; .*integer labels"),
        (fn.CrossEntropyLoss(), [[0], [1]], ShapeError, r"\(2, 1\); .*of shape \(n,\)"),
        (fn.CrossEntropyLoss(), [0, 1, 2], ShapeError, r"3"),
        (fn.MSELoss(), [1.0, 2.0], ShapeError, r"\(2,\).*\(n, 3\)"),
        (fn.MSELoss(), [[1.0], [2.0]], ShapeError, r"\(2, 1\).*\(n, 3\)"),
        (fn.MSELoss(), [["a"] * 3] * 2, DataError, r"takes numbers"),
    ],
)
def test_bad_targets_are_refused(loss, y, error, message):
    with pytest.raises(error, match=message):
        loss.forward(np.zeros((2, 3)), np.array(y))
    model = fn.Sequential(fn.Dropout(0.0), backend="reference")
    with pytest.raises(error, match=message):
        model.value_and_grad(loss, np.zeros((2, 3)), np.array(y))


def test_accuracy():
    assert fn.accuracy(np.array([0, 1, 1, 2]), np.eye(4, 3)) == 0.5
