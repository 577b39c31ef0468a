"""Hinge losses of labels."""

from __future__ import annotations

import numpy as np
from numba import njit

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.op import Array


@njit(error_model="numpy", forceinline=True)
def _cost(lack: float, power: float) -> float:
    z = type(lack)(0) if lack <= 0 else lack
    return np.float64(z * z if power == 2 else z)


@njit(error_model="numpy", forceinline=True)
def _slope(lack: float, power: float, share: float) -> float:
    one = type(lack)(1)
    return (lack * (2 * share) if power == 2 else share) if lack > 0 else 0 * one


@njit(error_model="numpy", forceinline=True)
def _share(v: Array, label: int, divisor: float) -> float:
    return (np.float64(v[label]) if v.size > 0 else 1.0) / divisor


@njit(error_model="numpy", forceinline=True)
def _weighed(total: float, share: float) -> float:
    """0 for a class with weight 0, even if the sum is infinite, but NaN for NaN."""
    return total * share if share != 0 or np.isnan(total) else 0.0


@kernel
def multi_margin_forward(
    row_loss: Array, y: Array, t: Array, v: Array, power: float, margin: float, divisor: float
) -> None:
    """row_loss = v_t·Σ_(j≠t) max(0, margin − y_t + y_j)^power / divisor."""
    for b in range(t.size):
        own, wanted, total = y[b, t[b]], y.dtype.type(margin), 0.0
        for j in range(y.shape[1]):
            if j != t[b]:
                total += _cost((y[b, j] - own) + wanted, power)
        row_loss[b] = _weighed(total, _share(v, t[b], divisor))


@kernel
def multi_margin_vjp(
    dy: Array,
    drow_loss: Array,
    y: Array,
    t: Array,
    v: Array,
    power: float,
    margin: float,
    divisor: float,
) -> None:
    """The slopes, and at the label the negative of their sum."""
    for b in range(t.size):
        own, wanted, total = y[b, t[b]], y.dtype.type(margin), y.dtype.type(0)
        share = y.dtype.type(drow_loss[b] * _share(v, t[b], divisor))
        for j in range(y.shape[1]):
            if j != t[b]:
                dy[b, j] = _slope((y[b, j] - own) + wanted, power, share)
                total += dy[b, j]
        dy[b, t[b]] = -total


@kernel
def one_vs_rest_forward(
    row_loss: Array, y: Array, t: Array, v: Array, power: float, margin: float, divisor: float
) -> None:
    """row_loss = v_t·Σ_j max(0, margin − s_j·y_j)^power / divisor."""
    wanted = y.dtype.type(margin)
    for b in range(t.size):
        total = 0.0
        for j in range(y.shape[1]):
            total += _cost(wanted - y[b, j] if j == t[b] else wanted + y[b, j], power)
        row_loss[b] = _weighed(total, _share(v, t[b], divisor))


@kernel
def one_vs_rest_vjp(
    dy: Array,
    drow_loss: Array,
    y: Array,
    t: Array,
    v: Array,
    power: float,
    margin: float,
    divisor: float,
) -> None:
    """The slopes with the signs of the classes."""
    wanted = y.dtype.type(margin)
    for b in range(t.size):
        share = y.dtype.type(drow_loss[b] * _share(v, t[b], divisor))
        for j in range(y.shape[1]):
            dy[b, j] = _slope(wanted + y[b, j], power, share)
        dy[b, t[b]] = -_slope(wanted - y[b, t[b]], power, share)
