"""Vectors in place of codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import LOCAL, local_doubles
from fastnet.op import Array


@njit(error_model="numpy")
def _row_of_code(x: Any, rows: int, unknown: float) -> int:
    """The row of the table for a number, or −1."""
    count = rows - int(unknown)
    if x >= 0 and x < count and x == np.trunc(x):
        return int(x)
    return count if unknown >= 1 else -1


@kernel
def embedding_forward(y: Array, x: Array, w: Array, place: float, unknown: float) -> None:
    """The other columns, then the row of w of the code."""
    at, others = int(place), x.shape[1] - 1
    for b in range(x.shape[0]):
        for j in range(at):
            y[b, j] = x[b, j]
        for j in range(at, others):
            y[b, j] = x[b, j + 1]
        row = _row_of_code(x[b, at], w.shape[0], unknown)
        for e in range(w.shape[1]):
            y[b, others + e] = w[row, e] if row >= 0 else y.dtype.type(np.nan)


@kernel
def embedding_vjp(
    dx: Array, dw: Array, dy: Array, x: Array, place: float, unknown: float, accumulate: int
) -> None:
    """dx is dy of the other columns; dw sums in float64, LOCAL columns of a row of the table at a time."""
    at, others = int(place), x.shape[1] - 1
    if dx.size > 0:
        for b in range(x.shape[0]):
            for j in range(at):
                dx[b, j] = dy[b, j]
            dx[b, at] = dy.dtype.type(0)
            for j in range(at, others):
                dx[b, j + 1] = dy[b, j]
    if dw.size == 0:
        return
    rows, width = dw.shape
    sums = local_doubles()
    for row in range(rows):
        for begin in range(0, width, LOCAL):
            size = min(LOCAL, width - begin)
            for e in range(size):
                sums[e] = 0.0
            for b in range(x.shape[0]):
                if _row_of_code(x[b, at], rows, unknown) == row:
                    for e in range(size):
                        sums[e] += np.float64(dy[b, others + begin + e])
            for e in range(size):
                value = dw.dtype.type(sums[e])
                dw[row, begin + e] = dw[row, begin + e] + value if accumulate else value
