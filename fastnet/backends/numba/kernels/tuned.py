"""Optimizers that tune their own rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.elementary import is_tiny
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.op import Array
from fastnet.optim.hypergradient import hypergradient_tune_update
from fastnet.optim.tuned import CLIPPED, KEPT, MEASURED, MOMENTUM, RATE
from fastnet.optim.yellowfin import yellowfin_tune_update

kernel(hypergradient_tune_update)
kernel(yellowfin_tune_update)


@kernel
def past_products_update(
    tuning: Array, sums: Array, w: Array, g: Array, past: Array, weight_decay: float
) -> None:
    """tuning[:3] ← tuning[:3] + (Σd², Σd·past, Σpast²), with d = g + weight_decay·w."""
    blocks, decay = len(sums), w.dtype.type(weight_decay)
    size = (g.size + blocks - 1) // blocks
    for b in range(blocks):
        squares, products, norms = 0.0, 0.0, 0.0
        for i in range(min(b * size, g.size), min((b + 1) * size, g.size)):
            d, before = np.float64(decay * w[i] + g[i]), np.float64(past[i])
            squares += d * d
            products += d * before
            norms += before * before
        sums[b, 0], sums[b, 1], sums[b, 2] = squares, products, norms
        tuning[0] += squares
        tuning[1] += products
        tuning[2] += norms


@kernel
def tuned_step_update(w: Array, past: Array, tuning: Array, decay: float) -> None:
    """w ← (1 − rate·decay)·w − rate·past."""
    rate, shrink = w.dtype.type(tuning[RATE]), w.dtype.type(1.0 - tuning[RATE] * decay)
    for i in range(w.size):
        w[i] = shrink * w[i] - rate * past[i]


@kernel
def yellowfin_update(
    w: Array,
    v: Array,
    past: Array,
    g: Array,
    tuning: Array,
    lr: float,
    weight_decay: float,
    decay: float,
    smoothing: float,
) -> None:
    """The step, and the mean of the gradients."""
    real, rate = w.dtype.type, lr * tuning[RATE]
    zero, penalty, shrink = real(0), real(weight_decay), real(1.0 - rate * decay)
    kept, fresh = real(smoothing), real((1.0 - smoothing) * tuning[KEPT])
    momentum, push = real(tuning[MOMENTUM]), real(rate * tuning[CLIPPED])
    for i in range(w.size):
        d = penalty * w[i] + g[i]
        mean, velocity = kept * past[i] + fresh * d, momentum * v[i] - push * d
        past[i] = zero if is_tiny(mean) else mean
        v[i] = zero if is_tiny(velocity) else velocity
        w[i] = shrink * w[i] + v[i]


@kernel
def yellowfin_closed_update(
    w: Array,
    v: Array,
    past: Array,
    pushed: Array,
    g: Array,
    tuning: Array,
    lr: float,
    weight_decay: float,
    decay: float,
    smoothing: float,
) -> None:
    """The same step, and the part of it that is not momentum."""
    real, rate = w.dtype.type, lr * tuning[RATE]
    zero, penalty, shrink = real(0), real(weight_decay), real(1.0 - rate * decay)
    kept, fresh = real(smoothing), real((1.0 - smoothing) * tuning[KEPT])
    momentum, push = real(tuning[MOMENTUM]), real(rate * tuning[CLIPPED])
    shrinkage = real(rate * decay)
    for i in range(w.size):
        d = penalty * w[i] + g[i]
        mean, velocity = kept * past[i] + fresh * d, momentum * v[i] - push * d
        past[i] = zero if is_tiny(mean) else mean
        v[i] = zero if is_tiny(velocity) else velocity
        pushed[i] = push * d + shrinkage * w[i]
        w[i] = shrink * w[i] + v[i]


@njit(error_model="numpy")
def _in_order(place: Any) -> float:
    """The float64 at a place in the order of all: the bits of it, or of its negative where they are < 0."""
    bits = place if place >= 0 else ~place
    exponent, fraction = bits >> 52, bits & (2**52 - 1)
    if exponent == 2047:
        value = math.inf if fraction == 0 else math.nan
    elif exponent == 0:
        value = math.ldexp(float(fraction), -1074)
    else:
        value = math.ldexp(float(fraction + 2**52), int(exponent - 1075))
    return value if place >= 0 else -value


@njit(error_model="numpy")
def _ranked(x: Array, zeros: int, rank: int) -> float:
    """The number with `rank` smaller ones among those of x that are neither 0 nor NaN.

    Bit by bit, it is the greatest number that at most `rank` are less than.
    """
    place = np.int64(-(2**63))
    for bit in range(63, -1, -1):
        higher = np.int64(0) if bit == 63 else place + (np.int64(1) << np.int64(bit))
        bound = _in_order(higher)
        less = -zeros if bound > 0.0 else 0
        for i in range(x.size):
            less += 1 if x[i] < bound else 0
        if less <= rank if bound == bound else higher < 0:
            place = higher
    return _in_order(place)


@kernel
def yellowfin_median_update(tuning: Array, ratio: Array) -> None:
    """tuning[MEASURED] ← the median of all elements of `ratio` but zeros, or the momentum."""
    zeros, count = 0, 0
    for i in range(ratio.size):
        zeros += 1 if ratio[i] == 0 else 0
        count += 1 if ratio[i] != 0 and ratio[i] == ratio[i] else 0
    if count == 0:
        tuning[MEASURED] = tuning[MOMENTUM]
    else:
        low, high = _ranked(ratio, zeros, (count - 1) // 2), _ranked(ratio, zeros, count // 2)
        tuning[MEASURED] = 0.5 * (low + high)
