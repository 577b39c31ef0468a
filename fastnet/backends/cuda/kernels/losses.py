"""Losses of rows and their means, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import THREADS, cuda, flat, kernel, launch
from fastnet.backends.cuda.elementary import log, sqrt
from fastnet.backends.cuda.kernels.loops import cells, each, rows
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.softmax import softmax_and_log
from fastnet.backends.cuda.kernels.teams import EMPTY, plus, team_sum, team_total


@kernel
def _mean(loss: Any, row_loss: Any) -> None:
    """The mean of the row losses, by one block."""
    shared = cuda.shared.array(THREADS, np.float64)
    lane = cuda.threadIdx.x
    total = EMPTY
    for i in range(lane, row_loss.size, THREADS):
        total = plus(total, row_loss[i])
    whole = team_total((shared, lane, lane, THREADS), total)
    if lane == 0:
        loss[0] = whole / np.float64(row_loss.size)


@kernel
def _weighted(loss: Any, scale: Any, row_loss: Any, w: Any, c: Any, mean: float) -> None:
    shared = cuda.shared.array(THREADS, np.float64)
    lane = cuda.threadIdx.x
    weights, losses = EMPTY, EMPTY
    for i in range(lane, row_loss.size, THREADS):
        weight = np.float64(w[i]) if w.size > 0 else 1.0
        weights = plus(weights, weight * np.float64(c[i]) if c.size > 0 else weight)
        if not (weight == 0 and math.isinf(row_loss[i])):
            losses = plus(losses, weight * row_loss[i])
    total = team_total((shared, lane, lane, THREADS), weights)
    summed = team_total((shared, lane, lane, THREADS), losses)
    if lane == 0:
        if mean == 0:
            total = 1.0
        elif mean == 2:
            total = np.float64(row_loss.size)
        elif mean < 0:
            total = -mean
        scale[0] = 1.0 / total if total > 0 else 0.0
        loss[0] = summed / total if total > 0 else summed if math.isnan(summed) else 0.0


@launcher
def weighted_loss_forward(
    queue: Any, loss: Any, scale: Any, row_loss: Any, w: Any, c: Any, mean: float
) -> None:
    """loss = Σ w·row_loss / total, scale = 1 / total; by mean (0, 1, 2) total is 1, Σ w·c or B."""
    launch(_weighted, 1, THREADS, queue, loss, scale, row_loss, w, c, mean)


@launcher
@each("drow_loss")
def weighted_loss_vjp(i: int, drow_loss: Any, scale: Any, w: Any) -> None:
    """drow_loss = w·scale."""
    drow_loss[i] = np.float64(w[i]) * scale[0] if w.size > 0 else scale[0]


@kernel
def _l2_penalty(loss: Any, share: Any, data: Any, row_loss: Any, w: Any, alpha: float) -> None:
    shared = cuda.shared.array(THREADS, np.float64)
    lane = cuda.threadIdx.x
    total = EMPTY
    for i in range(lane, w.size, THREADS):
        total = plus(total, np.float64(w[i]) * np.float64(w[i]))
    squares = team_total((shared, lane, lane, THREADS), total)
    if lane == 0:
        share[0] = alpha / np.float64(max(1, row_loss.size))
        loss[0] = data[0] + 0.5 * share[0] * squares


@launcher
def l2_penalty_forward(
    queue: Any, loss: Any, share: Any, data: Any, row_loss: Any, w: Any, alpha: float
) -> None:
    """loss = data + ½·share·Σ w², share = alpha/B."""
    launch(_l2_penalty, 1, THREADS, queue, loss, share, data, row_loss, flat(w), alpha)


@launcher
@each("dw")
def l2_penalty_vjp(i: int, dw: Any, share: Any, w: Any, accumulate: int) -> None:
    """dw = share·w."""
    own = w[i] * w.dtype.type(share[0])
    dw[i] = dw[i] + own if accumulate else own


@rows("y")
def _squares(team: Any, row: int, end: int, row_loss: Any, y: Any, t: Any) -> None:
    total = 0.0
    for column in range(team[2], end, team[3]):
        error = y[row, column] - t[row, column]
        total += np.float64(error * error)
    total = team_sum(team, total)
    if team[2] == 0 and end >= 0:
        row_loss[row] = total / end


@launcher
def mse_forward(queue: Any, loss: Any, row_loss: Any, y: Any, t: Any) -> None:
    """row_loss = each row's mean of (y − t)²; loss = their mean."""
    _squares(queue, row_loss, y, t)
    launch(_mean, 1, THREADS, queue, loss, row_loss)


@launcher
@each("dy")
def mse_vjp(i: int, dy: Any, y: Any, t: Any) -> None:
    """dy = 2(y − t)/(B·N)."""
    dy[i] = (y[i] - t[i]) * dy.dtype.type(2.0 / np.float64(y.size))


@rows("z")
def _softmax_nll(team: Any, row: int, end: int, row_loss: Any, p: Any, z: Any, t: Any) -> None:
    logarithm, top = softmax_and_log(team, row, end, p, z)
    if team[2] == 0 and end >= 0:
        row_loss[row] = logarithm - np.float64(z[row, t[row]] - top)


@launcher
def softmax_nll_forward(queue: Any, loss: Any, row_loss: Any, p: Any, z: Any, t: Any) -> None:
    """p = softmax(z); row_loss = log Σ e^(z − m) − (z_t − m), m the row's maximum; loss the mean."""
    _softmax_nll(queue, row_loss, p, z, t)
    launch(_mean, 1, THREADS, queue, loss, row_loss)


@launcher
@rows("dz")
def softmax_nll_vjp(team: Any, row: int, end: int, dz: Any, p: Any, t: Any) -> None:
    """dz = (p − onehot(t))/B, at the label the negative of the sum of the others."""
    share = p.dtype.type(1.0 / np.float64(p.shape[0]))
    label, total = t[row] if end >= 0 else 0, 0.0
    for column in range(team[2], end, team[3]):
        if column != label:
            dz[row, column] = p[row, column] * share
            total += np.float64(dz[row, column])
    total = team_sum(team, total)
    if team[2] == 0 and end >= 0:
        dz[row, label] = -total


@launcher
@rows("y")
def gaussian_nll_forward(
    team: Any,
    row: int,
    end: int,
    row_loss: Any,
    y: Any,
    t: Any,
    eps: float,
    offset: float,
    divisor: float,
) -> None:
    """row_loss = Σ_j (½(log s_j + e_j²/s_j) + offset)/divisor."""
    half = y.shape[1] // 2
    least, rest, one_half = y.dtype.type(eps), y.dtype.type(offset), y.dtype.type(0.5)
    total = 0.0
    for column in range(team[2], min(end, half, t.shape[1]), team[3]):
        variance = y[row, half + column]
        error = t[row, column] - y[row, column]
        s = least if variance < least else variance
        ratio = error / sqrt(s)
        total += np.float64(one_half * (log(s) + ratio * ratio) + rest)
    total = team_sum(team, total)
    if team[2] == 0 and end >= 0:
        row_loss[row] = total / divisor


@launcher
@cells("dy")
def gaussian_nll_vjp(
    row: int, column: int, dy: Any, drow_loss: Any, y: Any, t: Any, eps: float, divisor: float
) -> None:
    """−e/s for a mean, ½(1/s − e²/s²) for a variance."""
    half = y.shape[1] // 2
    of_mean = column < half
    place = column if of_mean else column - half
    if place >= min(half, t.shape[1]):
        dy[row, column] = y.dtype.type(0)
        return
    one, one_half, least = y.dtype.type(1), y.dtype.type(0.5), y.dtype.type(eps)
    variance = y[row, half + place]
    s = least if variance < least else variance
    ratio, root = (t[row, place] - y[row, place]) / s, one / sqrt(s)
    share = y.dtype.type(drow_loss[row] / divisor)
    dy[row, column] = (-ratio if of_mean else one_half * (root - ratio) * (root + ratio)) * share
