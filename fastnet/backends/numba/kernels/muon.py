"""Muon's products."""

from __future__ import annotations

import math

import numpy as np

from fastnet.backends.numba.kernels.linear import product
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import flat
from fastnet.op import Array
from fastnet.optim.gradients import SCALE


@kernel
def newton_schulz_update(
    d: Array, before: Array, s: Array, p: Array, linear: float, cubic: float, quintic: float
) -> None:
    """d ← linear·d + (cubic·s + quintic·s²)·d, with s = d·dᵀ; for a tall d the same of dᵀ."""
    rows, columns = d.shape
    m = min(rows, columns)
    zero, one = d.dtype.type(0), d.dtype.type(1)
    square, mixed = flat(s)[: m * m].reshape(m, m), flat(p)[: m * m].reshape(m, m)
    scaled = flat(before)[: m * m].reshape(m, m)
    product(square, d, d, rows > columns, rows <= columns, zero)
    first, third, fifth = d.dtype.type(linear), d.dtype.type(cubic), d.dtype.type(quintic)
    for i in range(m):
        for j in range(m):
            scaled[i, j] = fifth * square[i, j]
            mixed[i, j] = third * square[i, j]
    product(mixed, scaled, square, False, False, one)
    for i in range(rows):
        for j in range(columns):
            before[i, j] = d[i, j]
            d[i, j] = first * before[i, j]
    if rows <= columns:
        product(d, mixed, before, False, False, one)
    else:
        product(d, before, mixed, False, False, one)


@kernel
def unit_length_update(d: Array, eps: float) -> None:
    """d ← d / max(‖d‖, eps)."""
    values, total = flat(d), 0.0
    for i in range(d.size):
        total += np.float64(values[i]) * np.float64(values[i])
    norm = math.sqrt(total)
    if not total < math.inf:
        total = 0.0
        for i in range(d.size):
            total += (SCALE * np.float64(values[i])) * (SCALE * np.float64(values[i]))
        norm = math.sqrt(total) / SCALE
    factor = d.dtype.type(1.0 / (eps if norm < eps else norm))
    for i in range(d.size):
        values[i] *= factor


@kernel
def muon_step_update(w: Array, d: Array, lr: float, matched: float) -> None:
    """w ← w − lr·r·d, with r = √max(1, O/I), or 0.2·√max(I, O) where `matched` is 1."""
    rows, columns = w.shape
    original, by_size = math.sqrt(max(1.0, columns / rows)), 0.2 * math.sqrt(max(rows, columns))
    size = by_size if matched > 0 else original
    length = w.dtype.type(lr * size)
    for i in range(rows):
        for j in range(columns):
            w[i, j] -= length * d[i, j]
