"""A trained factor, a trained summand, or both, for each column."""

from __future__ import annotations

from typing import Any

from fastnet.backends.cuda.kernels.batchnorm import put
from fastnet.backends.cuda.kernels.loops import cells, columns, each
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.sums import column_sums
from fastnet.backends.cuda.kernels.teams import EMPTY, plus, team_total


@launcher
@cells("y")
def scale_forward(row: int, column: int, y: Any, x: Any, w: Any) -> None:
    """y = x·w by columns."""
    y[row, column] = x[row, column] * w[column]


@launcher
@cells("y")
def shift_forward(row: int, column: int, y: Any, x: Any, b: Any) -> None:
    """y = x + b by columns."""
    y[row, column] = x[row, column] + b[column]


@launcher
@columns("dy")
def scale_vjp(
    team: Any,
    column: int,
    end: int,
    dx: Any,
    dy: Any,
    dw: Any,
    x: Any,
    w: Any,
    accumulate: int,
) -> None:
    """dx = dy·w, which may overwrite dy; dw = Σ_rows dy·x."""
    product, factor = EMPTY, w[column if end >= 0 else 0]
    for row in range(team[2], end, team[3]):
        d = dy[row, column]
        product = plus(product, d * x[row, column])
        if dx.size > 0:
            dx[row, column] = d * factor
    total = team_total(team, product)
    if team[2] == 0 and end >= 0:
        put(dw, column, total, accumulate)


@launcher
@cells("y")
def affine_forward(row: int, column: int, y: Any, x: Any, w: Any, b: Any) -> None:
    """y = x·w + b by columns."""
    y[row, column] = x[row, column] * w[column] + b[column]


@launcher
@columns("dy")
def affine_vjp(
    team: Any,
    column: int,
    end: int,
    dx: Any,
    dy: Any,
    dw: Any,
    db: Any,
    x: Any,
    w: Any,
    accumulate: int,
) -> None:
    """dx = dy·w, which may overwrite dy; dw = Σ_rows dy·x, db = Σ_rows dy."""
    product, total, factor = EMPTY, EMPTY, w[column if end >= 0 else 0]
    for row in range(team[2], end, team[3]):
        d = dy[row, column]
        product, total = plus(product, d * x[row, column]), plus(total, d)
        if dx.size > 0:
            dx[row, column] = d * factor
    of_factor, of_summand = team_total(team, product), team_total(team, total)
    if team[2] == 0 and end >= 0:
        put(dw, column, of_factor, accumulate)
        put(db, column, of_summand, accumulate)


@each("dx")
def _copy(i: int, dx: Any, dy: Any) -> None:
    dx[i] = dy[i]


@launcher
def shift_vjp(queue: Any, dx: Any, dy: Any, db: Any, accumulate: int) -> None:
    """dx = dy; db = Σ_rows dy."""
    if db.size:
        column_sums(queue, db, dy, accumulate)
    if dx.size:
        _copy(queue, dx, dy)
