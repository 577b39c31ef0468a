"""Cross-entropies with options, and the weighted mean of row losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.elementary import exp
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import flat
from fastnet.op import Array


@kernel
def weighted_loss_forward(
    loss: Array, scale: Array, row_loss: Array, w: Array, c: Array, mean: float
) -> None:
    """loss = Σ w·row_loss / total, scale = 1 / total; by mean (0, 1, 2) total is 1, Σ w·c or B."""
    total, summed = 0.0, 0.0
    for i in range(row_loss.size):
        weight = np.float64(w[i]) if w.size > 0 else 1.0
        total += weight * np.float64(c[i]) if c.size > 0 else weight
        if not (weight == 0 and math.isinf(row_loss[i])):
            summed += weight * row_loss[i]
    if mean == 0:
        total = 1.0
    elif mean == 2:
        total = np.float64(row_loss.size)
    elif mean < 0:
        total = -mean
    scale[0] = 1.0 / total if total > 0 else 0.0
    loss[0] = summed / total if total > 0 else summed if math.isnan(summed) else 0.0


@kernel
def weighted_loss_vjp(drow_loss: Array, scale: Array, w: Array) -> None:
    """drow_loss = w·scale."""
    for i in range(drow_loss.size):
        drow_loss[i] = np.float64(w[i]) * scale[0] if w.size > 0 else scale[0]


@njit(error_model="numpy")
def _below_top(p: Any, z: Any) -> None:
    """p = z − the row's maximum."""
    rows, columns = z.shape
    for i in range(rows):
        top = z[i, 0]
        for j in range(1, columns):
            if z[i, j] > top:
                top = z[i, j]
        for j in range(columns):
            p[i, j] = z[i, j] - top


@njit(error_model="numpy")
def softmax_and_log(p: Any, i: int) -> float:
    """Divide row i, which has exponentials, by its sum; returns the logarithm of the sum.

    The logarithm is computed from the sum minus the 1 of a maximum, so that small ones keep their digits.
    """
    ones, low = 0.0, 0.0
    for j in range(p.shape[1]):
        if p[i, j] < 1:
            low += np.float64(p[i, j])
        else:
            ones += np.float64(p[i, j])
    scale = p.dtype.type(1.0 / (ones + low))
    for j in range(p.shape[1]):
        p[i, j] *= scale
    return math.log1p(ones - 1.0 + low)


@njit(error_model="numpy")
def _times(q: float, x: float) -> float:
    """q·x; 0 if q is 0, even for infinite x, but NaN for NaN."""
    return q * np.float64(x) if q != 0 or math.isnan(x) else 0.0


@njit(error_model="numpy")
def _weight(v: Any, j: int) -> float:
    return np.float64(v[j]) if v.size > 0 else 1.0


@njit(error_model="numpy")
def _all_weights(v: Any, columns: int) -> float:
    total = 0.0
    for j in range(columns):
        total += _weight(v, j)
    return total


@kernel
def cross_entropy_forward(
    row_loss: Array,
    count: Array,
    p: Array,
    z: Array,
    t: Array,
    v: Array,
    smoothing: float,
    ignored: float,
) -> None:
    """row_loss = Σq·log Σ e^(z − m) − Σ_c q_c·(z_c − m), q_c = v_c·((1 − s)·[c = t] + s/C)."""
    rows, columns = z.shape
    _below_top(p, z)
    for i in range(rows):
        row_loss[i] = 0.0
        count[i] = 0.0 if t[i] == ignored else _weight(v, t[i])
        if t[i] == ignored:
            continue
        if smoothing > 0:
            for j in range(columns):
                row_loss[i] += _times(_weight(v, j), p[i, j])
        sharp = _times((1 - smoothing) * np.float64(count[i]), p[i, t[i]])
        row_loss[i] = sharp + smoothing / columns * row_loss[i]
    powers = flat(p)
    for i in range(powers.size):
        powers[i] = exp(powers[i])
    even = smoothing / columns * _all_weights(v, columns)
    for i in range(rows):
        shift = softmax_and_log(p, i)
        if t[i] != ignored:
            row_loss[i] = ((1 - smoothing) * np.float64(count[i]) + even) * shift - row_loss[i]


@njit(error_model="numpy")
def _rest(p: Any, i: int) -> float:
    """The sum of row i without elements above ½."""
    total = 0.0
    for j in range(p.shape[1]):
        total += 0.0 if p[i, j] > 0.5 else np.float64(p[i, j])
    return total


@njit(error_model="numpy")
def _slope(p: float, q: float, whole: float, rest: float) -> float:
    """p·Σq − q, computed from the other q and p, so that small differences keep their digits."""
    return p * (whole - q) - q * (rest if p > 0.5 else 1.0 - p)


@kernel
def cross_entropy_vjp(
    dz: Array, drow_loss: Array, p: Array, t: Array, v: Array, smoothing: float, ignored: float
) -> None:
    """dz = drow_loss·(p·Σq − q)."""
    rows, columns = p.shape
    share = smoothing / columns
    even = share * _all_weights(v, columns)
    for i in range(rows):
        if t[i] == ignored:
            dz[i, :] = 0
            continue
        sharp, rest = (1 - smoothing) * _weight(v, t[i]), _rest(p, i)
        for j in range(columns):
            q = share * _weight(v, j) + (sharp if j == t[i] else 0.0)
            slope = _slope(np.float64(p[i, j]), q, sharp + even, rest)
            dz[i, j] = p.dtype.type(drow_loss[i] * slope)


@kernel
def soft_cross_entropy_forward(
    row_loss: Array, p: Array, z: Array, t: Array, v: Array, smoothing: float
) -> None:
    """row_loss = Σq·log Σ e^(z − m) − Σ_c q_c·(z_c − m), q_c = v_c·((1 − s)·t_c + s/C)."""
    rows, columns = z.shape
    _below_top(p, z)
    for i in range(rows):
        part = 0.0
        for j in range(columns):
            q = _weight(v, j) * (np.float64(t[i, j]) * (1 - smoothing) + smoothing / columns)
            part += _times(q, p[i, j])
        row_loss[i] = part
    powers = flat(p)
    for i in range(powers.size):
        powers[i] = exp(powers[i])
    for i in range(rows):
        whole = 0.0
        for j in range(columns):
            q = _weight(v, j) * (np.float64(t[i, j]) * (1 - smoothing) + smoothing / columns)
            whole += q
        row_loss[i] = whole * softmax_and_log(p, i) - row_loss[i]


@kernel
def soft_cross_entropy_vjp(
    dz: Array, drow_loss: Array, p: Array, t: Array, v: Array, smoothing: float
) -> None:
    """dz = drow_loss·(p·Σq − q)."""
    rows, columns = p.shape
    for i in range(rows):
        whole, rest = 0.0, _rest(p, i)
        for j in range(columns):
            whole += _weight(v, j) * (np.float64(t[i, j]) * (1 - smoothing) + smoothing / columns)
        for j in range(columns):
            q = _weight(v, j) * (np.float64(t[i, j]) * (1 - smoothing) + smoothing / columns)
            slope = _slope(np.float64(p[i, j]), q, whole, rest)
            dz[i, j] = p.dtype.type(drow_loss[i] * slope)


@kernel
def nll_forward(
    row_loss: Array, count: Array, y: Array, t: Array, v: Array, ignored: float
) -> None:
    """row_loss = −v_t·y_t; count = v_t."""
    for i in range(row_loss.size):
        kept = t[i] != ignored
        count[i] = _weight(v, t[i]) if kept else 0.0
        row_loss[i] = -_times(np.float64(count[i]), y[i, t[i]]) if kept else 0.0


@kernel
def nll_vjp(dy: Array, drow_loss: Array, t: Array, v: Array, ignored: float) -> None:
    """dy = −drow_loss·v_t at the label."""
    d = flat(dy)
    for i in range(d.size):
        d[i] = 0
    for i in range(drow_loss.size):
        if t[i] != ignored:
            dy[i, t[i]] = -drow_loss[i] * _weight(v, t[i])
