"""Some columns of a tensor."""

from __future__ import annotations

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.op import Array


@kernel
def take_columns_forward(y: Array, x: Array, columns: Array) -> None:
    """y_m = x_c with c = columns_m."""
    for b in range(y.shape[0]):
        for m in range(columns.size):
            y[b, m] = x[b, columns[m]]


@kernel
def take_columns_vjp(dx: Array, dy: Array, columns: Array) -> None:
    """dx_c = Σ dy_m."""
    for b in range(dx.shape[0]):
        for c in range(dx.shape[1]):
            dx[b, c] = dx.dtype.type(0)
        for m in range(columns.size):
            dx[b, columns[m]] += dy[b, m]
