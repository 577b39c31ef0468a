"""Rows for each member of an ensemble, means over members, and the linear layer of each member's own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.elementary import exp, log
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.kernels.sums import add_block, add_lost, clear, put, rows_of_block
from fastnet.backends.numba.lowlevel import LOCAL, local, window
from fastnet.op import Array


@kernel
def spread_forward(y: Array, x: Array, factor: float) -> None:
    """y_n = factor·x."""
    scale = x.dtype.type(factor)
    for b in range(y.shape[0]):
        for n in range(y.shape[1]):
            for i in range(y.shape[2]):
                y[b, n, i] = x[b, i] * scale


@kernel
def sum_members_forward(y: Array, x: Array, factor: float) -> None:
    """y = factor·Σ_n x_n."""
    scale = x.dtype.type(factor)
    for b in range(x.shape[0]):
        for i in range(x.shape[2]):
            total = x.dtype.type(0)
            for n in range(x.shape[1]):
                total += x[b, n, i]
            y[b, i] = total * scale


@kernel
def spread_labels_forward(y: Array, t: Array) -> None:
    """y_n = t."""
    for b in range(y.shape[0]):
        for n in range(y.shape[1]):
            y[b, n] = t[b]


@kernel
def log_mean_exp_forward(y: Array, x: Array) -> None:
    """y = ln((1/N)·Σ_n e^x_n)."""
    count = x.dtype.type(x.shape[1])
    for b in range(x.shape[0]):
        for i in range(x.shape[2]):
            top = x[b, 0, i]
            for n in range(1, x.shape[1]):
                if x[b, n, i] > top:
                    top = x[b, n, i]
            if top == -np.inf:
                top = x.dtype.type(0)
            total = x.dtype.type(0)
            for n in range(x.shape[1]):
                total += exp(x[b, n, i] - top)
            y[b, i] = top + log(total / count)


@kernel
def log_mean_exp_vjp(dx: Array, dy: Array, x: Array, y: Array) -> None:
    """dx_n = dy·e^(x_n − y)/N."""
    count = x.dtype.type(x.shape[1])
    for b in range(x.shape[0]):
        for n in range(x.shape[1]):
            for i in range(x.shape[2]):
                mean = y[b, i]
                if mean == -np.inf:
                    mean = x.dtype.type(0)
                dx[b, n, i] = dy[b, i] * exp(x[b, n, i] - mean) / count


@kernel
def mean_of_losses_forward(row_loss: Array, count: Array, losses: Array, counts: Array) -> None:
    """The means over the members."""
    for b in range(losses.shape[0]):
        total, counted = 0.0, count.dtype.type(0)
        for n in range(losses.shape[1]):
            total += losses[b, n]
            counted += counts[b, n] if counts.size > 0 else count.dtype.type(1)
        row_loss[b] = total / losses.shape[1]
        count[b] = counted / count.dtype.type(losses.shape[1])


@kernel
def mean_of_losses_vjp(dlosses: Array, drow_loss: Array) -> None:
    """dlosses_n = drow_loss/N."""
    for b in range(dlosses.shape[0]):
        for n in range(dlosses.shape[1]):
            dlosses[b, n] = drow_loss[b] / dlosses.shape[1]


@kernel
def linear_ensemble_forward(y: Array, x: Array, w: Array, b: Array) -> None:
    """y = x·w_n + b_n for the rows of member n."""
    members, inputs, width = w.shape
    for row in range(x.shape[0]):
        n = row % members
        to = window(y, row * width, width)
        for e in range(width):
            to[e] = b[n, e] if b.size > 0 else y.dtype.type(0)
        for i in range(inputs):
            value, weight = x[row, i], window(w, (n * inputs + i) * width, width)
            for e in range(width):
                to[e] += value * weight[e]


@kernel
def linear_ensemble_vjp(
    dx: Array, dw: Array, db: Array, dy: Array, x: Array, w: Array, accumulate: int
) -> None:
    """dx = dy·w_nᵀ, dw_n = xᵀ·dy, db_n = Σ dy."""
    members, inputs, width = w.shape
    if dx.size > 0:
        for row in range(dx.shape[0]):
            slope = window(dy, row * width, width)
            for i in range(inputs):
                weight = window(w, ((row % members) * inputs + i) * width, width)
                total = 0.0
                for e in range(width):
                    total += np.float64(slope[e] * weight[e])
                dx[row, i] = dy.dtype.type(total)
    for n in range(members):
        if dw.size > 0:
            for i in range(inputs):
                _of_input(dw, dy, x, n, members, i, accumulate)
        if db.size > 0:
            _of_input(db, dy, x, n, members, -1, accumulate)


@njit(error_model="numpy")
def _of_input(into: Any, dy: Any, x: Any, n: int, members: int, i: int, accumulate: int) -> None:
    """The sum over the rows of member n of dy times column i of x; of dy alone where i is −1."""
    rows, width = dy.shape
    step = members * rows_of_block(rows // members + 1)
    first = n * width if i < 0 else (n * x.shape[1] + i) * width
    sums, lost, block = local(dy), local(dy), local(dy)
    for begin in range(0, width, LOCAL):
        size = min(LOCAL, width - begin)
        clear(size, sums, lost, block)
        for top in range(0, rows, step):
            for row in range(top + n, min(top + step, rows), members):
                slope = window(dy, row * width + begin, size)
                value = dy.dtype.type(1) if i < 0 else x[row, i]
                for e in range(size):
                    block[e] += value * slope[e]
            add_block(sums, lost, block, size)
        add_lost(sums, lost, size)
        put(into, sums, first + begin, size, accumulate)
