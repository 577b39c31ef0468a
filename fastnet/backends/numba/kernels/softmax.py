"""Softmax and log-softmax. Each works within its output, which may be its input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.elementary import exp
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import LOCAL, copy, flat, local, window
from fastnet.op import Array


@njit(error_model="numpy")
def _below_top(y: Any) -> None:
    """Subtract its maximum from each row; a NaN, which comparisons ignore, stays in the row."""
    rows, columns = y.shape
    for i in range(rows):
        row = window(y, i * columns, columns)
        top = row[0]
        for j in range(1, columns):
            if row[j] > top:
                top = row[j]
        for j in range(columns):
            row[j] -= top


@kernel
def softmax_forward(y: Array, x: Array) -> None:
    """y = e^(x − m)/Σ e^(x − m), m the row's maximum."""
    copy(y, x)
    _below_top(y)
    powers = flat(y)
    for i in range(powers.size):
        powers[i] = exp(powers[i])
    rows, columns = y.shape
    for i in range(rows):
        row, total = window(y, i * columns, columns), 0.0
        for j in range(columns):
            total += np.float64(row[j])
        scale = y.dtype.type(1.0 / total)
        for j in range(columns):
            row[j] *= scale


@kernel
def softmax_vjp(dx: Array, dy: Array, y: Array) -> None:
    """dx = y·(dy − Σ dy·y)."""
    copy(dx, dy)
    rows, columns = y.shape
    for i in range(rows):
        d, p, total = window(dx, i * columns, columns), window(y, i * columns, columns), 0.0
        for j in range(columns):
            total += np.float64(d[j] * p[j])
        mean = y.dtype.type(total)
        for j in range(columns):
            d[j] = p[j] * (d[j] - mean)


@kernel
def log_softmax_forward(y: Array, x: Array) -> None:
    """y = (x − m) − log Σ e^(x − m), m the row's maximum; sums exponentials by LOCAL columns."""
    copy(y, x)
    _below_top(y)
    rows, columns = y.shape
    e = local(y)
    for i in range(rows):
        total = 0.0
        for begin in range(0, columns, LOCAL):
            width = min(LOCAL, columns - begin)
            part = window(y, i * columns + begin, width)
            for j in range(width):
                e[j] = exp(part[j])
            for j in range(width):
                total += np.float64(e[j])
        row, shift = window(y, i * columns, columns), y.dtype.type(math.log(total))
        for j in range(columns):
            row[j] -= shift


@kernel
def log_softmax_vjp(dx: Array, dy: Array, y: Array) -> None:
    """dx = dy − e^y·Σ dy."""
    copy(dx, dy)
    rows, columns = y.shape
    for i in range(rows):
        d, f, total = window(dx, i * columns, columns), window(y, i * columns, columns), 0.0
        for j in range(columns):
            total += np.float64(d[j])
        whole = y.dtype.type(total)
        for j in range(columns):
            d[j] -= exp(f[j]) * whole
