"""The angles of periodic features."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda.kernels.loops import cells
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.sums import column_sums

TURN = 2 * math.pi


@launcher
@cells("y")
def angles_forward(row: int, column: int, y: Any, x: Any, w: Any, p: Any) -> None:
    """y = 2π·(w·x less the nearest integer) + p, the product in float64."""
    frequencies = w.shape[1]
    i = column // (p.size // w.shape[0])
    turns = np.float64(w[i, column % frequencies]) * np.float64(x[row, i])
    turns -= math.floor(turns + 0.5)
    y[row, column] = y.dtype.type(TURN * turns) + p[column]


@cells("dx")
def _of_inputs(row: int, column: int, dx: Any, dy: Any, w: Any) -> None:
    total, size = 0.0, dy.shape[1] // w.shape[0]
    for k in range(size):
        total += np.float64(dy[row, column * size + k] * w[column, k % w.shape[1]])
    dx[row, column] = dx.dtype.type(TURN * total)


@cells("dw")
def _of_frequencies(row: int, column: int, dw: Any, dy: Any, x: Any, accumulate: int) -> None:
    """An element of dw, in float64; `row` is its input."""
    total, size = 0.0, dy.shape[1] // dw.shape[0]
    for b in range(x.shape[0]):
        for k in range(column, size, dw.shape[1]):
            total += np.float64(dy[b, row * size + k] * x[b, row])
    value = dw.dtype.type(TURN * total)
    dw[row, column] = dw[row, column] + value if accumulate else value


@launcher
def angles_vjp(
    queue: Any, dx: Any, dw: Any, dp: Any, dy: Any, x: Any, w: Any, accumulate: int
) -> None:
    """dp = Σ_rows dy; dw = 2π·Σ_rows Σ_s dy·x; dx = 2π·Σ_sk dy·w."""
    if dx.size:
        _of_inputs(queue, dx, dy, w)
    if dw.size:
        _of_frequencies(queue, dw, dy, x, accumulate)
    if dp.size:
        column_sums(queue, dp, dy, accumulate)
