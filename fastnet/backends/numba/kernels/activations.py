"""Elementwise activations. Each copies its input over its output (which may be the same array) and
works there in place, so that loops have one array less that might overlap another.
"""

from fastnet.backends.numba.elementary import sigmoid, tanh
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import copy, flat
from fastnet.op import Array


@kernel
def relu_forward(y: Array, x: Array) -> None:
    """y = max(x, 0); NaN stays."""
    copy(y, x)
    a, zero = flat(y), y.dtype.type(0)
    for i in range(a.size):
        if a[i] <= zero:
            a[i] = zero


@kernel
def relu_vjp(dx: Array, dy: Array, y: Array) -> None:
    """dx = 0 where y ≤ 0, else dy."""
    copy(dx, dy)
    d, f, zero = flat(dx), flat(y), dx.dtype.type(0)
    for i in range(d.size):
        v = d[i]
        d[i] = zero if f[i] <= zero else v


@kernel
def leaky_relu_forward(y: Array, x: Array, slope: float) -> None:
    """y = x where x > 0, else slope·x."""
    copy(y, x)
    a, zero, factor = flat(y), y.dtype.type(0), y.dtype.type(slope)
    for i in range(a.size):
        v = a[i]
        scaled = factor * v
        a[i] = v if v > zero else scaled


@kernel
def leaky_relu_vjp(dx: Array, dy: Array, x: Array, slope: float) -> None:
    """dx = dy where x > 0, else slope·dy."""
    copy(dx, dy)
    d, a, zero, factor = flat(dx), flat(x), dx.dtype.type(0), dx.dtype.type(slope)
    for i in range(d.size):
        v = d[i]
        scaled = factor * v
        d[i] = v if a[i] > zero else scaled


@kernel
def sigmoid_forward(y: Array, x: Array) -> None:
    """y = 1 / (1 + e^−x)."""
    copy(y, x)
    a = flat(y)
    for i in range(a.size):
        a[i] = sigmoid(a[i])


@kernel
def sigmoid_vjp(dx: Array, dy: Array, y: Array) -> None:
    """dx = dy·y·(1 − y)."""
    copy(dx, dy)
    d, f, one = flat(dx), flat(y), dx.dtype.type(1)
    for i in range(d.size):
        d[i] *= f[i] * (one - f[i])


@kernel
def tanh_forward(y: Array, x: Array) -> None:
    """y = tanh(x)."""
    copy(y, x)
    a = flat(y)
    for i in range(a.size):
        a[i] = tanh(a[i])


@kernel
def tanh_vjp(dx: Array, dy: Array, y: Array) -> None:
    """dx = dy·(1 − y²)."""
    copy(dx, dy)
    d, f, one = flat(dx), flat(y), dx.dtype.type(1)
    for i in range(d.size):
        d[i] *= one - f[i] * f[i]
