"""The angles of periodic features."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.kernels.linear import sum_rows
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.kernels.sums import add_block, add_lost, clear, put, rows_of_block
from fastnet.backends.numba.lowlevel import LOCAL, local, window
from fastnet.op import Array

TURN = 2 * math.pi


@kernel
def angles_forward(y: Array, x: Array, w: Array, p: Array) -> None:
    """y = 2π·(w·x less the nearest integer) + p; the product is exact or in float64."""
    inputs, frequencies = w.shape
    phases = p.size // w.size
    for b in range(x.shape[0]):
        for i in range(inputs):
            value, of = np.float64(x[b, i]), window(w, i * frequencies, frequencies)
            for s in range(phases):
                at = (i * phases + s) * frequencies
                to = window(y, b * p.size + at, frequencies)
                phase = window(p, at, frequencies)
                for k in range(frequencies):
                    turns = np.float64(of[k]) * value
                    turns -= np.rint(turns)
                    to[k] = y.dtype.type(TURN * turns) + phase[k]


@kernel
def angles_vjp(
    dx: Array, dw: Array, dp: Array, dy: Array, x: Array, w: Array, accumulate: int
) -> None:
    """dp = Σ_rows dy; dw = 2π·Σ_rows Σ_s dy·x; dx = 2π·Σ_sk dy·w."""
    rows, columns = dy.shape
    inputs, frequencies = w.shape
    phases = columns // w.size
    if dx.size > 0:
        for b in range(rows):
            for i in range(inputs):
                total = 0.0
                for s in range(phases):
                    slope = window(dy, b * columns + (i * phases + s) * frequencies, frequencies)
                    for k in range(frequencies):
                        total += np.float64(slope[k] * w[i, k])
                dx[b, i] = dy.dtype.type(TURN * total)
    if dw.size > 0:
        _of_frequencies(dw, dy, x, phases, accumulate)
    if dp.size > 0:
        sum_rows(dp, dy, accumulate)


@njit(error_model="numpy")
def _of_frequencies(dw: Any, dy: Any, x: Any, phases: int, accumulate: int) -> None:
    rows, columns = dy.shape
    inputs, frequencies = dw.shape
    step, turn = rows_of_block(rows), dy.dtype.type(TURN)
    sums, lost, block = local(dy), local(dy), local(dy)
    for i in range(inputs):
        for begin in range(0, frequencies, LOCAL):
            width = min(LOCAL, frequencies - begin)
            clear(width, sums, lost, block)
            for top in range(0, rows, step):
                for b in range(top, min(top + step, rows)):
                    value = x[b, i]
                    for s in range(phases):
                        at = b * columns + (i * phases + s) * frequencies + begin
                        slope = window(dy, at, width)
                        for k in range(width):
                            block[k] += slope[k] * value
                add_block(sums, lost, block, width)
            add_lost(sums, lost, width)
            for k in range(width):
                sums[k] *= turn
            put(dw, sums, i * frequencies + begin, width, accumulate)
