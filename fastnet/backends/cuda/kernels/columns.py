"""Some columns of a tensor."""

from __future__ import annotations

from typing import Any

from fastnet.backends.cuda.kernels.loops import cells
from fastnet.backends.cuda.kernels.registry import launcher


@launcher
@cells("y")
def take_columns_forward(row: int, column: int, y: Any, x: Any, places: Any) -> None:
    """y_m = x_c with c = places_m."""
    y[row, column] = x[row, places[column]]


@launcher
@cells("dx")
def take_columns_vjp(row: int, column: int, dx: Any, dy: Any, places: Any) -> None:
    """dx_c = Σ dy_m."""
    total = dx.dtype.type(0)
    for m in range(places.size):
        if places[m] == column:
            total += dy[row, m]
    dx[row, column] = total
