"""x moved towards f(x), by a trained share of the way for each column."""

from __future__ import annotations

from typing import Any

from fastnet.backends.cuda.kernels.batchnorm import put
from fastnet.backends.cuda.kernels.loops import cells, columns
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.teams import EMPTY, plus, team_total


@launcher
@cells("y")
def blend_forward(row: int, column: int, y: Any, x: Any, f: Any, a: Any) -> None:
    """y = x + a·(f − x) by columns."""
    own = x[row, column]
    y[row, column] = own + a[column] * (f[row, column] - own)


@launcher
@columns("dy")
def blend_vjp(
    team: Any,
    column: int,
    end: int,
    dx: Any,
    dy: Any,
    df: Any,
    da: Any,
    x: Any,
    f: Any,
    a: Any,
    accumulate: int,
) -> None:
    """df = dy·a and dx = dy·(1 − a), which may overwrite dy; da = Σ_rows dy·(f − x)."""
    product, factor = EMPTY, a[column if end >= 0 else 0]
    for row in range(team[2], end, team[3]):
        d = dy[row, column]
        product = plus(product, d * (f[row, column] - x[row, column]))
        if df.size > 0:
            df[row, column] = d * factor
        if dx.size > 0:
            dx[row, column] = d * (1 - factor)
    total = team_total(team, product)
    if team[2] == 0 and end >= 0:
        put(da, column, total, accumulate)
