"""Batch normalisation by the statistics of a minibatch that several ranks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fastnet.op import Array, Op, put, row_sums


class Norm:
    """The numbers of a layer that the kernels take: eps and momentum (< 0: means over all minibatches)."""

    def __init__(self, eps: float, momentum: float) -> None:
        self.eps, self.momentum = eps, momentum


class synced_batchnorm(Op):
    """As `batchnorm`, where the rows are one of several parts of a minibatch.

    Each part's mean and sum of squares about it, in float64, are combined in the order of the parts: so
    the result does not depend on who has computed which part. The kernels here take the rows for the
    whole minibatch; `train.across_sync` runs the same functions with those of all parts.
    """

    guest = on_host = True
    outputs: ClassVar = {"y": "B N", "mean": "float64 N", "rstd": "float64 N"}
    state: ClassVar = {"running_mean": "N", "running_var": "N", "batches": "int64 1"}
    inputs: ClassVar = {"x": "B N", "gamma": "N", "beta": "N"}
    optional = ("gamma", "beta", "running_mean", "running_var", "batches")
    dims = ("N",)
    objects: ClassVar = ("norm",)

    @staticmethod
    def forward(
        y: Array,
        mean: Array,
        rstd: Array,
        running_mean: Array,
        running_var: Array,
        batches: Array,
        x: Array,
        gamma: Array,
        beta: Array,
        norm: Norm,
    ) -> None:
        """Normalise by the statistics of these rows and move the running ones towards them."""
        found, variance = combined([len(x)], [moments(x)])
        normalise(y, mean, rstd, x, gamma, beta, found, variance, norm)
        move(running_mean, running_var, batches, found, variance, len(x), norm)

    @staticmethod
    def vjp(
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
        """The gradients of these rows."""
        own = gradient_sums(dy, x, mean, rstd)
        pull_back(dx, dgamma, dbeta, dy, mean, rstd, x, gamma, accumulate, own, own / len(x))


def moments(x: Array) -> Array:
    """The mean of each column and the sum of squares about it: float64 (2, N)."""
    values = x.astype(np.float64)
    mean = values[0] + row_sums(values - values[0]) / len(x)
    return np.stack([mean, row_sums((values - mean) ** 2)])


def combined(counts: Sequence[int], parts: Sequence[Array]) -> tuple[Array, Array]:
    """Mean and biased variance of all rows, from the `moments` of parts with so many rows.

    Source: T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances", 1979.
    """
    rows, mean, squares = 0, np.zeros(parts[0].shape[1]), np.zeros(parts[0].shape[1])
    for count, (own, about_own) in zip(counts, parts, strict=True):
        if count:
            apart, all_rows = own - mean, rows + count
            mean = mean + apart * (count / all_rows)
            squares = squares + about_own + apart**2 * (rows * count / all_rows)
            rows = all_rows
    return mean, squares / max(1, rows)


def normalise(
    y: Array,
    mean: Array,
    rstd: Array,
    x: Array,
    gamma: Array,
    beta: Array,
    found: Array,
    variance: Array,
    norm: Norm,
) -> None:
    """y = gamma·(x − mean)·rstd + beta for given mean and variance, which are kept for the backward."""
    mean[...] = found
    rstd[...] = 1 / np.sqrt(variance + norm.eps)
    scaled = (x - mean) * rstd
    y[...] = scaled * gamma + beta if gamma.size else scaled


def move(
    running_mean: Array,
    running_var: Array,
    batches: Array,
    mean: Array,
    variance: Array,
    rows: int,
    norm: Norm,
) -> None:
    """Move running statistics towards those of a minibatch of so many rows."""
    if running_mean.size:
        rate = norm.momentum if norm.momentum >= 0 else 1 / (batches[0] + 1)
        running_mean += rate * (mean - running_mean)
        running_var += rate * (variance * (rows / (rows - 1)) - running_var)
        batches += 1


def gradient_sums(dy: Array, x: Array, mean: Array, rstd: Array) -> Array:
    """Σ dy and Σ dy·x̂ of each column: float64 (2, N)."""
    values = dy.astype(np.float64)
    return np.stack([row_sums(values), row_sums(values * ((x - mean) * rstd))])


def pull_back(
    dx: Array,
    dgamma: Array,
    dbeta: Array,
    dy: Array,
    mean: Array,
    rstd: Array,
    x: Array,
    gamma: Array,
    accumulate: Any,
    own: Array,
    means: Array,
) -> None:
    """The gradients of a part's rows from its own sums, and from their means over the whole minibatch."""
    if dx.size:
        scale = gamma * rstd if gamma.size else rstd
        dx[...] = scale * (dy - means[0] - (x - mean) * rstd * means[1])
    put(dgamma, own[1].astype(dgamma.dtype), accumulate)
    put(dbeta, own[0].astype(dbeta.dtype), accumulate)
