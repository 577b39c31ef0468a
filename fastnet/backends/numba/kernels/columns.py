"""Some columns of a tensor."""

from __future__ import annotations

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.op import Array


@kernel
def take_columns_forward(y: Array, x: Array, places: Array) -> None:
    """y_m = x_c with c = places_m."""
    for b in range(y.shape[0]):
        for m in range(places.size):
            y[b, m] = x[b, places[m]]


@kernel
def take_columns_vjp(dx: Array, dy: Array, places: Array) -> None:
    """dx_c = Σ dy_m."""
    for b in range(dx.shape[0]):
        for c in range(dx.shape[1]):
            dx[b, c] = dx.dtype.type(0)
        for m in range(places.size):
            dx[b, places[m]] += dy[b, m]
