"""Vectors in place of codes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import device
from fastnet.backends.cuda.kernels.loops import cells
from fastnet.backends.cuda.kernels.registry import launcher


@device
def row_of_code(x: Any, rows: int, unknown: float) -> Any:
    """The row of the table for a number, or −1."""
    count = rows - int(unknown)
    if x >= 0 and x < count and np.float64(x) == math.floor(np.float64(x)):
        return int(x)
    return count if unknown >= 1 else -1


@launcher
@cells("y")
def embedding_forward(
    row: int, column: int, y: Any, x: Any, w: Any, place: float, unknown: float
) -> None:
    """The other columns, then the row of w of the code."""
    at, others = int(place), x.shape[1] - 1
    if column < others:
        y[row, column] = x[row, column if column < at else column + 1]
    else:
        code = row_of_code(x[row, at], w.shape[0], unknown)
        y[row, column] = w[code, column - others] if code >= 0 else y.dtype.type(math.nan)


@cells("dx")
def _of_columns(row: int, column: int, dx: Any, dy: Any, place: float) -> None:
    at = int(place)
    if column == at:
        dx[row, column] = dx.dtype.type(0)
    else:
        dx[row, column] = dy[row, column if column < at else column - 1]


@cells("dw")
def _of_table(
    row: int, column: int, dw: Any, dy: Any, x: Any, place: float, unknown: float, accumulate: int
) -> None:
    """Each element sums the rows of data with its code, in order."""
    at, total = int(place), 0.0
    for b in range(x.shape[0]):
        if row_of_code(x[b, at], dw.shape[0], unknown) == row:
            total += np.float64(dy[b, x.shape[1] - 1 + column])
    value = dw.dtype.type(total)
    dw[row, column] = dw[row, column] + value if accumulate else value


@launcher
def embedding_vjp(
    queue: Any,
    dx: Any,
    dw: Any,
    dy: Any,
    x: Any,
    place: float,
    unknown: float,
    accumulate: int,
) -> None:
    """dx is dy of the other columns; dw sums dy by codes."""
    if dx.size:
        _of_columns(queue, dx, dy, place)
    if dw.size:
        _of_table(queue, dw, dy, x, place, unknown, accumulate)
