"""Gaussian negative log-likelihood, for predicted means and variances."""

from __future__ import annotations

import math

import numpy as np

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.op import Array


@kernel
def gaussian_nll_forward(
    row_loss: Array, y: Array, t: Array, eps: float, offset: float, divisor: float
) -> None:
    """row_loss = Σ_j (½(log s_j + e_j²/s_j) + offset)/divisor."""
    half = y.shape[1] // 2
    least, rest, one_half = y.dtype.type(eps), y.dtype.type(offset), y.dtype.type(0.5)
    for b in range(row_loss.size):
        total = 0.0
        for j in range(min(half, t.shape[1])):
            variance, e = y[b, half + j], t[b, j] - y[b, j]
            s = least if variance < least else variance
            ratio = e / math.sqrt(s)
            total += np.float64(one_half * (math.log(s) + ratio * ratio) + rest)
        row_loss[b] = total / divisor


@kernel
def gaussian_nll_vjp(
    dy: Array, drow_loss: Array, y: Array, t: Array, eps: float, divisor: float
) -> None:
    """−e/s for a mean, ½(1/s − e²/s²) for a variance."""
    half = y.shape[1] // 2
    zero, one, one_half = y.dtype.type(0), y.dtype.type(1), y.dtype.type(0.5)
    least = y.dtype.type(eps)
    for b in range(drow_loss.size):
        share = y.dtype.type(drow_loss[b] / divisor)
        for j in range(y.shape[1]):
            dy[b, j] = zero
        for j in range(min(half, t.shape[1])):
            variance = y[b, half + j]
            s = least if variance < least else variance
            ratio, root = (t[b, j] - y[b, j]) / s, one / math.sqrt(s)
            dy[b, j] = -ratio * share
            dy[b, half + j] = one_half * (root - ratio) * (root + ratio) * share
