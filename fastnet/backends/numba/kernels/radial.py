"""Gaussian radial basis functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.elementary import exp
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.kernels.sums import add_block, add_lost, clear, put, rows_of_block
from fastnet.backends.numba.lowlevel import LOCAL, local, window
from fastnet.op import Array


@kernel
def gaussian_basis_forward(y: Array, d: Array, x: Array, mu: Array, sigma: Array) -> None:
    """y = e^(−d/(2σ²)) with d = Σ_i (x_i − μ_ij)², by blocks of LOCAL centres."""
    inputs, count = mu.shape
    half, one = y.dtype.type(-0.5), y.dtype.type(1)
    for b in range(y.shape[0]):
        for begin in range(0, count, LOCAL):
            width = min(LOCAL, count - begin)
            distance, s = window(d, b * count + begin, width), window(sigma, begin, width)
            for j in range(width):
                distance[j] = y.dtype.type(0)
            for i in range(inputs):
                centre, value = window(mu, i * count + begin, width), x[b, i]
                for j in range(width):
                    difference = value - centre[j]
                    distance[j] += difference * difference
            to = window(y, b * y.shape[1] + begin, width)
            for j in range(width):
                to[j] = exp(distance[j] * (half / (s[j] * s[j])))
        for j in range(count, y.shape[1]):
            y[b, j] = one


@kernel
def gaussian_slope_forward(s: Array, x: Array, mu: Array, u: Array, nu: Array) -> None:
    """Σ_i (x_i − μ_ij)·(u_i − ν_ij), by blocks of LOCAL centres; a missing u or ν is 0."""
    inputs, count = mu.shape
    none = s.dtype.type(0)
    for b in range(s.shape[0]):
        for begin in range(0, count, LOCAL):
            width = min(LOCAL, count - begin)
            to = window(s, b * count + begin, width)
            for j in range(width):
                to[j] = none
            for i in range(inputs):
                centre, value = window(mu, i * count + begin, width), x[b, i]
                along = u[b, i] if u.size > 0 else none
                if nu.size > 0:
                    moved = window(nu, i * count + begin, width)
                    for j in range(width):
                        to[j] += (value - centre[j]) * (along - moved[j])
                else:
                    for j in range(width):
                        to[j] += (value - centre[j]) * along


@kernel
def gaussian_basis_vjp(
    dx: Array,
    dmu: Array,
    dsigma: Array,
    dy: Array,
    y: Array,
    d: Array,
    x: Array,
    mu: Array,
    sigma: Array,
    accumulate: int,
) -> None:
    """dμ = Σ_rows g·(x − μ), dx = −Σ_j g·(x − μ), dσ = Σ_rows g·d/σ, with g = dy·y/σ²."""
    inputs, count = mu.shape
    if dx.size > 0:
        for b in range(y.shape[0]):
            for i in range(inputs):
                total = np.float64(0)
                for j in range(count):
                    g = dy[b, j] * y[b, j] / (sigma[j] * sigma[j])
                    total += np.float64(g * (x[b, i] - mu[i, j]))
                dx[b, i] = dy.dtype.type(-total)
    if dmu.size > 0:
        _of_centers(dmu, dy, y, x, mu, sigma, accumulate)
    if dsigma.size > 0:
        _of_widths(dsigma, dy, y, d, sigma, accumulate)


@njit(error_model="numpy")
def _of_centers(dmu: Any, dy: Any, y: Any, x: Any, mu: Any, sigma: Any, accumulate: int) -> None:
    inputs, count = mu.shape
    rows, columns = y.shape
    step = rows_of_block(rows)
    sums, lost, block = local(dy), local(dy), local(dy)
    for i in range(inputs):
        for begin in range(0, count, LOCAL):
            width = min(LOCAL, count - begin)
            clear(width, sums, lost, block)
            centre, s = window(mu, i * count + begin, width), window(sigma, begin, width)
            for top in range(0, rows, step):
                for b in range(top, min(top + step, rows)):
                    slope = window(dy, b * columns + begin, width)
                    bump, value = window(y, b * columns + begin, width), x[b, i]
                    for j in range(width):
                        block[j] += slope[j] * bump[j] * (value - centre[j])
                add_block(sums, lost, block, width)
            add_lost(sums, lost, width)
            for j in range(width):
                sums[j] /= s[j] * s[j]
            put(dmu, sums, i * count + begin, width, accumulate)


@njit(error_model="numpy")
def _of_widths(dsigma: Any, dy: Any, y: Any, d: Any, sigma: Any, accumulate: int) -> None:
    rows, columns = y.shape
    count, step = sigma.size, rows_of_block(rows)
    sums, lost, block = local(dy), local(dy), local(dy)
    for begin in range(0, count, LOCAL):
        width = min(LOCAL, count - begin)
        clear(width, sums, lost, block)
        s = window(sigma, begin, width)
        for top in range(0, rows, step):
            for b in range(top, min(top + step, rows)):
                slope = window(dy, b * columns + begin, width)
                bump = window(y, b * columns + begin, width)
                distance = window(d, b * count + begin, width)
                for j in range(width):
                    block[j] += slope[j] * bump[j] * distance[j]
            add_block(sums, lost, block, width)
        add_lost(sums, lost, width)
        for j in range(width):
            sums[j] /= s[j] * s[j] * s[j]
        put(dsigma, sums, begin, width, accumulate)
