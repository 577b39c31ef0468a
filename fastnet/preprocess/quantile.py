"""The map of each column's distribution to the normal one, by a table."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import check_int
from fastnet.op import Array, Op
from fastnet.preprocess.base import Preprocessor, Values
from fastnet.preprocess.statistics import quantiles
from fastnet.random import normal_quantile

TAIL = 1e-7  # the least and, from 1, the greatest level: normal quantiles stay within ±5.2
FINE = 16  # knots of the table for each unit of the normal quantile, at least
MORE = 168  # knots that are added to the quantiles, at most: 16 for each of the 10.4 units
MOST = 1 << 20  # quantiles


class interpolate(Op):
    """y = the table's value at x, linear between its knots and constant outside.

    Column j has the knots k[j], ascending, with the values v[j]. Knots may be equal: the value at x is then
    that of the last of them, and no x lies between them. dx = dy·slope between two knots, 0 outside.
    """

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N", "k": "N K", "v": "N K"}
    dims = ("N", "K")

    @staticmethod
    def forward(y: Array, x: Array, k: Array, v: Array) -> None:
        """Find the knots around x."""
        for j in range(x.shape[1]):
            i, inside = _segment(k[j], x[:, j])
            share = (x[:, j] - k[j, i]) / np.where(inside, k[j, i + inside] - k[j, i], 1)
            between = v[j, i] + share * (v[j, i + inside] - v[j, i])
            y[:, j] = np.where(np.isnan(x[:, j]), x[:, j], np.where(inside, between, v[j, i]))

    @staticmethod
    def vjp(dx: Array, dy: Array, x: Array, k: Array, v: Array) -> None:
        """The slope of the segment."""
        if not dx.size:
            return
        for j in range(x.shape[1]):
            i, inside = _segment(k[j], x[:, j])
            width = np.where(inside, k[j, i + inside] - k[j, i], 1)
            dx[:, j] = np.where(inside, dy[:, j] * ((v[j, i + inside] - v[j, i]) / width), 0)


def _segment(k: Array, x: Array) -> tuple[Array, Array]:
    """The knot below each x, or the first one, and whether x lies between that and the next."""
    count = np.searchsorted(k, x, side="right")
    inside = (count > 0) & (count < len(k))  # NaN counts as above all
    return np.maximum(count - 1, 0), inside.astype(np.intp)


class QuantileTransformer(Preprocessor):
    """y = Φ⁻¹(F(x)) for each column: F is the distribution of the fitted data, so y is nearly normal.

    F is linear between n_quantiles quantiles, or as many as rows if these are fewer. A value that several
    of them share has the mean of their levels, so that a column of few different values gets the normal
    scores of middle ranks, and a constant one gets 0. Levels are kept within [1e-7, 1 − 1e-7]: |y| ≤ 5.2.

    `fit` makes a table of each column, in which only interpolation remains to be done: its knots are the
    quantiles and at least 16 more for each unit of y. Between knots y differs by less than 0.003 from the
    formula.

    n_quantiles: integer in [2, 2²⁰] (default 1000).
    num_features: integer ≥ 1, or None (default): that of the data of `fit`.

    Fitted: `knots_` and `values_` (features, n_quantiles + 168). The inverse gives a quantile for what lies
    outside.
    Source: B. L. van der Waerden, "Order tests for the two-sample problem and their power", 1952, for
    normal scores; scikit-learn's QuantileTransformer with output_distribution="normal", which gives the
    extreme levels to repeated values at the ends.
    """

    def __init__(self, n_quantiles: int = 1000, num_features: int | None = None) -> None:
        super().__init__(
            num_features, n_quantiles=check_int("n_quantiles", n_quantiles, low=2, high=MOST)
        )

    def _declare_numbers(self, features: int) -> None:
        shape = features, self.n_quantiles + MORE
        self._number("knots_", shape)
        self._number("values_", shape)

    def _fitted(self, X: Array) -> Values:
        levels = np.linspace(0.0, 1.0, max(2, min(self.n_quantiles, len(X))))
        found = quantiles(X, levels)
        tables = [_table(column, levels, self.n_quantiles + MORE) for column in found.T]
        knots, values = zip(*tables, strict=True)
        return {"knots_": np.stack(knots), "values_": np.stack(values)}

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `interpolate`."""
        self._check_ready()
        return g.apply(
            interpolate, x=x, k=self._parameters["knots_"], v=self._parameters["values_"]
        )

    def _inverse(self, y: Array) -> Array:
        knots, values = self._buffer("knots_"), self._buffer("values_")
        columns = [np.interp(*given) for given in zip(y.T, values, knots, strict=True)]
        return np.stack(columns, axis=1)


def _table(quantile: Array, level: Array, size: int) -> tuple[Array, Array]:
    """So many knots and values of a column with these quantiles; the last one fills what is left."""
    knot, begin, count = np.unique(quantile, return_index=True, return_counts=True)
    share = np.clip((level[begin] + level[begin + count - 1]) / 2, TAIL, 1 - TAIL)
    value = normal_quantile(share)
    pieces = np.maximum(np.ceil(np.diff(value) * FINE), 1).astype(np.int64)
    knots, values = [knot[:1]], [value[:1]]
    for i, parts in enumerate(pieces.tolist()):
        between = value[i] + (value[i + 1] - value[i]) * np.arange(1, parts) / parts
        part = (_normal(between) - share[i]) / (share[i + 1] - share[i])
        knots += [knot[i] + (knot[i + 1] - knot[i]) * np.clip(part, 0, 1), knot[i + 1 : i + 2]]
        values += [between, value[i + 1 : i + 2]]
    found = np.concatenate(knots), np.concatenate(values)
    return tuple(np.pad(part, (0, size - len(part)), mode="edge") for part in found)  # type: ignore[return-value]


def _normal(z: Array) -> Array:
    """Φ(z)."""
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in z.tolist()])
