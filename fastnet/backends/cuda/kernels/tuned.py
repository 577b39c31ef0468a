"""Optimizers that tune their own rate."""

from __future__ import annotations

import math
from types import FunctionType
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import (
    SIMULATOR,
    THREADS,
    blocks_for,
    cuda,
    device,
    kernel,
    launch,
)
from fastnet.backends.cuda.elementary import is_tiny
from fastnet.backends.cuda.kernels.loops import each
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.teams import team_sum
from fastnet.optim import hypergradient
from fastnet.optim import yellowfin as yellowfin_of
from fastnet.optim.tuned import CLIPPED, KEPT, MEASURED, MOMENTUM, RATE


def _on_device(function: Any) -> Any:
    """The reference's function of numbers as a device function, which has no functions of NumPy."""
    if SIMULATOR:
        return function
    names = {**function.__globals__, "np": math}
    return device(FunctionType(function.__code__, names, function.__name__))


_yellowfin_tune = _on_device(yellowfin_of.yellowfin_tune_update)
_hypergradient_tune = _on_device(hypergradient.hypergradient_tune_update)


@kernel
def _tune_yellowfin(
    tuning: Any,
    recent: Any,
    smoothing: Any,
    window: Any,
    logs: Any,
    clipping: Any,
    closed: Any,
    gamma: Any,
    eps: Any,
) -> None:
    if cuda.grid(1) == 0:
        _yellowfin_tune(
            tuning,
            recent,
            smoothing[0],
            window[0],
            logs[0],
            clipping[0],
            closed[0],
            gamma[0],
            eps[0],
        )


@launcher
def yellowfin_tune_update(
    queue: Any,
    tuning: Any,
    recent: Any,
    smoothing: Any,
    window: Any,
    logs: Any,
    clipping: Any,
    closed: Any,
    gamma: Any,
    eps: Any,
) -> None:
    """The numbers of a step, by one thread."""
    numbers = smoothing, window, logs, clipping, closed, gamma, eps
    launch(_tune_yellowfin, 1, 1, queue, tuning, recent, *numbers)


@kernel
def _tune_hypergradient(tuning: Any, lr: Any, hypergrad_lr: Any, multiplicative: Any) -> None:
    if cuda.grid(1) == 0:
        _hypergradient_tune(tuning, lr[0], hypergrad_lr[0], multiplicative[0])


@launcher
def hypergradient_tune_update(
    queue: Any, tuning: Any, lr: Any, hypergrad_lr: Any, multiplicative: Any
) -> None:
    """The rate of a step, by one thread."""
    launch(_tune_hypergradient, 1, 1, queue, tuning, lr, hypergrad_lr, multiplicative)


@kernel
def _products(sums: Any, w: Any, g: Any, past: Any, weight_decay: Any) -> None:
    """The sums of blocks of elements, by a grid-stride loop."""
    shared = cuda.shared.array(THREADS, np.float64)
    lane = cuda.threadIdx.x
    team = shared, lane, lane, THREADS
    blocks, decay = sums.shape[0], w.dtype.type(weight_decay[0])
    size = (g.size + blocks - 1) // blocks
    for block in range(cuda.blockIdx.x, blocks, cuda.gridDim.x):
        squares, products, norms = 0.0, 0.0, 0.0
        for i in range(block * size + lane, min((block + 1) * size, g.size), THREADS):
            d, before = np.float64(decay * w[i] + g[i]), np.float64(past[i])
            squares += d * d
            products += d * before
            norms += before * before
        squares, products = team_sum(team, squares), team_sum(team, products)
        norms = team_sum(team, norms)
        if lane == 0:
            sums[block, 0] = squares
            sums[block, 1] = products
            sums[block, 2] = norms


@kernel
def _totals(tuning: Any, sums: Any) -> None:
    shared = cuda.shared.array(THREADS, np.float64)
    lane = cuda.threadIdx.x
    for k in range(3):
        total = 0.0
        for block in range(lane, sums.shape[0], THREADS):
            total += sums[block, k]
        total = team_sum((shared, lane, lane, THREADS), total)
        if lane == 0:
            tuning[k] += total


@launcher
def past_products_update(
    queue: Any, tuning: Any, sums: Any, w: Any, g: Any, past: Any, weight_decay: Any
) -> None:
    """tuning[:3] ← tuning[:3] + (Σd², Σd·past, Σpast²), with d = g + weight_decay·w."""
    blocks = blocks_for(sums.shape[0], 1)
    launch(_products, blocks, THREADS, queue, sums, w, g, past, weight_decay)
    launch(_totals, 1, THREADS, queue, tuning, sums)


@launcher
@each("w")
def tuned_step_update(i: int, w: Any, past: Any, tuning: Any, decay: float) -> None:
    """w ← (1 − rate·decay)·w − rate·past."""
    rate = tuning[RATE]
    w[i] = w.dtype.type(1.0 - rate * decay) * w[i] - w.dtype.type(rate) * past[i]


@device
def _moved(
    i: int,
    w: Any,
    v: Any,
    past: Any,
    d: Any,
    tuning: Any,
    rate: float,
    decay: float,
    smoothing: float,
) -> None:
    """Move element i, whose gradient is d."""
    mean = w.dtype.type(smoothing) * past[i]
    mean += w.dtype.type((1.0 - smoothing) * tuning[KEPT]) * d
    velocity = w.dtype.type(tuning[MOMENTUM]) * v[i] - w.dtype.type(rate * tuning[CLIPPED]) * d
    past[i] = w.dtype.type(0) if is_tiny(mean) else mean
    v[i] = w.dtype.type(0) if is_tiny(velocity) else velocity
    w[i] = w.dtype.type(1.0 - rate * decay) * w[i] + v[i]


@launcher
@each("w")
def yellowfin_update(
    i: int,
    w: Any,
    v: Any,
    past: Any,
    g: Any,
    tuning: Any,
    lr: float,
    weight_decay: float,
    decay: float,
    smoothing: float,
) -> None:
    """The step, and the mean of the gradients."""
    d = w.dtype.type(weight_decay) * w[i] + g[i]
    _moved(i, w, v, past, d, tuning, lr * tuning[RATE], decay, smoothing)


@launcher
@each("w")
def yellowfin_closed_update(
    i: int,
    w: Any,
    v: Any,
    past: Any,
    pushed: Any,
    g: Any,
    tuning: Any,
    lr: float,
    weight_decay: float,
    decay: float,
    smoothing: float,
) -> None:
    """The same step, and the part of it that is not momentum."""
    d, rate = w.dtype.type(weight_decay) * w[i] + g[i], lr * tuning[RATE]
    part = w.dtype.type(rate * decay) * w[i]
    pushed[i] = w.dtype.type(rate * tuning[CLIPPED]) * d + part
    _moved(i, w, v, past, d, tuning, rate, decay, smoothing)


@device
def _in_order(place: Any) -> Any:
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


@device
def _ranked(team: Any, x: Any, zeros: float, rank: float) -> Any:
    """The number with `rank` smaller ones among those of x that are neither 0 nor NaN.

    Bit by bit, it is the greatest number that at most `rank` are less than. Counts are exact in float64.
    """
    place = np.int64(-(2**63))
    for bit in range(63, -1, -1):
        higher = np.int64(0) if bit == 63 else place + (np.int64(1) << np.int64(bit))
        bound, less = _in_order(higher), 0.0
        for i in range(team[2], x.size, THREADS):
            less += 1.0 if x[i] < bound else 0.0
        less = team_sum(team, less) - (zeros if bound > 0.0 else 0.0)
        if less <= rank if bound == bound else higher < 0:
            place = higher
    return _in_order(place)


@kernel
def _median(tuning: Any, ratio: Any) -> None:
    shared = cuda.shared.array(THREADS, np.float64)
    lane = cuda.threadIdx.x
    team = shared, lane, lane, THREADS
    zeros, count = 0.0, 0.0
    for i in range(lane, ratio.size, THREADS):
        zeros += 1.0 if ratio[i] == 0 else 0.0
        count += 1.0 if ratio[i] != 0 and ratio[i] == ratio[i] else 0.0
    zeros, count = team_sum(team, zeros), team_sum(team, count)
    low = _ranked(team, ratio, zeros, math.floor(0.5 * (count - 1.0)))
    high = _ranked(team, ratio, zeros, math.floor(0.5 * count))
    if lane == 0:
        tuning[MEASURED] = 0.5 * (low + high) if count > 0.0 else tuning[MOMENTUM]


@launcher
def yellowfin_median_update(queue: Any, tuning: Any, ratio: Any) -> None:
    """tuning[MEASURED] ← the median of all elements of `ratio` but zeros, or the momentum, by one block."""
    launch(_median, 1, THREADS, queue, tuning, ratio)
