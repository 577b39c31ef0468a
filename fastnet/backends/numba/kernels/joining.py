"""Columns of two tensors side by side."""

from __future__ import annotations

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.op import Array


@kernel
def concat_forward(y: Array, a: Array, b: Array) -> None:
    """The columns of a, then those of b."""
    width = a.shape[1]
    for i in range(y.shape[0]):
        for j in range(width):
            y[i, j] = a[i, j]
        for j in range(b.shape[1]):
            y[i, width + j] = b[i, j]


@kernel
def concat_vjp(da: Array, db: Array, dy: Array) -> None:
    """Each input has its columns of the gradient."""
    if da.size > 0:
        for i in range(dy.shape[0]):
            for j in range(da.shape[1]):
                da[i, j] = dy[i, j]
    if db.size > 0:
        first = dy.shape[1] - db.shape[1]
        for i in range(dy.shape[0]):
            for j in range(db.shape[1]):
                db[i, j] = dy[i, first + j]
