"""Sums of gradients: of two tensors, and of the rows of one."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends.cuda.device import HIGHEST, cuda, flat, kernel, launch, scratch
from fastnet.backends.cuda.kernels.loops import ACROSS, DOWN, each
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.teams import EMPTY, plus, team_total

_SHARED = ACROSS * DOWN
_HEIGHT = 8 * DOWN  # rows that one block sums; more for very many rows


@launcher
@each("y")
def add_to_forward(i: int, y: Any, x: Any) -> None:
    """y ← y + x."""
    y[i] += x[i]


@kernel
def _columns(into: Any, a: Any, rows: int, columns: int, height: int, accumulate: int) -> None:
    """Sums of a's columns over `height` rows each; the grid's second dimension gives the result rows."""
    shared = cuda.shared.array(_SHARED, np.float64)
    column = cuda.blockIdx.x * ACROSS + cuda.threadIdx.x
    lane, first = cuda.threadIdx.y, cuda.blockIdx.y * height
    total = EMPTY
    if column < columns:
        for row in range(first + lane, min(first + height, rows), DOWN):
            total = plus(total, a[row * columns + column])
    whole = team_total((shared, cuda.threadIdx.x * DOWN + lane, lane, DOWN), total)
    if lane == 0 and column < columns:
        place, value = cuda.blockIdx.y * columns + column, into.dtype.type(whole)
        into[place] = into[place] + value if accumulate else value


def column_sums(queue: Any, into: Any, a: Any, accumulate: int) -> None:
    """Write or add Σ_rows a; many rows are summed in blocks first."""
    rows, columns = a.shape
    grid, block = -(-columns // ACROSS), (ACROSS, DOWN)
    height = max(_HEIGHT, -(-rows // HIGHEST))
    parts, elements = -(-rows // height), flat(a)
    if parts > 1:
        sums = scratch(queue, parts * columns, np.float64)
        launch(_columns, (grid, parts), block, queue, sums, elements, rows, columns, height, 0)
        elements, rows = sums, parts
    launch(_columns, grid, block, queue, into, elements, rows, columns, rows, accumulate)
