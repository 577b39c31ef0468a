"""The learned optimizer: for each parameter a step of the same LSTM."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import THREADS, blocks_for, cuda, flat, kernel, launch
from fastnet.backends.cuda.elementary import sigmoid
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.optim.learned import FEATURES, GATES, LARGE, MOST_UNITS, SMALL, P


@kernel
def _update(
    layers: int,
    units: int,
    w: Any,
    h: Any,
    c: Any,
    g: Any,
    weights: Any,
    lr: Any,
    weight_decay: Any,
    shrink: Any,
) -> None:
    """A thread for each parameter; neighbours read neighbouring numbers."""
    real, count = w.dtype.type, w.size
    old = cuda.local.array(MOST_UNITS, np.float64)  # a layer's h before the step
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        d = g[i] + real(weight_decay[0]) * w[i]
        size = abs(d)
        large = size >= real(SMALL)
        first = real(math.log(size)) / real(P) if large else real(-1)
        second = (real(1) if d > 0 else real(-1)) if large else real(LARGE) * d
        table, inputs = 0, FEATURES
        for layer in range(layers):
            begin = layer * units * count + i
            for j in range(units):
                old[j] = np.float64(h[begin + j * count])
            for j in range(units):
                sum_i, sum_f = weights[table], weights[table + 1]
                sum_c, sum_o = weights[table + 2], weights[table + 3]
                for row in range(inputs + units):
                    table += GATES
                    if row >= inputs:
                        x = real(old[row - inputs])
                    elif layer > 0:
                        x = h[begin + (row - units) * count]
                    else:
                        x = first if row == 0 else second
                    sum_i += weights[table] * x
                    sum_f += weights[table + 1] * x
                    sum_c += weights[table + 2] * x
                    sum_o += weights[table + 3] * x
                table += GATES
                cell = sigmoid(sum_f) * c[begin + j * count] + sigmoid(sum_i) * real(
                    math.tanh(sum_c)
                )
                c[begin + j * count] = cell
                h[begin + j * count] = sigmoid(sum_o) * real(math.tanh(cell))
            inputs = units
        total, begin = weights[table + units], (layers - 1) * units * count + i
        for j in range(units):
            total += weights[table + j] * h[begin + j * count]
        w[i] = real(shrink[0]) * w[i] + real(lr[0]) * total


@launcher
def learned_update(
    queue: Any,
    w: Any,
    h: Any,
    c: Any,
    g: Any,
    weights: Any,
    lr: Any,
    weight_decay: Any,
    shrink: Any,
) -> None:
    """The features of the gradient, the LSTM's step and the parameter's."""
    if w.size > 0:
        layers, units, count = h.shape
        numbers = lr, weight_decay, shrink
        rest = layers, units, w, flat(h), flat(c), g, weights, *numbers
        launch(_update, blocks_for(count), THREADS, queue, *rest)
