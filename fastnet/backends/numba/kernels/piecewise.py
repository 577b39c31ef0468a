"""Piecewise-linear encodings, and linear layers of groups of columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.kernels.linear import sum_rows
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.kernels.sums import add_block, add_lost, clear, put, rows_of_block
from fastnet.backends.numba.lowlevel import LOCAL, local, window
from fastnet.op import Array


@kernel
def piecewise_forward(y: Array, x: Array, edge: Array, scale: Array, ends: Array) -> None:
    """The place in each bin, within its limits."""
    for b in range(x.shape[0]):
        begin = 0
        for i in range(ends.size):
            end = int(ends[i])
            for m in range(begin, end):
                place = (x[b, i] - edge[m]) * scale[m]
                low = y.dtype.type(-1) if m == begin else y.dtype.type(0)
                high = y.dtype.type(2) if m == end - 1 else y.dtype.type(1)
                y[b, m] = low if place < low else high if place > high else place
            begin = end


@kernel
def piecewise_vjp(dx: Array, dy: Array, x: Array, edge: Array, scale: Array, ends: Array) -> None:
    """dx = Σ dy·scale of the bins in which x lies."""
    for b in range(x.shape[0]):
        begin = 0
        for i in range(ends.size):
            end, total = int(ends[i]), 0.0
            for m in range(begin, end):
                place = (x[b, i] - edge[m]) * scale[m]
                low, high = -1.0 if m == begin else 0.0, 2.0 if m == end - 1 else 1.0
                if place >= low and place < high:
                    total += np.float64(dy[b, m] * scale[m])
            dx[b, i] = dy.dtype.type(total)
            begin = end


@kernel
def grouped_linear_forward(y: Array, x: Array, w: Array, b: Array, ends: Array) -> None:
    """y = b + Σ x·w over the columns of each group."""
    width = w.shape[1]
    for row in range(x.shape[0]):
        begin = 0
        for i in range(ends.size):
            end = int(ends[i])
            to, bias = window(y, row * b.size + i * width, width), window(b, i * width, width)
            for e in range(width):
                to[e] = bias[e]
            for n in range(begin, end):
                value, weight = x[row, n], window(w, n * width, width)
                for e in range(width):
                    to[e] += value * weight[e]
            begin = end


@kernel
def grouped_linear_vjp(
    dx: Array,
    dw: Array,
    db: Array,
    dy: Array,
    x: Array,
    w: Array,
    ends: Array,
    accumulate: int,
) -> None:
    """dx = Σ_e dy·w, dw = Σ_rows x·dy, db = Σ_rows dy."""
    width = w.shape[1]
    begin = 0
    for i in range(ends.size):
        end = int(ends[i])
        for n in range(begin, end):
            if dx.size > 0:
                for row in range(x.shape[0]):
                    total = 0.0
                    for e in range(width):
                        total += np.float64(dy[row, i * width + e] * w[n, e])
                    dx[row, n] = dy.dtype.type(total)
            if dw.size > 0:
                _of_column(dw, dy, x, i, n, accumulate)
        begin = end
    if db.size > 0:
        sum_rows(db, dy, accumulate)


@njit(error_model="numpy")
def _of_column(dw: Any, dy: Any, x: Any, i: int, n: int, accumulate: int) -> None:
    rows, columns = dy.shape
    width, step = dw.shape[1], rows_of_block(rows)
    sums, lost, block = local(dy), local(dy), local(dy)
    for begin in range(0, width, LOCAL):
        size = min(LOCAL, width - begin)
        clear(size, sums, lost, block)
        for top in range(0, rows, step):
            for row in range(top, min(top + step, rows)):
                slope = window(dy, row * columns + i * width + begin, size)
                value = x[row, n]
                for e in range(size):
                    block[e] += value * slope[e]
            add_block(sums, lost, block, size)
        add_lost(sums, lost, size)
        put(dw, sums, n * width + begin, size, accumulate)
