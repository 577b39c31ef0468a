"""Softmax and log-softmax; each may overwrite its input element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import device
from fastnet.backends.cuda.elementary import exp, log, log1p
from fastnet.backends.cuda.kernels.loops import rows
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.teams import team_max, team_sum


@device
def row_max(team: Any, row: int, end: int, x: Any) -> Any:
    """The maximum of a row; a NaN, which comparisons ignore, stays in the row."""
    top = -math.inf
    for column in range(team[2], end, team[3]):
        if x[row, column] > top:
            top = np.float64(x[row, column])
    return x.dtype.type(team_max(team, top))


@device
def softmax_and_log(team: Any, row: int, end: int, p: Any, x: Any) -> Any:
    """Write a row's softmax; returns the logarithm of the sum of e^(x − m), and the row's maximum m.

    The logarithm is computed from the sum minus the 1 of a maximum, so that small ones keep their digits.
    """
    top, ones, low = row_max(team, row, end, x), 0.0, 0.0
    for column in range(team[2], end, team[3]):
        p[row, column] = exp(x[row, column] - top)
        if p[row, column] < 1:
            low += np.float64(p[row, column])
        else:
            ones += np.float64(p[row, column])
    ones, low = team_sum(team, ones), team_sum(team, low)
    scale = p.dtype.type(1.0 / (ones + low))
    for column in range(team[2], end, team[3]):
        p[row, column] *= scale
    return log1p(ones - 1.0 + low), top


@launcher
@rows("y")
def softmax_forward(team: Any, row: int, end: int, y: Any, x: Any) -> None:
    """y = e^(x − m)/Σ e^(x − m), m the row's maximum."""
    softmax_and_log(team, row, end, y, x)


@launcher
@rows("y")
def softmax_vjp(team: Any, row: int, end: int, dx: Any, dy: Any, y: Any) -> None:
    """dx = y·(dy − Σ dy·y)."""
    total = 0.0
    for column in range(team[2], end, team[3]):
        total += np.float64(dy[row, column] * y[row, column])
    mean = y.dtype.type(team_sum(team, total))
    for column in range(team[2], end, team[3]):
        dx[row, column] = y[row, column] * (dy[row, column] - mean)


@launcher
@rows("y")
def log_softmax_forward(team: Any, row: int, end: int, y: Any, x: Any) -> None:
    """y = (x − m) − log Σ e^(x − m), m the row's maximum."""
    top, total = row_max(team, row, end, x), 0.0
    for column in range(team[2], end, team[3]):
        total += np.float64(exp(x[row, column] - top))
    shift = y.dtype.type(log(team_sum(team, total)))
    for column in range(team[2], end, team[3]):
        y[row, column] = (x[row, column] - top) - shift


@launcher
@rows("y")
def log_softmax_vjp(team: Any, row: int, end: int, dx: Any, dy: Any, y: Any) -> None:
    """dx = dy − e^y·Σ dy."""
    total = 0.0
    for column in range(team[2], end, team[3]):
        total += np.float64(dy[row, column])
    whole = y.dtype.type(team_sum(team, total))
    for column in range(team[2], end, team[3]):
        dx[row, column] = dy[row, column] - exp(y[row, column]) * whole
