"""Decisions of rows of outputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import device
from fastnet.backends.cuda.kernels.loops import rows
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.softmax import row_max
from fastnet.backends.cuda.kernels.teams import team_max


@device
def is_nan(value: Any) -> bool:
    """Whether this is no number."""
    return bool(value != value)


@launcher
@rows("y")
def decision_forward(team: Any, row: int, end: int, d: Any, y: Any, threshold: float) -> None:
    """The column of the largest output; of one column, whether it reaches the threshold."""
    top = row_max(team, row, end, y)
    first, first_nan = -math.inf, -math.inf  # of columns, negative: the team has a maximum
    for column in range(team[2], end, team[3]):
        if is_nan(y[row, column]):
            first_nan = max(first_nan, -float(column))
        elif y[row, column] == top:
            first = max(first, -float(column))
    first, first_nan = team_max(team, first), team_max(team, first_nan)
    if team[2] == 0 and end >= 0:
        best = -first if first_nan == -math.inf else -first_nan
        if end == 1:
            best = 1.0 if np.float64(y[row, 0]) >= threshold else 0.0
        d[row] = best
