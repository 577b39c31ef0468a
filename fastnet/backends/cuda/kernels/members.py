"""Rows for each member of an ensemble, means over members, and the linear layer of each member's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda.elementary import exp, log
from fastnet.backends.cuda.kernels.loops import cells, each
from fastnet.backends.cuda.kernels.registry import launcher


@cells("y")
def _spread(row: int, column: int, y: Any, x: Any, factor: float) -> None:
    width = x.shape[1]
    y[row, column] = x[row, column % width] * y.dtype.type(factor)


@launcher
def spread_forward(queue: Any, y: Any, x: Any, factor: float) -> None:
    """y_n = factor·x."""
    _spread(queue, y.reshape((y.shape[0], y.shape[1] * y.shape[2])), x, factor)


@launcher
@cells("y")
def sum_members_forward(row: int, column: int, y: Any, x: Any, factor: float) -> None:
    """y = factor·Σ_n x_n."""
    total = y.dtype.type(0)
    for n in range(x.shape[1]):
        total += x[row, n, column]
    y[row, column] = total * y.dtype.type(factor)


@launcher
@cells("y")
def spread_labels_forward(row: int, column: int, y: Any, t: Any) -> None:
    """y_n = t."""
    y[row, column] = t[row]


@launcher
@cells("y")
def log_mean_exp_forward(row: int, column: int, y: Any, x: Any) -> None:
    """y = ln((1/N)·Σ_n e^x_n)."""
    top = x[row, 0, column]
    for n in range(1, x.shape[1]):
        if x[row, n, column] > top:
            top = x[row, n, column]
    if top == -math.inf:
        top = y.dtype.type(0)
    total = y.dtype.type(0)
    for n in range(x.shape[1]):
        total += exp(x[row, n, column] - top)
    y[row, column] = top + log(total / y.dtype.type(x.shape[1]))


@cells("dx")
def _shares(row: int, column: int, dx: Any, dy: Any, x: Any, y: Any) -> None:
    """`dx` and `x` have the rows of members, of which `row` is one."""
    members = dx.shape[0] // dy.shape[0]
    b = row // members
    mean = y[b, column]
    if mean == -math.inf:
        mean = y.dtype.type(0)
    dx[row, column] = dy[b, column] * exp(x[row, column] - mean) / y.dtype.type(members)


@launcher
def log_mean_exp_vjp(queue: Any, dx: Any, dy: Any, x: Any, y: Any) -> None:
    """dx_n = dy·e^(x_n − y)/N."""
    rows = dx.shape[0] * dx.shape[1], dx.shape[2]
    if dx.size:
        _shares(queue, dx.reshape(rows), dy, x.reshape(rows), y)


@launcher
@each("row_loss")
def mean_of_losses_forward(i: int, row_loss: Any, count: Any, losses: Any, counts: Any) -> None:
    """The means over the members."""
    members = losses.size // row_loss.size
    total, counted = 0.0, 0.0
    for n in range(i * members, (i + 1) * members):
        total += losses[n]
        counted += np.float64(counts[n]) if counts.size > 0 else 1.0
    row_loss[i] = total / members
    count[i] = count.dtype.type(counted / members)


@launcher
@cells("dlosses")
def mean_of_losses_vjp(row: int, column: int, dlosses: Any, drow_loss: Any) -> None:
    """dlosses_n = drow_loss/N."""
    dlosses[row, column] = drow_loss[row] / dlosses.shape[1]


@launcher
@cells("y")
def linear_ensemble_forward(row: int, column: int, y: Any, x: Any, w: Any, b: Any) -> None:
    """y = x·w_n + b_n for the rows of member n."""
    n, total = row % w.shape[0], 0.0
    for i in range(w.shape[1]):
        total += np.float64(x[row, i] * w[n, i, column])
    bias = b[n, column] if b.size > 0 else y.dtype.type(0)
    y[row, column] = y.dtype.type(total) + bias


@cells("dx")
def _of_inputs(row: int, column: int, dx: Any, dy: Any, w: Any) -> None:
    n, total = row % w.shape[0], 0.0
    for e in range(w.shape[2]):
        total += np.float64(dy[row, e] * w[n, column, e])
    dx[row, column] = dx.dtype.type(total)


@cells("dw")
def _of_weights(row: int, column: int, dw: Any, dy: Any, x: Any, accumulate: int) -> None:
    """An element of dw, in float64; `row` is a column of x of a member, one member after the other."""
    inputs = x.shape[1]
    members, total = dw.shape[0] // inputs, 0.0
    for b in range(row // inputs, x.shape[0], members):
        total += np.float64(x[b, row % inputs] * dy[b, column])
    value = dw.dtype.type(total)
    dw[row, column] = dw[row, column] + value if accumulate else value


@cells("db")
def _of_biases(row: int, column: int, db: Any, dy: Any, accumulate: int) -> None:
    total = 0.0
    for b in range(row, dy.shape[0], db.shape[0]):
        total += np.float64(dy[b, column])
    value = db.dtype.type(total)
    db[row, column] = db[row, column] + value if accumulate else value


@launcher
def linear_ensemble_vjp(
    queue: Any, dx: Any, dw: Any, db: Any, dy: Any, x: Any, w: Any, accumulate: int
) -> None:
    """dx = dy·w_nᵀ, dw_n = xᵀ·dy, db_n = Σ dy."""
    if dx.size:
        _of_inputs(queue, dx, dy, w)
    if dw.size:
        matrix = dw.reshape((dw.shape[0] * dw.shape[1], dw.shape[2]))
        _of_weights(queue, matrix, dy, x, accumulate)
    if db.size:
        _of_biases(queue, db, dy, accumulate)
