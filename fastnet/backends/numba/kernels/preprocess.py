"""Preprocessing of columns: an affine map, a table with interpolation, and categories."""

from __future__ import annotations

from typing import Any

from numba import njit

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.op import Array


@kernel
def rescale_forward(y: Array, x: Array, c: Array, r: Array, f: Array, offset: float) -> None:
    """y = ((x − c) − r)·f + offset."""
    added = x.dtype.type(offset)
    for b in range(x.shape[0]):
        for j in range(x.shape[1]):
            centred = (x[b, j] - c[j]) - r[j]
            y[b, j] = (centred * f[j] if f.size > 0 else centred) + added


@kernel
def rescale_vjp(dx: Array, dy: Array, f: Array) -> None:
    """dx = dy·f."""
    for b in range(dx.shape[0]):
        for j in range(dx.shape[1]):
            dx[b, j] = dy[b, j] * f[j] if f.size > 0 else dy[b, j]


@njit(error_model="numpy")
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


@kernel
def interpolate_forward(y: Array, x: Array, k: Array, v: Array) -> None:
    """The value of column j's table at x."""
    knots = k.shape[1]
    for b in range(x.shape[0]):
        for j in range(x.shape[1]):
            at = x[b, j]
            n = _knots_below(k, j, at)
            if at != at:
                y[b, j] = at
            elif n == 0 or n == knots:
                y[b, j] = v[j, max(n - 1, 0)]
            else:
                share = (at - k[j, n - 1]) / (k[j, n] - k[j, n - 1])
                y[b, j] = v[j, n - 1] + share * (v[j, n] - v[j, n - 1])


@kernel
def interpolate_vjp(dx: Array, dy: Array, x: Array, k: Array, v: Array) -> None:
    """dy times the slope of the segment."""
    knots = k.shape[1]
    for b in range(dx.shape[0]):
        for j in range(dx.shape[1]):
            n = _knots_below(k, j, x[b, j])
            if n == 0 or n == knots:
                dx[b, j] = 0
            else:
                slope = (v[j, n] - v[j, n - 1]) / (k[j, n] - k[j, n - 1])
                dx[b, j] = dy[b, j] * slope


@kernel
def one_hot_forward(y: Array, x: Array, v: Array, source: Array) -> None:
    """Compare with categories, or copy a column."""
    outputs = source.size
    for b in range(x.shape[0]):
        found = False
        for o in range(outputs):
            s = source[o]
            if s < 0:
                y[b, o] = x[b, -1 - s]
            elif o + 1 < outputs and source[o + 1] == s:
                equal = x[b, s] == v[o]
                found = found or equal
                y[b, o] = 1 if equal else 0
            else:
                y[b, o] = 0 if found else 1
                found = False


@kernel
def one_hot_vjp(dx: Array, dy: Array, source: Array) -> None:
    """dy of the copied columns."""
    for b in range(dx.shape[0]):
        for j in range(dx.shape[1]):
            dx[b, j] = 0
        for o in range(source.size):
            if source[o] < 0:
                dx[b, -1 - source[o]] += dy[b, o]
