"""Gaussian radial basis functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends.cuda.elementary import exp
from fastnet.backends.cuda.kernels.batchnorm import put
from fastnet.backends.cuda.kernels.loops import cells, columns, rows
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.teams import EMPTY, plus, team_sum, team_total


@launcher
@cells("y")
def gaussian_basis_forward(
    row: int, column: int, y: Any, d: Any, x: Any, mu: Any, sigma: Any
) -> None:
    """y = e^(−d/(2σ²)) with d = Σ_i (x_i − μ_ij)²."""
    one, total = y.dtype.type(1), y.dtype.type(0)
    if column < sigma.size:
        for i in range(mu.shape[0]):
            difference = x[row, i] - mu[i, column]
            total += difference * difference
        d[row, column] = total
        width = sigma[column]
        y[row, column] = exp(total * (y.dtype.type(-0.5) / (width * width)))
    else:
        y[row, column] = one


@launcher
@cells("s")
def gaussian_slope_forward(row: int, column: int, s: Any, x: Any, mu: Any, u: Any, nu: Any) -> None:
    """Σ_i (x_i − μ_ij)·(u_i − ν_ij); a missing u or ν is 0."""
    total, none = s.dtype.type(0), s.dtype.type(0)
    for i in range(mu.shape[0]):
        along = (u[row, i] if u.size else none) - (nu[i, column] if nu.size else none)
        total += (x[row, i] - mu[i, column]) * along
    s[row, column] = total


@rows("dx")
def _of_inputs(
    team: Any, row: int, end: int, dx: Any, dy: Any, y: Any, x: Any, mu: Any, sigma: Any
) -> None:
    """dx_i = −Σ_j dy·y/σ²·(x_i − μ_ij); the team shares the centres."""
    for i in range(mu.shape[0]):
        total = 0.0
        if end >= 0:
            for j in range(team[2], sigma.size, team[3]):
                g = dy[row, j] * y[row, j] / (sigma[j] * sigma[j])
                total += np.float64(g * (x[row, i] - mu[i, j]))
        total = team_sum(team, total)
        if team[2] == 0 and end >= 0:
            dx[row, i] = dx.dtype.type(-total)


@columns("d")
def _of_centers(
    team: Any,
    column: int,
    end: int,
    dmu: Any,
    dy: Any,
    y: Any,
    d: Any,
    x: Any,
    mu: Any,
    sigma: Any,
    accumulate: int,
) -> None:
    own = column if end >= 0 else 0
    width = sigma[own]
    for i in range(mu.shape[0]):
        total, centre = EMPTY, mu[i, own]
        for row in range(team[2], end, team[3]):
            total = plus(total, dy[row, column] * y[row, column] * (x[row, i] - centre))
        whole = team_total(team, total)
        if team[2] == 0 and end >= 0:
            value = dmu.dtype.type(whole) / (width * width)
            dmu[i, column] = value + dmu[i, column] if accumulate else value


@columns("d")
def _of_widths(
    team: Any,
    column: int,
    end: int,
    dsigma: Any,
    dy: Any,
    y: Any,
    d: Any,
    sigma: Any,
    accumulate: int,
) -> None:
    total, width = EMPTY, sigma[column if end >= 0 else 0]
    for row in range(team[2], end, team[3]):
        total = plus(total, dy[row, column] * y[row, column] * d[row, column])
    whole = team_total(team, total)
    if team[2] == 0 and end >= 0:
        cube = np.float64(width) * np.float64(width) * np.float64(width)
        put(dsigma, column, whole / cube, accumulate)


@launcher
def gaussian_basis_vjp(
    queue: Any,
    dx: Any,
    dmu: Any,
    dsigma: Any,
    dy: Any,
    y: Any,
    d: Any,
    x: Any,
    mu: Any,
    sigma: Any,
    accumulate: int,
) -> None:
    """dμ = Σ_rows g·(x − μ), dx = −Σ_j g·(x − μ), dσ = Σ_rows g·d/σ, with g = dy·y/σ²."""
    if dx.size:
        _of_inputs(queue, dx, dy, y, x, mu, sigma)
    if dmu.size:
        _of_centers(queue, dmu, dy, y, d, x, mu, sigma, accumulate)
    if dsigma.size:
        _of_widths(queue, dsigma, dy, y, d, sigma, accumulate)
