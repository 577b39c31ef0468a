"""Centres and widths of radial basis functions, from rows of data."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet import random
from fastnet.data import arrays
from fastnet.errors import (
    DataError,
    HyperparameterError,
    MissingExtra,
    check_choice,
    check_int,
    check_real,
    check_seed,
    shown,
)
from fastnet.op import Array

METHODS = ("kmeans", "sample", "box")
_BLOCK = 1 << 22  # differences that are in memory at once


def checked_rows(name: str, X: Any, width: int) -> Array:
    """Rows of finite numbers (n, width) as float64, at least one."""
    rows = arrays.features(name, X, (width,), np.float64).astype(np.float64)
    if not len(rows):
        raise DataError(f"{name} is empty; expected at least one row")
    return rows


def placed_centers(rows: Array, n_centers: int, method: str, seed: int | None = None) -> Array:
    """Centres (n_centers, features) from checked rows, float64; see RBF.place_centers."""
    method = check_choice("method", method, METHODS)
    seed = check_seed("seed", seed)
    generator = np.random.default_rng(random.fresh_seed() if seed is None else seed)
    if method == "box":
        low, high = rows.min(axis=0), rows.max(axis=0)
        return np.asarray(low + (high - low) * generator.random((n_centers, rows.shape[1])))
    if len(rows) < n_centers:
        raise DataError(f"X has {len(rows)} rows; expected at least n_centers = {shown(n_centers)}")
    if method == "sample":
        return rows[np.sort(generator.permutation(len(rows))[:n_centers])]
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise MissingExtra(
            f'method="kmeans" needs scikit-learn ({error}): pip install "fastnet-engine[sklearn]"; '
            'method="sample" and method="box" do not'
        ) from None
    distinct = len(np.unique(rows, axis=0))
    if distinct < n_centers:
        raise DataError(
            f"X has {distinct} distinct rows; expected at least n_centers = {n_centers}"
        )
    state = int(generator.integers(2**31))
    found = KMeans(n_centers, init="k-means++", n_init=1, random_state=state).fit(rows)
    return np.asarray(found.cluster_centers_, np.float64)


def checked_widths(widths: Any, centers: Array, neighbours: int) -> Array:
    """Widths (n_centers,) by the argument `widths` of RBF.place_centers, float64."""
    neighbours = check_int("neighbours", neighbours, low=1)
    if isinstance(widths, str):
        if widths != "nearest":
            raise HyperparameterError(
                f'widths is {shown(widths)}; expected "nearest", or numbers > 0'
            )
        return nearest_widths(centers, neighbours)
    if not isinstance(widths, (list, tuple, np.ndarray)) or getattr(widths, "ndim", 1) == 0:
        return np.full(len(centers), check_real("widths", widths, low=0, open_low=True))
    given = arrays.numbers("widths", widths).astype(np.float64)
    good = given.shape == (len(centers),) and np.isfinite(given).all() and given.min() > 0
    if not good:
        raise HyperparameterError(
            f'widths is {shown(widths)}; expected "nearest", a number > 0, or ({len(centers)},) of such'
        )
    return given


def nearest_widths(centers: Array, neighbours: int = 2) -> Array:
    """The mean distance of each centre to its nearest others (all of them where there are fewer).

    Where it is 0, as of equal centres, the smallest other one; 1 where there is none.
    """
    count, neighbours = len(centers), min(neighbours, len(centers) - 1)
    if not neighbours:
        return np.ones(count)
    widths, step = np.empty(count), max(1, _BLOCK // centers.size)
    for begin in range(0, count, step):
        some = np.arange(begin, min(begin + step, count))
        distances = np.sqrt(np.square(centers[some, None] - centers).sum(axis=2))
        distances[np.arange(len(some)), some] = np.inf
        widths[some] = np.partition(distances, neighbours - 1, axis=1)[:, :neighbours].mean(axis=1)
    positive = widths[widths > 0]
    widths[widths == 0] = positive.min() if len(positive) else 1.0
    return widths
