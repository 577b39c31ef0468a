"""Batch normalisation: sums over the rows run row by row, so that columns fill the vector lanes."""

from __future__ import annotations

import numpy as np

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import LOCAL, local
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
    zero, share = dy.dtype.type(0), dy.dtype.type(1.0 / np.float64(rows))
    sums, products, scale = local(dy), local(dy), local(dy)
    for begin in range(0, columns, LOCAL):
        width = min(LOCAL, columns - begin)
        for j in range(width):
            sums[j] = zero
            products[j] = zero
        for i in range(rows):
            for j in range(width):
                c = begin + j
                sums[j] += dy[i, c]
                products[j] += dy[i, c] * ((x[i, c] - mean[c]) * rstd[c])
        if dgamma.size > 0:
            for j in range(width):
                dgamma[begin + j] = products[j] + (dgamma[begin + j] if accumulate else zero)
        if dbeta.size > 0:
            for j in range(width):
                dbeta[begin + j] = sums[j] + (dbeta[begin + j] if accumulate else zero)
        if dx.size > 0:
            for j in range(width):
                c = begin + j
                scale[j] = gamma[c] * rstd[c] if gamma.size > 0 else rstd[c]
                sums[j] *= share
                products[j] *= share
            for i in range(rows):
                for j in range(width):
                    c = begin + j
                    xhat = (x[i, c] - mean[c]) * rstd[c]
                    dx[i, c] = scale[j] * (dy[i, c] - sums[j] - xhat * products[j])


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
    affine = gamma.size > 0
    scale = local(y)
    for begin in range(0, columns, LOCAL):
        width = min(LOCAL, columns - begin)
        for j in range(width):
            scale[j] = one / np.sqrt(running_var[begin + j] + small)
            if affine:
                scale[j] *= gamma[begin + j]
        for i in range(rows):
            for j in range(width):
                y[i, begin + j] = (x[i, begin + j] - running_mean[begin + j]) * scale[j]
            if affine:
                for j in range(width):
                    y[i, begin + j] += beta[begin + j]


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
    one, zero, small = dy.dtype.type(1), dy.dtype.type(0), dy.dtype.type(eps)
    sums, products, scale = local(dy), local(dy), local(dy)
    for begin in range(0, columns, LOCAL):
        width = min(LOCAL, columns - begin)
        for j in range(width):
            sums[j] = zero
            products[j] = zero
            scale[j] = one / np.sqrt(running_var[begin + j] + small)
        for i in range(rows):
            for j in range(width):
                c = begin + j
                sums[j] += dy[i, c]
                products[j] += dy[i, c] * ((x[i, c] - running_mean[c]) * scale[j])
        if dgamma.size > 0:
            for j in range(width):
                dgamma[begin + j] = products[j] + (dgamma[begin + j] if accumulate else zero)
        if dbeta.size > 0:
            for j in range(width):
                dbeta[begin + j] = sums[j] + (dbeta[begin + j] if accumulate else zero)
        if dx.size > 0:
            if gamma.size > 0:
                for j in range(width):
                    scale[j] *= gamma[begin + j]
            for i in range(rows):
                for j in range(width):
                    dx[i, begin + j] = dy[i, begin + j] * scale[j]
