"""Losses, summed in float64."""

from __future__ import annotations

import numpy as np

from fastnet.backends.numba.elementary import exp
from fastnet.backends.numba.kernels.cross_entropy import softmax_and_log
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import flat
from fastnet.op import Array


@kernel
def mse_forward(loss: Array, row_loss: Array, y: Array, t: Array) -> None:
    """row_loss = each row's mean of (y − t)²; loss = their mean."""
    rows, columns = y.shape
    total = 0.0
    for i in range(rows):
        row = 0.0
        for j in range(columns):
            error = y[i, j] - t[i, j]
            row += np.float64(error * error)
        row_loss[i] = row / columns
        total += row / columns
    loss[0] = total / np.float64(rows)


@kernel
def mse_vjp(dy: Array, y: Array, t: Array) -> None:
    """dy = 2(y − t)/(B·N)."""
    d, a, b = flat(dy), flat(y), flat(t)
    factor = dy.dtype.type(2.0 / np.float64(y.size))
    for i in range(d.size):
        d[i] = (a[i] - b[i]) * factor


@kernel
def l2_penalty_forward(
    loss: Array, share: Array, data: Array, row_loss: Array, w: Array, alpha: float
) -> None:
    """loss = data + ½·share·Σ w², share = alpha/B."""
    squares, weights = 0.0, flat(w)
    for i in range(weights.size):
        squares += np.float64(weights[i]) * np.float64(weights[i])
    share[0] = alpha / np.float64(max(1, row_loss.size))
    loss[0] = data[0] + 0.5 * share[0] * squares


@kernel
def l2_penalty_vjp(dw: Array, share: Array, w: Array, accumulate: int) -> None:
    """dw = share·w."""
    if dw.size > 0:
        gradient, weights, factor = flat(dw), flat(w), w.dtype.type(share[0])
        for i in range(gradient.size):
            own = weights[i] * factor
            gradient[i] = gradient[i] + own if accumulate else own


@kernel
def softmax_nll_forward(loss: Array, row_loss: Array, p: Array, z: Array, t: Array) -> None:
    """p = softmax(z); row_loss = log Σ e^(z − m) − (z_t − m), m the row's maximum; loss the mean."""
    rows, columns = z.shape
    for i in range(rows):
        top = z[i, 0]
        for j in range(1, columns):
            if z[i, j] > top:
                top = z[i, j]
        for j in range(columns):
            p[i, j] = z[i, j] - top
        row_loss[i] = -np.float64(p[i, t[i]])
    powers = flat(p)
    for i in range(powers.size):
        powers[i] = exp(powers[i])
    mean = 0.0
    for i in range(rows):
        row_loss[i] += softmax_and_log(p, i)
        mean += row_loss[i]
    loss[0] = mean / np.float64(rows)


@kernel
def softmax_nll_vjp(dz: Array, p: Array, t: Array) -> None:
    """dz = (p − onehot(t))/B."""
    rows, columns = p.shape
    share = p.dtype.type(1.0 / np.float64(rows))
    for i in range(rows):
        others = p.dtype.type(0)
        for j in range(columns):
            dz[i, j] = p[i, j] * share
            if j != t[i]:
                others += dz[i, j]
        dz[i, t[i]] = -others
