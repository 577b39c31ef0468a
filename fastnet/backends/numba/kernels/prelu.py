"""A rectifier with trained slopes."""

from __future__ import annotations

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.op import Array


@kernel
def prelu_forward(y: Array, x: Array, a: Array) -> None:
    """y = x where x > 0, else a[j mod A]·x."""
    zero, count = x.dtype.type(0), a.size
    for b in range(x.shape[0]):
        for j in range(x.shape[1]):
            v = x[b, j]
            y[b, j] = v if v > zero else a[j % count] * v


@kernel
def prelu_vjp(dx: Array, da: Array, dy: Array, x: Array, a: Array, accumulate: int) -> None:
    """dx = dy or a·dy; da sums dy·min(x, 0)."""
    zero, count = x.dtype.type(0), a.size
    if da.size > 0 and accumulate == 0:
        da[:] = zero
    for b in range(x.shape[0]):
        for j in range(x.shape[1]):
            v, d = x[b, j], dy[b, j]
            if dx.size > 0:
                dx[b, j] = d if v > zero else a[j % count] * d
            if da.size > 0:
                da[j % count] += zero if v > zero else d * v
