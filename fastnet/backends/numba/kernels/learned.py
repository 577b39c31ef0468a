"""The learned optimizer: for each parameter a step of the same LSTM."""

from __future__ import annotations

import numpy as np

from fastnet.backends.numba.elementary import log, sigmoid, tanh
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import LANES, flat, local, local_rows, window
from fastnet.op import Array
from fastnet.optim.learned import FEATURES, GATES, LARGE, SMALL, P


@kernel
def learned_update(
    w: Array,
    h: Array,
    c: Array,
    g: Array,
    weights: Array,
    lr: float,
    weight_decay: float,
    shrink: float,
) -> None:
    """LANES parameters at a time; `given` has the inputs of a layer and its h before the step."""
    real = w.dtype.type
    layers, units, count = h.shape
    rate, decay, kept = real(lr), real(weight_decay), real(shrink)
    small, large, p = real(SMALL), real(LARGE), real(P)
    given, sums = local_rows(w), local(w)
    hidden, cells = flat(h), flat(c)
    for begin in range(0, count, LANES):
        width, table, inputs = min(LANES, count - begin), 0, FEATURES
        for lane in range(width):
            d = g[begin + lane] + decay * w[begin + lane]
            size = abs(d)
            if size >= small:
                given[lane], given[LANES + lane] = log(size) / p, real(np.sign(d))
            else:
                given[lane], given[LANES + lane] = real(-1), large * d
        for layer in range(layers):
            for j in range(units):
                old = window(hidden, (layer * units + j) * count + begin, width)
                to = window(given, (inputs + j) * LANES, width)
                for lane in range(width):
                    to[lane] = old[lane]
            rows = inputs + units
            for j in range(units):
                for lane in range(LANES):
                    sums[lane] = weights[table]
                    sums[LANES + lane] = weights[table + 1]
                    sums[2 * LANES + lane] = weights[table + 2]
                    sums[3 * LANES + lane] = weights[table + 3]
                for row in range(rows):
                    table += GATES
                    a, b = weights[table], weights[table + 1]
                    e, f = weights[table + 2], weights[table + 3]
                    x = window(given, row * LANES, LANES)
                    for lane in range(LANES):
                        sums[lane] += a * x[lane]
                        sums[LANES + lane] += b * x[lane]
                        sums[2 * LANES + lane] += e * x[lane]
                        sums[3 * LANES + lane] += f * x[lane]
                table += GATES
                place = (layer * units + j) * count + begin
                cell, new = window(cells, place, width), window(hidden, place, width)
                for lane in range(width):
                    enters = sigmoid(sums[lane]) * tanh(sums[2 * LANES + lane])
                    cell[lane] = sigmoid(sums[LANES + lane]) * cell[lane] + enters
                    new[lane] = sigmoid(sums[3 * LANES + lane]) * tanh(cell[lane])
            for j in range(units):
                made = window(hidden, (layer * units + j) * count + begin, width)
                to = window(given, j * LANES, width)
                for lane in range(width):
                    to[lane] = made[lane]
            inputs = units
        for lane in range(width):
            total = weights[table + units]
            for j in range(units):
                total += weights[table + j] * given[j * LANES + lane]
            w[begin + lane] = kept * w[begin + lane] + rate * total
