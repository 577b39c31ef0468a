"""Batch normalisation: a team of threads for each column."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends.cuda.device import device
from fastnet.backends.cuda.elementary import sqrt
from fastnet.backends.cuda.kernels.loops import cells, columns, each
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.teams import EMPTY, plus, team_total


@columns("x")
def _normalise(
    team: Any,
    column: int,
    end: int,
    y: Any,
    shift: Any,
    rstd: Any,
    running_mean: Any,
    running_var: Any,
    batches: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    momentum: float,
) -> None:
    # By the statistics of x minus its first row, summed in float64.
    total, count, dtype = EMPTY, np.float64(x.shape[0]), y.dtype
    first = x[0, column if end >= 0 else 0]
    for row in range(team[2], end, team[3]):
        total = plus(total, x[row, column] - first)
    centre = dtype.type(team_total(team, total) / count)
    total = EMPTY
    for row in range(team[2], end, team[3]):
        centred = x[row, column] - first - centre
        total = plus(total, centred * centred)
    variance = dtype.type(team_total(team, total) / count)
    scale = dtype.type(1) / sqrt(variance + dtype.type(eps))
    for row in range(team[2], end, team[3]):
        value = (x[row, column] - first - centre) * scale
        y[row, column] = value * gamma[column] + beta[column] if gamma.size > 0 else value
    if team[2] == 0 and end >= 0:
        shift[column], rstd[column] = centre, scale
        if running_mean.size > 0:
            rate = momentum if momentum >= 0.0 else 1.0 / np.float64(batches[0] + 1)
            new, unbiased = dtype.type(rate), variance * dtype.type(count / (count - 1.0))
            running_mean[column] += new * (first + centre - running_mean[column])
            running_var[column] += new * (unbiased - running_var[column])


@each("batches")
def _count(i: int, batches: Any) -> None:
    batches[i] += 1


@launcher
def batchnorm_forward(
    queue: Any,
    y: Any,
    shift: Any,
    rstd: Any,
    running_mean: Any,
    running_var: Any,
    batches: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    momentum: float,
) -> None:
    """Normalise; then count the minibatch, as all blocks read the count of those before."""
    statistics = running_mean, running_var, batches
    _normalise(queue, y, shift, rstd, *statistics, x, gamma, beta, eps, momentum)
    if batches.size:
        _count(queue, batches)


@device
def put(into: Any, column: int, value: Any, accumulate: int) -> None:
    """Write or add a parameter's gradient, unless it is absent."""
    if into.size > 0:
        new = into.dtype.type(value)
        into[column] = new + into[column] if accumulate else new


@device
def column_gradients(
    team: Any, column: int, end: int, dy: Any, x: Any, first: Any, centre: Any, scale: Any
) -> Any:
    """Σ dy and Σ dy·x̂ over a column, with x̂ = (x − first − centre)·scale."""
    total, product = EMPTY, EMPTY
    for row in range(team[2], end, team[3]):
        d = dy[row, column]
        total = plus(total, d)
        product = plus(product, d * ((x[row, column] - first - centre) * scale))
    return team_total(team, total), team_total(team, product)


@launcher
@columns("dy")
def batchnorm_vjp(
    team: Any,
    column: int,
    end: int,
    dx: Any,
    dgamma: Any,
    dbeta: Any,
    dy: Any,
    shift: Any,
    rstd: Any,
    x: Any,
    gamma: Any,
    accumulate: int,
) -> None:
    """dx = gamma·rstd·(dy − mean(dy) − x̂·mean(dy·x̂))."""
    own = column if end >= 0 else 0
    first, centre, scale = x[0, own], shift[own], rstd[own]
    dtype, count = dy.dtype, np.float64(x.shape[0])
    total, product = column_gradients(team, column, end, dy, x, first, centre, scale)
    if team[2] == 0 and end >= 0:
        put(dgamma, column, product, accumulate)
        put(dbeta, column, total, accumulate)
    if dx.size > 0:
        whole = gamma[own] * scale if gamma.size > 0 else scale
        of_mean, of_scale = dtype.type(total / count), dtype.type(product / count)
        for row in range(team[2], end, team[3]):
            xhat = (x[row, column] - first - centre) * scale
            dx[row, column] = whole * (dy[row, column] - of_mean - xhat * of_scale)


@launcher
@cells("y")
def batchnorm_inference_forward(
    row: int,
    column: int,
    y: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    running_mean: Any,
    running_var: Any,
    eps: float,
) -> None:
    """y = gamma·(x − running_mean)/√(running_var + eps) + beta."""
    one, small = y.dtype.type(1), y.dtype.type(eps)
    value = (x[row, column] - running_mean[column]) * (one / sqrt(running_var[column] + small))
    y[row, column] = value * gamma[column] + beta[column] if gamma.size > 0 else value


@launcher
@columns("dy")
def batchnorm_inference_vjp(
    team: Any,
    column: int,
    end: int,
    dx: Any,
    dgamma: Any,
    dbeta: Any,
    dy: Any,
    x: Any,
    gamma: Any,
    running_mean: Any,
    running_var: Any,
    eps: float,
    accumulate: int,
) -> None:
    """The statistics are constants: dx = dy·gamma·rstd."""
    own, one = column if end >= 0 else 0, dy.dtype.type(1)
    scale = one / sqrt(running_var[own] + dy.dtype.type(eps))
    zero = dy.dtype.type(0)
    total, product = column_gradients(team, column, end, dy, x, running_mean[own], zero, scale)
    if team[2] == 0 and end >= 0:
        put(dgamma, column, product, accumulate)
        put(dbeta, column, total, accumulate)
    if dx.size > 0:
        whole = gamma[own] * scale if gamma.size > 0 else scale
        for row in range(team[2], end, team[3]):
            dx[row, column] = dy[row, column] * whole
