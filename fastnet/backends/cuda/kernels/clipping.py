"""Clipping of gradients and of weights by their norms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import THREADS, blocks_for, cuda, kernel, launch
from fastnet.backends.cuda.kernels.loops import columns
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.teams import team_sum
from fastnet.optim.gradients import LEAST, SCALE


@kernel
def _squares(sums: Any, g: Any) -> None:
    """The sums of squares of blocks of elements, by a grid-stride loop."""
    shared = cuda.shared.array(THREADS, np.float64)
    lane = cuda.threadIdx.x
    size = (g.size + sums.size - 1) // sums.size
    for block in range(cuda.blockIdx.x, sums.size, cuda.gridDim.x):
        total = 0.0
        for i in range(block * size + lane, min((block + 1) * size, g.size), THREADS):
            total += np.float64(g[i]) * np.float64(g[i])
        total = team_sum((shared, lane, lane, THREADS), total)
        if lane == 0:
            sums[block] = total


@kernel
def _root(norm: Any, sums: Any, g: Any) -> None:
    shared = cuda.shared.array(THREADS, np.float64)
    lane = cuda.threadIdx.x
    total = 0.0
    for i in range(lane, sums.size, THREADS):
        total += sums[i]
    total = team_sum((shared, lane, lane, THREADS), total)
    scale = 1.0
    if not (total > LEAST and total < math.inf):
        scale = 1.0 / SCALE if total < 1.0 else SCALE
        total = 0.0
        for i in range(lane, g.size, THREADS):
            total += (scale * np.float64(g[i])) * (scale * np.float64(g[i]))
        total = team_sum((shared, lane, lane, THREADS), total)
    if lane == 0:
        norm[0] = math.sqrt(total) / scale


@launcher
def grad_norm_update(queue: Any, norm: Any, sums: Any, g: Any) -> None:
    """norm = ‖g‖₂, from the sums of the squares of each block."""
    launch(_squares, blocks_for(sums.size, 1), THREADS, queue, sums, g)
    launch(_root, 1, THREADS, queue, norm, sums, g)


@kernel
def _scale(g: Any, norm: Any, max_norm: Any) -> None:
    factor = max_norm[0] / (norm[0] + 1e-6)
    if not factor >= 1.0:
        scale = g.dtype.type(factor)
        for i in range(cuda.grid(1), g.size, cuda.gridsize(1)):
            g[i] *= scale


@launcher
def scale_to_norm_update(queue: Any, g: Any, norm: Any, max_norm: Any) -> None:
    """g ← g·min(1, max_norm/(norm + 10⁻⁶))."""
    launch(_scale, blocks_for(g.size), THREADS, queue, g, norm, max_norm)


@launcher
@columns("w")
def scale_units_update(team: Any, column: int, end: int, w: Any, max_norm: float) -> None:
    """Scale each column of w that is longer than max_norm to that length."""
    total, scaled = 0.0, 0.0
    for row in range(team[2], end, team[3]):
        total += np.float64(w[row, column]) * np.float64(w[row, column])
        scaled += (SCALE * np.float64(w[row, column])) * (SCALE * np.float64(w[row, column]))
    # Compute both sums always, because all threads of the block must call team_sum.
    squares, scaled = team_sum(team, total), team_sum(team, scaled)
    length = math.sqrt(squares) if squares < math.inf else math.sqrt(scaled) / SCALE
    if length > max_norm:
        factor = w.dtype.type(max_norm / length)
        for row in range(team[2], end, team[3]):
            w[row, column] *= factor
