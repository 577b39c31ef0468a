"""Muon's products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import THREADS, cuda, flat, kernel, launch
from fastnet.backends.cuda.gemm import gemm
from fastnet.backends.cuda.kernels.loops import cells, each
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.teams import team_sum
from fastnet.optim.gradients import SCALE


@each("s")
def _scale(i: int, s: Any, scaled: Any, mixed: Any, cubic: Any, quintic: Any) -> None:
    scaled[i] = s.dtype.type(quintic[0]) * s[i]
    mixed[i] = s.dtype.type(cubic[0]) * s[i]


@each("d")
def _begin(i: int, d: Any, before: Any, linear: Any) -> None:
    before[i] = d[i]
    d[i] = d.dtype.type(linear[0]) * before[i]


@launcher
def newton_schulz_update(
    queue: Any, d: Any, before: Any, s: Any, p: Any, linear: Any, cubic: Any, quintic: Any
) -> None:
    """d ← linear·d + (cubic·s + quintic·s²)·d, with s = d·dᵀ; for a tall d the same of dᵀ."""
    wide, m = d.shape[0] <= d.shape[1], min(d.shape)
    square, mixed, scaled = (flat(a)[: m * m].reshape((m, m)) for a in (s, p, before))
    gemm(queue, square, d, d, trans_a=not wide, trans_b=wide)
    _scale(queue, square, scaled, mixed, cubic, quintic)
    gemm(queue, mixed, scaled, square, add=True)
    _begin(queue, d, before, linear)
    gemm(queue, d, *((mixed, before) if wide else (before, mixed)), add=True)


@kernel
def _normalize(d: Any, eps: Any) -> None:
    """One block: a matrix's norm is little beside the products that follow."""
    shared = cuda.shared.array(THREADS, np.float64)
    lane = cuda.threadIdx.x
    total, scaled = 0.0, 0.0
    for i in range(lane, d.size, THREADS):
        total += np.float64(d[i]) * np.float64(d[i])
        scaled += (SCALE * np.float64(d[i])) * (SCALE * np.float64(d[i]))
    total = team_sum((shared, lane, lane, THREADS), total)
    scaled = team_sum((shared, lane, lane, THREADS), scaled)
    norm = math.sqrt(total) if total < math.inf else math.sqrt(scaled) / SCALE
    factor = d.dtype.type(1.0 / (eps[0] if norm < eps[0] else norm))
    for i in range(lane, d.size, THREADS):
        d[i] *= factor


@launcher
def unit_length_update(queue: Any, d: Any, eps: Any) -> None:
    """d ← d / max(‖d‖, eps)."""
    launch(_normalize, 1, THREADS, queue, flat(d), eps)


@launcher
@cells("w")
def muon_step_update(row: int, column: int, w: Any, d: Any, lr: float, matched: float) -> None:
    """w ← w − lr·r·d, with r = √max(1, O/I), or 0.2·√max(I, O) where `matched` is 1."""
    rows, columns = w.shape
    original, by_size = math.sqrt(max(1.0, columns / rows)), 0.2 * math.sqrt(max(rows, columns))
    size = by_size if matched > 0 else original
    w[row, column] -= w.dtype.type(lr * size) * d[row, column]
