"""Losses of labels: cross-entropies with options, hinges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import device
from fastnet.backends.cuda.kernels.loops import cells, each, rows
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.softmax import softmax_and_log
from fastnet.backends.cuda.kernels.teams import team_sum


@device
def weight_of(v: Any, column: int) -> Any:
    """A class's weight; 1 if weights are absent."""
    return np.float64(v[column]) if v.size > 0 else 1.0


@device
def times(q: Any, x: Any) -> Any:
    """q·x; 0 if q is 0, even for infinite x, but NaN for NaN."""
    return q * np.float64(x) if q != 0 or math.isnan(x) else 0.0


@device
def slope_of_share(p: Any, q: Any, whole: Any, rest: Any) -> Any:
    """p·Σq − q from the other q and p, which keeps small differences; rest: the sum of the p up to ½."""
    return p * (whole - q) - q * (rest if p > 0.5 else 1.0 - p)


@device
def rest_of(team: Any, row: int, end: int, p: Any) -> Any:
    """The sum of a row without elements above ½."""
    total = 0.0
    for column in range(team[2], end, team[3]):
        total += 0.0 if p[row, column] > 0.5 else np.float64(p[row, column])
    return team_sum(team, total)


@device
def all_weights(team: Any, end: int, v: Any) -> Any:
    """The sum of the weights."""
    total = 0.0
    for column in range(team[2], end, team[3]):
        total += weight_of(v, column)
    return team_sum(team, total)


@launcher
@rows("z")
def cross_entropy_forward(
    team: Any,
    row: int,
    end: int,
    row_loss: Any,
    count: Any,
    p: Any,
    z: Any,
    t: Any,
    v: Any,
    smoothing: float,
    ignored: float,
) -> None:
    """row_loss = Σq·log Σ e^(z − m) − Σ_c q_c·(z_c − m), q_c = v_c·((1 − s)·[c = t] + s/C)."""
    shift, top = softmax_and_log(team, row, end, p, z)
    spread = 0.0
    if smoothing > 0:
        for column in range(team[2], end, team[3]):
            spread += times(weight_of(v, column), z[row, column] - top)
    spread = team_sum(team, spread)
    weights = all_weights(team, end, v)
    if team[2] == 0 and end >= 0:
        label = t[row]
        if label == ignored:
            row_loss[row] = 0.0
            count[row] = 0
        else:
            share, sharp = smoothing / end, (1 - smoothing) * weight_of(v, label)
            part = times(sharp, z[row, label] - top) + share * spread
            row_loss[row] = (sharp + share * weights) * shift - part
            count[row] = weight_of(v, label)


@launcher
@rows("dz")
def cross_entropy_vjp(
    team: Any,
    row: int,
    end: int,
    dz: Any,
    drow_loss: Any,
    p: Any,
    t: Any,
    v: Any,
    smoothing: float,
    ignored: float,
) -> None:
    """dz = drow_loss·(p·Σq − q)."""
    weights, rest = all_weights(team, end, v), rest_of(team, row, end, p)
    if end < 0:
        return
    label, share = t[row], smoothing / end
    if label == ignored:
        for column in range(team[2], end, team[3]):
            dz[row, column] = 0
        return
    sharp = (1 - smoothing) * weight_of(v, label)
    whole = sharp + share * weights
    for column in range(team[2], end, team[3]):
        q = share * weight_of(v, column) + (sharp if column == label else 0.0)
        slope = slope_of_share(np.float64(p[row, column]), q, whole, rest)
        dz[row, column] = p.dtype.type(drow_loss[row] * slope)


@device
def smoothed(t: Any, v: Any, row: int, column: int, smoothing: float) -> Any:
    """q_c = v_c·((1 − s)·t_c + s/C)."""
    sharp = np.float64(t[row, column]) * (1 - smoothing)
    return weight_of(v, column) * (sharp + smoothing / t.shape[1])


@launcher
@rows("z")
def soft_cross_entropy_forward(
    team: Any, row: int, end: int, row_loss: Any, p: Any, z: Any, t: Any, v: Any, smoothing: float
) -> None:
    """row_loss = Σq·log Σ e^(z − m) − Σ_c q_c·(z_c − m)."""
    shift, top = softmax_and_log(team, row, end, p, z)
    part, whole = 0.0, 0.0
    for column in range(team[2], end, team[3]):
        q = smoothed(t, v, row, column, smoothing)
        part += times(q, z[row, column] - top)
        whole += q
    part = team_sum(team, part)
    whole = team_sum(team, whole)
    if team[2] == 0 and end >= 0:
        row_loss[row] = whole * shift - part


@launcher
@rows("dz")
def soft_cross_entropy_vjp(
    team: Any,
    row: int,
    end: int,
    dz: Any,
    drow_loss: Any,
    p: Any,
    t: Any,
    v: Any,
    smoothing: float,
) -> None:
    """dz = drow_loss·(p·Σq − q)."""
    whole = 0.0
    for column in range(team[2], end, team[3]):
        whole += smoothed(t, v, row, column, smoothing)
    whole, rest = team_sum(team, whole), rest_of(team, row, end, p)
    for column in range(team[2], end, team[3]):
        q = smoothed(t, v, row, column, smoothing)
        slope = slope_of_share(np.float64(p[row, column]), q, whole, rest)
        dz[row, column] = p.dtype.type(drow_loss[row] * slope)


@launcher
@each("row_loss")
def nll_forward(i: int, row_loss: Any, count: Any, y: Any, t: Any, v: Any, ignored: float) -> None:
    """row_loss = −v_t·y_t; count = v_t. Here y is flat."""
    if t[i] == ignored:
        row_loss[i] = 0.0
        count[i] = 0
    else:
        count[i] = weight_of(v, t[i])
        row_loss[i] = -times(np.float64(count[i]), y[i * (y.size // t.size) + t[i]])


@launcher
@cells("dy")
def nll_vjp(row: int, column: int, dy: Any, drow_loss: Any, t: Any, v: Any, ignored: float) -> None:
    """dy = −drow_loss·v_t at the label."""
    here = t[row] == column and t[row] != ignored
    dy[row, column] = -drow_loss[row] * weight_of(v, column) if here else 0.0


@device
def cost(lack: Any, power: float) -> Any:
    """max(0, lack)^power, in float64."""
    z = type(lack)(0) if lack <= 0 else lack
    return np.float64(z * z if power == 2 else z)


@device
def slope_of(lack: Any, power: float, share: Any) -> Any:
    """The derivative of share·cost."""
    return (lack * (type(lack)(2) * share) if power == 2 else share) if lack > 0 else type(lack)(0)


@launcher
@rows("y")
def multi_margin_forward(
    team: Any,
    row: int,
    end: int,
    row_loss: Any,
    y: Any,
    t: Any,
    v: Any,
    power: float,
    margin: float,
    divisor: float,
) -> None:
    """row_loss = v_t·Σ_(j≠t) max(0, margin − y_t + y_j)^power / divisor."""
    label = t[row] if end >= 0 else 0
    own, wanted = y[row if end >= 0 else 0, label], y.dtype.type(margin)
    total = 0.0
    for column in range(team[2], end, team[3]):
        if column != label:
            total += cost((y[row, column] - own) + wanted, power)
    total = team_sum(team, total)
    if team[2] == 0 and end >= 0:
        row_loss[row] = times(weight_of(v, label), total) / divisor


@launcher
@rows("dy")
def multi_margin_vjp(
    team: Any,
    row: int,
    end: int,
    dy: Any,
    drow_loss: Any,
    y: Any,
    t: Any,
    v: Any,
    power: float,
    margin: float,
    divisor: float,
) -> None:
    """The slopes, and at the label the negative of their sum."""
    own = row if end >= 0 else 0
    label = t[own]
    least, wanted = y[own, label], y.dtype.type(margin)
    share = y.dtype.type(drow_loss[own] * weight_of(v, label) / divisor)
    total = 0.0
    for column in range(team[2], end, team[3]):
        if column != label:
            dy[row, column] = slope_of((y[row, column] - least) + wanted, power, share)
            total += np.float64(dy[row, column])
    total = team_sum(team, total)
    if team[2] == 0 and end >= 0:
        dy[row, label] = -total


@launcher
@rows("y")
def one_vs_rest_forward(
    team: Any,
    row: int,
    end: int,
    row_loss: Any,
    y: Any,
    t: Any,
    v: Any,
    power: float,
    margin: float,
    divisor: float,
) -> None:
    """row_loss = v_t·Σ_j max(0, margin − s_j·y_j)^power / divisor."""
    label, wanted, total = t[row] if end >= 0 else 0, y.dtype.type(margin), 0.0
    for column in range(team[2], end, team[3]):
        value = y[row, column]
        total += cost(wanted - value if column == label else wanted + value, power)
    total = team_sum(team, total)
    if team[2] == 0 and end >= 0:
        row_loss[row] = times(weight_of(v, label), total) / divisor


@launcher
@cells("dy")
def one_vs_rest_vjp(
    row: int,
    column: int,
    dy: Any,
    drow_loss: Any,
    y: Any,
    t: Any,
    v: Any,
    power: float,
    margin: float,
    divisor: float,
) -> None:
    """The slopes with the signs of the classes."""
    wanted, value = y.dtype.type(margin), y[row, column]
    share = y.dtype.type(drow_loss[row] * weight_of(v, t[row]) / divisor)
    if column == t[row]:
        dy[row, column] = -slope_of(wanted - value, power, share)
    else:
        dy[row, column] = slope_of(wanted + value, power, share)
