"""Normalisation of rows; sums across a row run in float64, gradients by blocks of LOCAL columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.kernels.sums import add_block, add_lost, clear, put, rows_of_block
from fastnet.backends.numba.lowlevel import LOCAL, local, window
from fastnet.op import Array


@kernel
def layernorm_forward(
    y: Array,
    centre: Array,
    rest: Array,
    rstd: Array,
    x: Array,
    gamma: Array,
    beta: Array,
    eps: float,
) -> None:
    """Normalise each row by its mean, centre + rest, and its variance."""
    rows, columns = x.shape
    one, small = y.dtype.type(1), y.dtype.type(eps)
    for i in range(rows):
        to, a = window(y, i * columns, columns), window(x, i * columns, columns)
        first, total, squares = a[0], 0.0, 0.0
        for j in range(columns):
            total += np.float64(a[j] - first)
        mean = first + y.dtype.type(total / columns)
        total = 0.0
        for j in range(columns):
            total += np.float64(a[j] - mean)
        left = y.dtype.type(total / columns)
        for j in range(columns):
            centred = a[j] - mean - left
            squares += np.float64(centred * centred)
        scale = one / np.sqrt(y.dtype.type(squares / columns) + small)
        centre[i], rest[i], rstd[i] = mean, left, scale
        for j in range(columns):
            to[j] = (a[j] - mean - left) * scale
        if gamma.size > 0:
            for j in range(columns):
                to[j] *= gamma[j]
        if beta.size > 0:
            for j in range(columns):
                to[j] += beta[j]


@kernel
def rmsnorm_forward(y: Array, rstd: Array, x: Array, gamma: Array, eps: float) -> None:
    """Divide each row by its root mean square."""
    rows, columns = x.shape
    one = y.dtype.type(1)
    small = y.dtype.type(eps if eps > 0 else np.finfo(y.dtype).eps)
    for i in range(rows):
        to, a, squares = window(y, i * columns, columns), window(x, i * columns, columns), 0.0
        for j in range(columns):
            squares += np.float64(a[j] * a[j])
        scale = one / np.sqrt(y.dtype.type(squares / columns) + small)
        rstd[i] = scale
        for j in range(columns):
            to[j] = a[j] * scale
        if gamma.size > 0:
            for j in range(columns):
                to[j] *= gamma[j]


@njit(error_model="numpy")
def _of_x(dx: Any, dy: Any, centre: Any, rest: Any, rstd: Any, x: Any, gamma: Any) -> None:
    """dx of layernorm, or where `rest` is absent of rmsnorm."""
    rows, columns = x.shape
    centres = rest.size > 0
    mean = left = x.dtype.type(0)
    for i in range(rows):
        to, d = window(dx, i * columns, columns), window(dy, i * columns, columns)
        a, scale = window(x, i * columns, columns), rstd[i]
        if centres:
            mean, left = centre[i], rest[i]
        total, product = 0.0, 0.0
        for j in range(columns):
            to[j] = d[j] * gamma[j] if gamma.size > 0 else d[j]
            if centres:
                total += np.float64(to[j])
            product += np.float64(to[j] * ((a[j] - mean - left) * scale))
        of_mean, along = dy.dtype.type(total / columns), dy.dtype.type(product / columns)
        for j in range(columns):
            to[j] = scale * (to[j] - of_mean - (a[j] - mean - left) * scale * along)


@njit(error_model="numpy")
def _of_parameters(
    dgamma: Any, dbeta: Any, dy: Any, centre: Any, rest: Any, rstd: Any, x: Any, accumulate: int
) -> None:
    """Σ dy·x̂ and Σ dy over the rows; where `rest` is absent the mean counts as 0."""
    rows, columns = x.shape
    step, centres = rows_of_block(rows), rest.size > 0
    mean = left = x.dtype.type(0)
    sums, lost_sums, block_sums = local(dy), local(dy), local(dy)
    products, lost_products, block_products = local(dy), local(dy), local(dy)
    for begin in range(0, columns, LOCAL):
        width = min(LOCAL, columns - begin)
        clear(width, sums, products, lost_sums, lost_products, block_sums, block_products)
        for top in range(0, rows, step):
            for i in range(top, min(top + step, rows)):
                place, scale = i * columns + begin, rstd[i]
                d, a = window(dy, place, width), window(x, place, width)
                if centres:
                    mean, left = centre[i], rest[i]
                for j in range(width):
                    block_sums[j] += d[j]
                    block_products[j] += d[j] * ((a[j] - mean - left) * scale)
            add_block(sums, lost_sums, block_sums, width)
            add_block(products, lost_products, block_products, width)
        add_lost(sums, lost_sums, width)
        add_lost(products, lost_products, width)
        put(dgamma, products, begin, width, accumulate)
        put(dbeta, sums, begin, width, accumulate)


@kernel
def layernorm_vjp(
    dx: Array,
    dgamma: Array,
    dbeta: Array,
    dy: Array,
    centre: Array,
    rest: Array,
    rstd: Array,
    x: Array,
    gamma: Array,
    accumulate: int,
) -> None:
    """dx = rstd·(g − mean(g) − x̂·mean(g·x̂)) with g = dy·gamma."""
    if dx.size > 0:
        _of_x(dx, dy, centre, rest, rstd, x, gamma)
    if dgamma.size > 0 or dbeta.size > 0:
        _of_parameters(dgamma, dbeta, dy, centre, rest, rstd, x, accumulate)


@kernel
def rmsnorm_vjp(
    dx: Array, dgamma: Array, dy: Array, rstd: Array, x: Array, gamma: Array, accumulate: int
) -> None:
    """dx = rstd·(g − x̂·mean(g·x̂)) with g = dy·gamma."""
    none = rstd[:0]
    if dx.size > 0:
        _of_x(dx, dy, none, none, rstd, x, gamma)
    if dgamma.size > 0:
        _of_parameters(dgamma, none, dy, none, none, rstd, x, accumulate)
