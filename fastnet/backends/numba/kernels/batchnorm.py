"""Batch normalisation: sums over the rows run row by row, so that columns fill the vector lanes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import LOCAL, local, window
from fastnet.op import Array


@kernel
def batchnorm_forward(
    y: Array,
    mean: Array,
    rstd: Array,
    running_mean: Array,
    running_var: Array,
    batches: Array,
    x: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    momentum: float,
) -> None:
    """Normalise by this minibatch's statistics; y serves as scratch, rstd holds the variance first."""
    rows, columns = x.shape
    one, zero = y.dtype.type(1), y.dtype.type(0)
    small, new = y.dtype.type(eps), y.dtype.type(momentum)
    share = y.dtype.type(1.0 / np.float64(rows))
    unbiased = y.dtype.type(np.float64(rows) / np.float64(rows - 1))
    mean[:] = zero
    rstd[:] = zero
    for i in range(rows):
        for j in range(columns):
            mean[j] += x[i, j]
    for j in range(columns):
        mean[j] *= share
    for i in range(rows):
        for j in range(columns):
            centred = x[i, j] - mean[j]
            y[i, j] = centred
            rstd[j] += centred * centred
    for j in range(columns):
        variance = rstd[j] * share
        running_mean[j] += new * (mean[j] - running_mean[j])
        running_var[j] += new * (variance * unbiased - running_var[j])
        rstd[j] = one / np.sqrt(variance + small)
    if gamma.size > 0:
        for i in range(rows):
            for j in range(columns):
                y[i, j] = y[i, j] * rstd[j] * gamma[j] + beta[j]
    else:
        for i in range(rows):
            for j in range(columns):
                y[i, j] *= rstd[j]
    batches[0] += 1


@njit(error_model="numpy")
def _sum_rows(
    sums: Any, products: Any, dy: Any, x: Any, mean: Any, rstd: Any, begin: int, width: int
) -> None:
    """Sum dy and dy·x̂ over the rows, for `width` columns; mean and rstd are these columns'."""
    rows, columns = x.shape
    for j in range(width):
        sums[j] = dy.dtype.type(0)
        products[j] = dy.dtype.type(0)
    for i in range(rows):
        d, a = (
            window(dy, i * columns + begin, width),
            window(x, i * columns + begin, width),
        )
        for j in range(width):
            sums[j] += d[j]
            products[j] += d[j] * ((a[j] - mean[j]) * rstd[j])


@njit(error_model="numpy")
def _put(into: Any, values: Any, begin: int, width: int, accumulate: int) -> None:
    """Write or add the gradients of `width` parameters, unless nobody asked for them."""
    if into.size > 0:
        a = window(into, begin, width)
        for j in range(width):
            a[j] = values[j] + a[j] if accumulate else values[j]


@kernel
def batchnorm_vjp(
    dx: Array,
    dgamma: Array,
    dbeta: Array,
    dy: Array,
    mean: Array,
    rstd: Array,
    x: Array,
    gamma: Array,
    accumulate: int,
) -> None:
    """dx = gamma·rstd·(dy − mean(dy) − x̂·mean(dy·x̂)), by blocks of LOCAL columns."""
    rows, columns = x.shape
    share = dy.dtype.type(1.0 / np.float64(rows))
    sums, products, scale = local(dy), local(dy), local(dy)
    for begin in range(0, columns, LOCAL):
        width = min(LOCAL, columns - begin)
        m, r = window(mean, begin, width), window(rstd, begin, width)
        _sum_rows(sums, products, dy, x, m, r, begin, width)
        _put(dgamma, products, begin, width, accumulate)
        _put(dbeta, sums, begin, width, accumulate)
        if dx.size > 0:
            for j in range(width):
                scale[j] = gamma[begin + j] * r[j] if gamma.size > 0 else r[j]
                sums[j] *= share
                products[j] *= share
            for i in range(rows):
                place = i * columns + begin
                to, d, a = (
                    window(dx, place, width),
                    window(dy, place, width),
                    window(x, place, width),
                )
                for j in range(width):
                    xhat = (a[j] - m[j]) * r[j]
                    to[j] = scale[j] * (d[j] - sums[j] - xhat * products[j])


@kernel
def batchnorm_inference_forward(
    y: Array,
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    eps: float,
) -> None:
    """y = gamma·(x − running_mean)/√(running_var + eps) + beta, by blocks of LOCAL columns."""
    rows, columns = x.shape
    one, small = y.dtype.type(1), y.dtype.type(eps)
    scale, shift = local(y), local(y)
    for begin in range(0, columns, LOCAL):
        width = min(LOCAL, columns - begin)
        m = window(running_mean, begin, width)
        for j in range(width):
            rstd = one / np.sqrt(running_var[begin + j] + small)
            scale[j] = gamma[begin + j] * rstd if gamma.size > 0 else rstd
            shift[j] = beta[begin + j] if gamma.size > 0 else y.dtype.type(0)
        for i in range(rows):
            place = i * columns + begin
            to, a = window(y, place, width), window(x, place, width)
            for j in range(width):
                to[j] = (a[j] - m[j]) * scale[j] + shift[j]


@kernel
def batchnorm_inference_vjp(
    dx: Array,
    dgamma: Array,
    dbeta: Array,
    dy: Array,
    x: Array,
    gamma: Array,
    running_mean: Array,
    running_var: Array,
    eps: float,
    accumulate: int,
) -> None:
    """The statistics are constants: dx = dy·gamma·rstd."""
    rows, columns = x.shape
    one, small = dy.dtype.type(1), dy.dtype.type(eps)
    sums, products, scale = local(dy), local(dy), local(dy)
    for begin in range(0, columns, LOCAL):
        width = min(LOCAL, columns - begin)
        m = window(running_mean, begin, width)
        for j in range(width):
            scale[j] = one / np.sqrt(running_var[begin + j] + small)
        _sum_rows(sums, products, dy, x, m, scale, begin, width)
        _put(dgamma, products, begin, width, accumulate)
        _put(dbeta, sums, begin, width, accumulate)
        if dx.size > 0:
            for j in range(width):
                scale[j] = gamma[begin + j] * scale[j] if gamma.size > 0 else scale[j]
            for i in range(rows):
                to, d = (
                    window(dx, i * columns + begin, width),
                    window(dy, i * columns + begin, width),
                )
                for j in range(width):
                    to[j] = d[j] * scale[j]
