"""A rectifier with trained slopes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends.cuda.device import THREADS, blocks_for, cuda, kernel, launch, scratch
from fastnet.backends.cuda.kernels.loops import cells, columns
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.teams import EMPTY, plus, team_total


@launcher
@cells("y")
def prelu_forward(row: int, column: int, y: Any, x: Any, a: Any) -> None:
    """y = x where x > 0, else a[j mod A]·x."""
    value = x[row, column]
    y[row, column] = value if value > 0 else a[column % a.size] * value


@cells("dx")
def _of_input(row: int, column: int, dx: Any, dy: Any, x: Any, a: Any) -> None:
    d = dy[row, column]
    dx[row, column] = d if x[row, column] > 0 else a[column % a.size] * d


@columns("x")
def _of_columns(team: Any, column: int, end: int, sums: Any, dy: Any, x: Any) -> None:
    total = EMPTY
    for row in range(team[2], end, team[3]):
        if not x[row, column] > 0:
            total = plus(total, dy[row, column] * x[row, column])
    whole = team_total(team, total)
    if team[2] == 0 and end >= 0:
        sums[column] = whole


@kernel
def _of_slopes(da: Any, sums: Any, columns: int, accumulate: int) -> None:
    """Sum the columns of each slope, one block for a slope."""
    shared = cuda.shared.array(THREADS, np.float64)
    lane = cuda.threadIdx.x
    for slope in range(cuda.blockIdx.x, da.size, cuda.gridDim.x):
        total = EMPTY
        for column in range(slope + lane * da.size, columns, THREADS * da.size):
            total = plus(total, sums[column])
        whole = team_total((shared, lane, lane, THREADS), total)
        if lane == 0:
            value = da.dtype.type(whole)
            da[slope] = value + da[slope] if accumulate else value


@launcher
def prelu_vjp(queue: Any, dx: Any, da: Any, dy: Any, x: Any, a: Any, accumulate: int) -> None:
    """dx = dy or a·dy; da sums dy·min(x, 0)."""
    if dx.size:
        _of_input(queue, dx, dy, x, a)
    if da.size:
        width = dy.shape[1]
        sums = scratch(queue, width, np.float64)
        _of_columns(queue, sums, dy, x)
        launch(_of_slopes, blocks_for(da.size, 1), THREADS, queue, da, sums, width, accumulate)
