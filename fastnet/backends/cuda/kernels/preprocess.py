"""Preprocessing of columns: an affine map, a table with interpolation, and categories."""

from __future__ import annotations

from typing import Any

from fastnet.backends.cuda.device import device
from fastnet.backends.cuda.kernels.loops import cells
from fastnet.backends.cuda.kernels.registry import launcher


@launcher
@cells("y")
def rescale_forward(
    row: int, column: int, y: Any, x: Any, c: Any, r: Any, f: Any, offset: float
) -> None:
    """y = ((x − c) − r)·f + offset."""
    value = (x[row, column] - c[column]) - r[column]
    if f.size > 0:
        value = value * f[column]
    y[row, column] = value + type(value)(offset)


@launcher
@cells("dx")
def rescale_vjp(row: int, column: int, dx: Any, dy: Any, f: Any) -> None:
    """dx = dy·f."""
    dx[row, column] = dy[row, column] * f[column] if f.size > 0 else dy[row, column]


@device
def _knots_below(k: Any, j: int, x: Any) -> int:
    """The number of knots of column j that are ≤ x."""
    low, left = 0, k.shape[1]
    while left > 0:
        half = left // 2
        if k[j, low + half] <= x:
            low += half + 1
            left -= half + 1
        else:
            left = half
    return low


@launcher
@cells("y")
def interpolate_forward(row: int, column: int, y: Any, x: Any, k: Any, v: Any) -> None:
    """The value of the column's table at x."""
    at = x[row, column]
    n = _knots_below(k, column, at)
    if at != at:
        y[row, column] = at
    elif n == 0 or n == k.shape[1]:
        y[row, column] = v[column, max(n - 1, 0)]
    else:
        share = (at - k[column, n - 1]) / (k[column, n] - k[column, n - 1])
        y[row, column] = v[column, n - 1] + share * (v[column, n] - v[column, n - 1])


@launcher
@cells("dx")
def interpolate_vjp(row: int, column: int, dx: Any, dy: Any, x: Any, k: Any, v: Any) -> None:
    """dy times the slope of the segment."""
    n = _knots_below(k, column, x[row, column])
    if n == 0 or n == k.shape[1]:
        dx[row, column] = 0
    else:
        slope = (v[column, n] - v[column, n - 1]) / (k[column, n] - k[column, n - 1])
        dx[row, column] = dy[row, column] * slope


@launcher
@cells("y")
def one_hot_forward(row: int, column: int, y: Any, x: Any, v: Any, source: Any) -> None:
    """Compare with a category, or with those before the unknown slot, or copy a column."""
    s = source[column]
    if s < 0:
        y[row, column] = x[row, -1 - s]
    elif column + 1 < source.size and source[column + 1] == s:
        y[row, column] = 1 if x[row, s] == v[column] else 0
    else:
        found = 0
        before = column - 1
        while before >= 0 and source[before] == s:
            if x[row, s] == v[before]:
                found = 1
            before -= 1
        y[row, column] = 1 - found


@launcher
@cells("dx")
def one_hot_vjp(row: int, column: int, dx: Any, dy: Any, source: Any) -> None:
    """dy of the copied columns."""
    total = dx.dtype.type(0)
    for o in range(source.size):
        if source[o] == -1 - column:
            total += dy[row, o]
    dx[row, column] = total
