"""Normalisation of rows: a team of threads for each row, and for gradients for each column."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends.cuda.device import device
from fastnet.backends.cuda.elementary import is_single, sqrt
from fastnet.backends.cuda.kernels.batchnorm import put
from fastnet.backends.cuda.kernels.loops import columns, rows
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.teams import EMPTY, plus, team_total


@launcher
@rows("y")
def layernorm_forward(
    team: Any,
    row: int,
    end: int,
    y: Any,
    centre: Any,
    rest: Any,
    rstd: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    eps: float,
) -> None:
    """Normalise each row by its mean, centre + rest, and its variance."""
    count, dtype = np.float64(x.shape[1]), y.dtype
    first, total = x[row if end >= 0 else 0, 0], EMPTY
    for column in range(team[2], end, team[3]):
        total = plus(total, x[row, column] - first)
    mean = first + dtype.type(team_total(team, total) / count)
    total = EMPTY
    for column in range(team[2], end, team[3]):
        total = plus(total, x[row, column] - mean)
    left = dtype.type(team_total(team, total) / count)
    total = EMPTY
    for column in range(team[2], end, team[3]):
        centred = x[row, column] - mean - left
        total = plus(total, centred * centred)
    variance = dtype.type(team_total(team, total) / count)
    scale = dtype.type(1) / sqrt(variance + dtype.type(eps))
    if team[2] == 0 and end >= 0:
        centre[row], rest[row], rstd[row] = mean, left, scale
    for column in range(team[2], end, team[3]):
        value = (x[row, column] - mean - left) * scale
        if gamma.size > 0:
            value *= gamma[column]
        y[row, column] = value + beta[column] if beta.size > 0 else value


@launcher
@rows("y")
def rmsnorm_forward(
    team: Any, row: int, end: int, y: Any, rstd: Any, x: Any, gamma: Any, eps: float
) -> None:
    """Divide each row by its root mean square."""
    count, dtype, total = np.float64(x.shape[1]), y.dtype, EMPTY
    for column in range(team[2], end, team[3]):
        total = plus(total, x[row, column] * x[row, column])
    mean = dtype.type(team_total(team, total) / count)
    small = eps if eps > 0.0 else 2.0**-23 if is_single(mean) else 2.0**-52
    scale = dtype.type(1) / sqrt(mean + dtype.type(small))
    if team[2] == 0 and end >= 0:
        rstd[row] = scale
    for column in range(team[2], end, team[3]):
        value = x[row, column] * scale
        y[row, column] = value * gamma[column] if gamma.size > 0 else value


@device
def xhat(row: int, column: int, x: Any, centre: Any, rest: Any, rstd: Any) -> Any:
    """x̂ = (x − centre − rest)·rstd; the mean counts as 0 where they are absent."""
    if centre.size > 0:
        return (x[row, column] - centre[row] - rest[row]) * rstd[row]
    return x[row, column] * rstd[row]


@rows("dx")
def _of_x(
    team: Any,
    row: int,
    end: int,
    dx: Any,
    dy: Any,
    centre: Any,
    rest: Any,
    rstd: Any,
    x: Any,
    gamma: Any,
) -> None:
    count, dtype, total, product = np.float64(x.shape[1]), dy.dtype, EMPTY, EMPTY
    for column in range(team[2], end, team[3]):
        g = dy[row, column] * gamma[column] if gamma.size > 0 else dy[row, column]
        total = plus(total, g)
        product = plus(product, g * xhat(row, column, x, centre, rest, rstd))
    mean = dtype.type(team_total(team, total) / count) if centre.size > 0 else dtype.type(0)
    along = dtype.type(team_total(team, product) / count)
    for column in range(team[2], end, team[3]):
        g = dy[row, column] * gamma[column] if gamma.size > 0 else dy[row, column]
        part = xhat(row, column, x, centre, rest, rstd) * along
        dx[row, column] = rstd[row] * (g - mean - part)


@columns("dy")
def _of_parameters(
    team: Any,
    column: int,
    end: int,
    dgamma: Any,
    dbeta: Any,
    dy: Any,
    centre: Any,
    rest: Any,
    rstd: Any,
    x: Any,
    accumulate: int,
) -> None:
    total, product = EMPTY, EMPTY
    for row in range(team[2], end, team[3]):
        total = plus(total, dy[row, column])
        product = plus(product, dy[row, column] * xhat(row, column, x, centre, rest, rstd))
    whole, along = team_total(team, total), team_total(team, product)
    if team[2] == 0 and end >= 0:
        put(dgamma, column, along, accumulate)
        put(dbeta, column, whole, accumulate)


@launcher
def layernorm_vjp(
    queue: Any,
    dx: Any,
    dgamma: Any,
    dbeta: Any,
    dy: Any,
    centre: Any,
    rest: Any,
    rstd: Any,
    x: Any,
    gamma: Any,
    accumulate: int,
) -> None:
    """dx = rstd·(g − mean(g) − x̂·mean(g·x̂)) with g = dy·gamma."""
    if dx.size:
        _of_x(queue, dx, dy, centre, rest, rstd, x, gamma)
    if dgamma.size or dbeta.size:
        _of_parameters(queue, dgamma, dbeta, dy, centre, rest, rstd, x, accumulate)


@launcher
def rmsnorm_vjp(
    queue: Any, dx: Any, dgamma: Any, dy: Any, rstd: Any, x: Any, gamma: Any, accumulate: int
) -> None:
    """dx = rstd·(g − x̂·mean(g·x̂)) with g = dy·gamma."""
    none = rstd[:0]
    if dx.size:
        _of_x(queue, dx, dy, none, none, rstd, x, gamma)
    if dgamma.size:
        _of_parameters(queue, dgamma, none, dy, none, none, rstd, x, accumulate)
