"""What activations do where they are not smooth, at the ends of the number line, and for NaN."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.layers.pointwise import Activation

# layer, x, y, dy/dx: PyTorch's conventions (tests/peers/test_torch.py asks PyTorch itself).
KINKS = [
    (fn.ReLU, 0.0, 0.0, 0.0),
    (fn.ReLU, -0.0, 0.0, 0.0),
    (lambda: fn.LeakyReLU(0.2), 0.0, 0.0, 0.2),
    (lambda: fn.LeakyReLU(0.2), -0.0, 0.0, 0.2),
    (lambda: fn.LeakyReLU(-0.5), 0.0, 0.0, -0.5),
    (lambda: fn.LeakyReLU(0.0), 0.0, 0.0, 0.0),
    (lambda: fn.PReLU(init=0.5), 0.0, 0.0, 0.5),
    (lambda: fn.ELU(0.5), 0.0, 0.0, 0.5),
    (lambda: fn.ELU(-0.5), 0.0, 0.0, -0.5),
    (fn.Hardtanh, -1.0, -1.0, 0.0),
    (fn.Hardtanh, 1.0, 1.0, 0.0),
    (lambda: fn.Hardtanh(-2, 3), 3.0, 3.0, 0.0),
    (fn.ReLU6, 0.0, 0.0, 0.0),
    (fn.ReLU6, 6.0, 6.0, 0.0),
    (fn.Hardsigmoid, -3.0, 0.0, 0.0),
    (fn.Hardsigmoid, 3.0, 1.0, 0.0),
    (fn.Hardswish, -3.0, 0.0, 0.0),
    (fn.Hardswish, 3.0, 3.0, 1.0),
    (fn.Softsign, 0.0, 0.0, 1.0),
]
ENDS = [
    (fn.ReLU, 1e30, 1e30, 1.0),
    (fn.ReLU, -1e30, 0.0, 0.0),
    (lambda: fn.LeakyReLU(0.25), -1e30, -2.5e29, 0.25),
    (fn.Sigmoid, 1e30, 1.0, 0.0),
    (fn.Sigmoid, -1e30, 0.0, 0.0),
    (fn.Tanh, 1e30, 1.0, 0.0),
    (fn.Tanh, -1e30, -1.0, 0.0),
    (fn.Tanh, 1e-30, 1e-30, 1.0),
    (fn.ELU, -1e30, -1.0, 0.0),
    (fn.ELU, 1e30, 1e30, 1.0),
    (fn.GELU, 1e30, 1e30, 1.0),
    (fn.GELU, -1e30, 0.0, 0.0),
    (lambda: fn.GELU("tanh"), 1e30, 1e30, 1.0),
    (lambda: fn.GELU("tanh"), -1e30, 0.0, 0.0),
    (fn.SiLU, 1e30, 1e30, 1.0),
    (fn.SiLU, -1e30, 0.0, 0.0),
    (fn.Mish, 1e30, 1e30, 1.0),
    (fn.Mish, -1e30, 0.0, 0.0),
    (fn.Softplus, 1e30, 1e30, 1.0),
    (fn.Softplus, -1e30, 0.0, 0.0),
    (fn.LogSigmoid, 1e30, 0.0, 0.0),
    (fn.LogSigmoid, -1e30, -1e30, 1.0),
    (fn.Hardswish, -1e30, 0.0, 0.0),
    (fn.Hardswish, 1e30, 1e30, 1.0),
    (fn.LinearTanh, -1e30, -1e28, 0.01),
]

ACTIVATIONS = sorted(
    (layer for layer in Activation.__subclasses__() if layer.__name__[0] != "_"),
    key=lambda layer: layer.__name__,
)

columns = pytest.mark.parametrize("columns", [1, 16, 37])  # alone, whole vectors, a tail
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@columns
@dtypes
@pytest.mark.parametrize(("make", "x", "y", "slope"), KINKS + ENDS)
def test_value_and_derivative(backend, dtype, columns, make, x, y, slope):
    model = fn.Sequential(make(), dtype=dtype, backend=backend)
    got = model.forward(np.full((2, columns), x))
    np.testing.assert_array_equal(got, np.full((2, columns), y).astype(dtype))
    dx = model.backward(np.full((2, columns), 3.0))
    np.testing.assert_array_equal(dx, (np.full((2, columns), 3.0, dtype) * np.array(slope, dtype)))


@columns
@dtypes
@pytest.mark.parametrize("make", [*ACTIVATIONS, fn.PReLU, fn.Identity])
def test_nan_stays_nan(backend, dtype, columns, make):
    """And only where it is. It comes from a bias, since inputs must be finite."""
    model = fn.Sequential(fn.Linear(1, columns), make(), dtype=dtype, backend=backend, seed=0)
    with model.edit() as values:
        values["0.bias"][columns // 2] = np.nan
    expected = np.zeros((3, columns), bool)
    expected[:, columns // 2] = True
    np.testing.assert_array_equal(np.isnan(model.forward(np.ones((3, 1)))), expected)
    np.testing.assert_array_equal(np.isnan(model.predict(np.ones((3, 1)))), expected)
