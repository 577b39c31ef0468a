"""Piecewise-linear encodings, and linear layers of groups of columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends.cuda.device import device
from fastnet.backends.cuda.kernels.loops import cells
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.sums import column_sums


@device
def group_of(ends: Any, column: int) -> Any:
    """The number of the group of a column."""
    low, high = 0, ends.size
    while low < high:
        middle = (low + high) // 2
        if ends[middle] <= column:
            low = middle + 1
        else:
            high = middle
    return low


@device
def begin_of(ends: Any, group: int) -> Any:
    """The first column of a group."""
    return int(ends[group - 1]) if group > 0 else 0


@launcher
@cells("y")
def piecewise_forward(
    row: int, column: int, y: Any, x: Any, edge: Any, scale: Any, ends: Any
) -> None:
    """The place in each bin, within its limits."""
    i, dtype = group_of(ends, column), y.dtype
    low, high = dtype.type(0), dtype.type(1)
    if column == begin_of(ends, i):
        low = dtype.type(-1)
    if column == int(ends[i]) - 1:
        high = dtype.type(2)
    place = (x[row, i] - edge[column]) * scale[column]
    y[row, column] = low if place < low else high if place > high else place


@launcher
@cells("dx")
def piecewise_vjp(
    row: int, column: int, dx: Any, dy: Any, x: Any, edge: Any, scale: Any, ends: Any
) -> None:
    """dx = Σ dy·scale of the bins in which x lies."""
    total, begin, end = 0.0, begin_of(ends, column), int(ends[column])
    for m in range(begin, end):
        place = (x[row, column] - edge[m]) * scale[m]
        low, high = -1.0 if m == begin else 0.0, 2.0 if m == end - 1 else 1.0
        if place >= low and place < high:
            total += np.float64(dy[row, m] * scale[m])
    dx[row, column] = dx.dtype.type(total)


@launcher
@cells("y")
def grouped_linear_forward(
    row: int, column: int, y: Any, x: Any, w: Any, b: Any, ends: Any
) -> None:
    """y = b + Σ x·w over the columns of the group."""
    i, e = column // w.shape[1], column % w.shape[1]
    total = 0.0
    for n in range(begin_of(ends, i), int(ends[i])):
        total += np.float64(x[row, n] * w[n, e])
    y[row, column] = y.dtype.type(total) + b[column]


@cells("dx")
def _of_inputs(row: int, column: int, dx: Any, dy: Any, w: Any, ends: Any) -> None:
    first, total = group_of(ends, column) * w.shape[1], 0.0
    for e in range(w.shape[1]):
        total += np.float64(dy[row, first + e] * w[column, e])
    dx[row, column] = dx.dtype.type(total)


@cells("dw")
def _of_weights(
    row: int, column: int, dw: Any, dy: Any, x: Any, ends: Any, accumulate: int
) -> None:
    """An element of dw, in float64; `row` is its column of x."""
    at, total = group_of(ends, row) * dw.shape[1] + column, 0.0
    for b in range(x.shape[0]):
        total += np.float64(x[b, row] * dy[b, at])
    value = dw.dtype.type(total)
    dw[row, column] = dw[row, column] + value if accumulate else value


@launcher
def grouped_linear_vjp(
    queue: Any,
    dx: Any,
    dw: Any,
    db: Any,
    dy: Any,
    x: Any,
    w: Any,
    ends: Any,
    accumulate: int,
) -> None:
    """dx = Σ_e dy·w, dw = Σ_rows x·dy, db = Σ_rows dy."""
    if dx.size:
        _of_inputs(queue, dx, dy, w, ends)
    if dw.size:
        _of_weights(queue, dw, dy, x, ends, accumulate)
    if db.size:
        column_sums(queue, db, dy, accumulate)
