"""Statistics of tall data in one pass over blocks of rows, in float64."""

from __future__ import annotations

import numpy as np

from fastnet.op import Array
from fastnet.preprocess.base import blocks


def mean_and_var(X: Array) -> tuple[Array, Array]:
    """The mean and the biased variance of each column; exactly 0 for the variance of a constant one.

    Values are taken from the first row on, and blocks put together by the formulas of Chan, Golub and
    LeVeque ("Updating formulae and a pairwise algorithm for computing sample variances", 1979): data far
    from 0 lose no digits.
    """
    origin = X[0].astype(np.float64)
    count, mean, squares = 0, np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for _, block in blocks(X):
        block -= origin
        of_block = block.mean(axis=0)
        block -= of_block
        difference, rows = of_block - mean, len(block)
        whole = count + rows
        squares += (block * block).sum(axis=0) + difference**2 * (count * rows / whole)
        mean += difference * (rows / whole)
        count = whole
    return origin + mean, squares / count


def mean_and_covariance(X: Array) -> tuple[Array, Array]:
    """The mean and the covariance matrix, with the divisor n − 1, likewise."""
    origin = X[0].astype(np.float64)
    count, mean, products = 0, np.zeros(X.shape[1]), np.zeros((X.shape[1], X.shape[1]))
    for _, block in blocks(X, X.shape[1]):  # as many rows as columns at least: else sums dominate
        block -= origin
        of_block = block.mean(axis=0)
        block -= of_block
        difference, rows = of_block - mean, len(block)
        whole = count + rows
        products += block.T @ block
        products += np.outer(difference, difference) * (count * rows / whole)
        mean += difference * (rows / whole)
        count = whole
    return origin + mean, products / (count - 1)


def quantiles(X: Array, levels: Array) -> Array:
    """The quantiles of each column at some levels, interpolated linearly: (levels, features)."""
    found = np.empty((len(levels), X.shape[1]))
    for column in range(X.shape[1]):  # so that one column is copied at a time
        found[:, column] = np.quantile(X[:, column].astype(np.float64), levels)
    return np.maximum.accumulate(found, axis=0)  # rounding may put neighbours out of order


def bounds(X: Array) -> tuple[Array, Array]:
    """The least and the greatest value of each column."""
    return X.min(axis=0).astype(np.float64), X.max(axis=0).astype(np.float64)
