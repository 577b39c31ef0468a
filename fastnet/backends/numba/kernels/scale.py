"""A trained factor, a trained summand, or both, for each column; gradients by blocks of LOCAL columns."""

from __future__ import annotations

from typing import Any

from numba import njit

from fastnet.backends.numba.kernels.linear import sum_rows
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.kernels.sums import add_block, add_lost, clear, put, rows_of_block
from fastnet.backends.numba.lowlevel import LOCAL, copy, local, window
from fastnet.op import Array


@kernel
def scale_forward(y: Array, x: Array, w: Array) -> None:
    """y = x·w by columns."""
    copy(y, x)
    rows, columns = y.shape
    for i in range(rows):
        to = window(y, i * columns, columns)
        for j in range(columns):
            to[j] *= w[j]


@kernel
def scale_vjp(dx: Array, dy: Array, dw: Array, x: Array, w: Array, accumulate: int) -> None:
    """dw = Σ_rows dy·x; then dx = dy·w, which may overwrite dy."""
    _of_factors(dx, dy, dw, x, w, accumulate)


@njit(error_model="numpy")
def _of_factors(dx: Any, dy: Any, dw: Any, x: Any, w: Any, accumulate: int) -> None:
    """The same."""
    rows, columns = dy.shape
    if dw.size > 0:
        step = rows_of_block(rows)
        sums, lost, block = local(dy), local(dy), local(dy)
        for begin in range(0, columns, LOCAL):
            width = min(LOCAL, columns - begin)
            clear(width, sums, lost, block)
            for top in range(0, rows, step):
                for i in range(top, min(top + step, rows)):
                    place = i * columns + begin
                    d, a = window(dy, place, width), window(x, place, width)
                    for j in range(width):
                        block[j] += d[j] * a[j]
                add_block(sums, lost, block, width)
            add_lost(sums, lost, width)
            put(dw, sums, begin, width, accumulate)
    if dx.size > 0:
        copy(dx, dy)
        for i in range(rows):
            to = window(dx, i * columns, columns)
            for j in range(columns):
                to[j] *= w[j]


@kernel
def shift_forward(y: Array, x: Array, b: Array) -> None:
    """y = x + b by columns."""
    copy(y, x)
    rows, columns = y.shape
    for i in range(rows):
        to = window(y, i * columns, columns)
        for j in range(columns):
            to[j] += b[j]


@kernel
def shift_vjp(dx: Array, dy: Array, db: Array, accumulate: int) -> None:
    """dx = dy; db = Σ_rows dy."""
    rows, columns = dy.shape
    if db.size > 0:
        step = rows_of_block(rows)
        sums, lost, block = local(dy), local(dy), local(dy)
        for begin in range(0, columns, LOCAL):
            width = min(LOCAL, columns - begin)
            clear(width, sums, lost, block)
            for top in range(0, rows, step):
                for i in range(top, min(top + step, rows)):
                    d = window(dy, i * columns + begin, width)
                    for j in range(width):
                        block[j] += d[j]
                add_block(sums, lost, block, width)
            add_lost(sums, lost, width)
            put(db, sums, begin, width, accumulate)
    copy(dx, dy)


@kernel
def affine_forward(y: Array, x: Array, w: Array, b: Array) -> None:
    """y = x·w + b by columns."""
    copy(y, x)
    rows, columns = y.shape
    for i in range(rows):
        to = window(y, i * columns, columns)
        for j in range(columns):
            to[j] = to[j] * w[j] + b[j]


@kernel
def affine_vjp(
    dx: Array, dy: Array, dw: Array, db: Array, x: Array, w: Array, accumulate: int
) -> None:
    """db = Σ_rows dy; dw = Σ_rows dy·x; then dx = dy·w, which may overwrite dy."""
    if db.size > 0:
        sum_rows(db, dy, accumulate)
    _of_factors(dx, dy, dw, x, w, accumulate)
