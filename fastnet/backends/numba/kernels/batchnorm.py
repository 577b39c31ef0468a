"""Batch normalisation by blocks of LOCAL columns; sums run row by row, so that LLVM vectorises columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.kernels.sums import add_block, add_lost, clear, put, rows_of_block
from fastnet.backends.numba.lowlevel import LOCAL, local, window
from fastnet.op import Array


@kernel
def batchnorm_forward(
    y: Array,
    shift: Array,
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
    """Normalise by the minibatch's statistics, computed from x minus its first row."""
    rows, columns = x.shape
    one, zero = y.dtype.type(1), y.dtype.type(0)
    small, count = y.dtype.type(eps), y.dtype.type(rows)
    rate = momentum
    if momentum < 0 and batches.size > 0:
        rate = 1.0 / np.float64(batches[0] + 1)
    new = y.dtype.type(rate)
    unbiased = y.dtype.type(np.float64(rows) / np.float64(rows - 1))
    centre, variance, scale, offset = local(y), local(y), local(y), local(y)
    for begin in range(0, columns, LOCAL):
        width = min(LOCAL, columns - begin)
        first = window(x, begin, width)
        _moments(centre, variance, x, begin, width)
        for j in range(width):
            at = begin + j
            variance[j] /= count
            if running_mean.size > 0:
                running_mean[at] += new * (first[j] + centre[j] - running_mean[at])
                running_var[at] += new * (variance[j] * unbiased - running_var[at])
            shift[at] = centre[j]
            rstd[at] = one / np.sqrt(variance[j] + small)
            scale[j] = rstd[at] * gamma[at] if gamma.size > 0 else rstd[at]
            offset[j] = beta[at] if gamma.size > 0 else zero
        for i in range(rows):
            place = i * columns + begin
            to, a = window(y, place, width), window(x, place, width)
            for j in range(width):
                to[j] = (a[j] - first[j] - centre[j]) * scale[j] + offset[j]
    if batches.size > 0:
        batches[0] += 1


@njit(error_model="numpy")
def _moments(centre: Any, squares: Any, x: Any, begin: int, width: int) -> None:
    """The mean of x minus its first row, and the sum of squares around it, for `width` columns."""
    rows, columns = x.shape
    first, step, count = window(x, begin, width), rows_of_block(rows), x.dtype.type(rows)
    lost, block = local(x), local(x)
    clear(width, centre, squares, lost, block)
    for top in range(0, rows, step):
        for i in range(top, min(top + step, rows)):
            a = window(x, i * columns + begin, width)
            for j in range(width):
                block[j] += a[j] - first[j]
        add_block(centre, lost, block, width)
    add_lost(centre, lost, width)
    clear(width, lost)
    for j in range(width):
        centre[j] /= count
    for top in range(0, rows, step):
        for i in range(top, min(top + step, rows)):
            a = window(x, i * columns + begin, width)
            for j in range(width):
                centred = a[j] - first[j] - centre[j]
                block[j] += centred * centred
        add_block(squares, lost, block, width)
    add_lost(squares, lost, width)


@njit(error_model="numpy")
def _sum_rows(
    sums: Any,
    products: Any,
    dy: Any,
    x: Any,
    first: Any,
    centre: Any,
    rstd: Any,
    begin: int,
    width: int,
) -> None:
    """Sum dy and dy·x̂ over the rows for `width` columns; first, centre and rstd belong to these."""
    rows, columns = x.shape
    step = rows_of_block(rows)
    lost_sums, lost_products = local(dy), local(dy)
    block_sums, block_products = local(dy), local(dy)
    clear(width, sums, products, lost_sums, lost_products, block_sums, block_products)
    for top in range(0, rows, step):
        for i in range(top, min(top + step, rows)):
            place = i * columns + begin
            d, a = window(dy, place, width), window(x, place, width)
            for j in range(width):
                block_sums[j] += d[j]
                block_products[j] += d[j] * ((a[j] - first[j] - centre[j]) * rstd[j])
        add_block(sums, lost_sums, block_sums, width)
        add_block(products, lost_products, block_products, width)
    add_lost(sums, lost_sums, width)
    add_lost(products, lost_products, width)


@kernel
def batchnorm_vjp(
    dx: Array,
    dgamma: Array,
    dbeta: Array,
    dy: Array,
    shift: Array,
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
        f, m, r = window(x, begin, width), window(shift, begin, width), window(rstd, begin, width)
        _sum_rows(sums, products, dy, x, f, m, r, begin, width)
        put(dgamma, products, begin, width, accumulate)
        put(dbeta, sums, begin, width, accumulate)
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
                    xhat = (a[j] - f[j] - m[j]) * r[j]
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
    sums, products, scale, zero = local(dy), local(dy), local(dy), local(dy)
    clear(LOCAL, zero)
    for begin in range(0, columns, LOCAL):
        width = min(LOCAL, columns - begin)
        m = window(running_mean, begin, width)
        for j in range(width):
            scale[j] = one / np.sqrt(running_var[begin + j] + small)
        _sum_rows(sums, products, dy, x, m, zero, scale, begin, width)
        put(dgamma, products, begin, width, accumulate)
        put(dbeta, sums, begin, width, accumulate)
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
