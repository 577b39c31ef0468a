"""Clipping of gradients and of weights by their norms."""

from __future__ import annotations

import math

import numpy as np

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import LOCAL, local, local_doubles
from fastnet.op import Array
from fastnet.optim.gradients import LEAST, SCALE


@kernel
def grad_norm_update(norm: Array, sums: Array, g: Array) -> None:
    """norm = ‖g‖₂, from the sums of the squares of each block."""
    size = (g.size + sums.size - 1) // sums.size
    total = 0.0
    for b in range(sums.size):
        squares = 0.0
        for i in range(min(b * size, g.size), min((b + 1) * size, g.size)):
            squares += np.float64(g[i]) * np.float64(g[i])
        sums[b] = squares
        total += squares
    norm[0] = math.sqrt(total)
    if not (total > LEAST and total < math.inf):
        scale = 1.0 / SCALE if total < 1.0 else SCALE
        total = 0.0
        for i in range(g.size):
            total += (scale * np.float64(g[i])) * (scale * np.float64(g[i]))
        norm[0] = math.sqrt(total) / scale


@kernel
def scale_to_norm_update(g: Array, norm: Array, max_norm: float) -> None:
    """g ← g·min(1, max_norm/(norm + 10⁻⁶))."""
    factor = max_norm / (norm[0] + 1e-6)
    if not factor >= 1.0:
        scale = g.dtype.type(factor)
        for i in range(g.size):
            g[i] *= scale


@kernel
def scale_units_update(w: Array, max_norm: float) -> None:
    """Scale each column of w that is longer than max_norm to that length, by blocks of LOCAL columns."""
    rows, columns = w.shape
    squares, factor = local_doubles(), local(w)
    for begin in range(0, columns, LOCAL):
        width = min(LOCAL, columns - begin)
        for j in range(width):
            squares[j] = 0.0
        for i in range(rows):
            for j in range(width):
                squares[j] += np.float64(w[i, begin + j]) * np.float64(w[i, begin + j])
        for j in range(width):
            length = math.sqrt(squares[j])
            if not squares[j] < math.inf:
                scaled = 0.0
                for i in range(rows):
                    scaled += (SCALE * np.float64(w[i, begin + j])) * (
                        SCALE * np.float64(w[i, begin + j])
                    )
                length = math.sqrt(scaled) / SCALE
            factor[j] = w.dtype.type(max_norm / length if length > max_norm else 1.0)
        for i in range(rows):
            for j in range(width):
                w[i, begin + j] *= factor[j]
