"""PiecewiseLinear: each number as its place in the bins of its feature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate as running_sums
from typing import Any, ClassVar, Self

import numpy as np

from fastnet.builder import Builder
from fastnet.data import arrays
from fastnet.errors import (
    DataError,
    HyperparameterError,
    ShapeError,
    check_choice,
    check_int,
    shown,
)
from fastnet.init import FanInUniform, KaimingUniform, Zeros
from fastnet.layers.base import Layer, Shape
from fastnet.layers.joining import add
from fastnet.op import Array, Op, put, row_sums
from fastnet.parameter import Derived

VERSIONS = ("A", "B")
NARROWEST = 1e-6  # of a bin, as a share of the span of its feature's bins


class piecewise(Op):
    """y_m = (x_i − edge_m)·scale_m within [0, 1], in the first bin of i within [−1, 1], in the last [0, 2].

    Input i has the outputs before ends_i, from ends_(i−1) on. dx_i = Σ dy_m·scale_m where y_m is within.
    """

    outputs: ClassVar = {"y": "B M"}
    inputs: ClassVar = {"x": "B I", "edge": "M", "scale": "M", "ends": "I"}
    dims = ("I", "M")

    @staticmethod
    def forward(y: Array, x: Array, edge: Array, scale: Array, ends: Array) -> None:
        """The place in each bin."""
        of = features_of(ends, len(edge))
        low, high = limits(ends, len(edge))
        np.clip((x[:, of] - edge) * scale, low, high, out=y)

    @staticmethod
    def vjp(dx: Array, dy: Array, x: Array, edge: Array, scale: Array, ends: Array) -> None:
        """The slopes of the bins in which x lies."""
        of = features_of(ends, len(edge))
        low, high = limits(ends, len(edge))
        place = (x[:, of] - edge) * scale
        terms = np.where((low <= place) & (place < high), dy * scale, 0)
        dx[...] = 0
        np.add.at(dx.T, of, terms.T)

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """A few operations for each output."""
        return 4 * sizes["M"]


class grouped_linear(Op):
    """y_ie = b_ie + Σ_n x_n·w_ne over the columns n of group i, from ends_(i−1) to ends_i.

    dx_n = Σ_e dy_ie·w_ne, dw_ne = Σ_rows x_n·dy_ie for n in group i, db = Σ_rows dy.
    """

    outputs: ClassVar = {"y": "B M"}
    inputs: ClassVar = {"x": "B N", "w": "N E", "b": "M", "ends": "I"}
    dims = ("I", "E", "N", "M")

    @staticmethod
    def forward(y: Array, x: Array, w: Array, b: Array, ends: Array) -> None:
        """A product for each group."""
        width = w.shape[1]
        for i, (begin, end) in enumerate(groups(ends)):
            own = slice(i * width, (i + 1) * width)
            y[:, own] = x[:, begin:end] @ w[begin:end] + b[own]

    @staticmethod
    def vjp(
        dx: Array,
        dw: Array,
        db: Array,
        dy: Array,
        x: Array,
        w: Array,
        ends: Array,
        accumulate: int,
    ) -> None:
        """Gradients of the inputs (B, N), the weights (N, E) and the bias (M)."""
        width = w.shape[1]
        for i, (begin, end) in enumerate(groups(ends)):
            d = dy[:, i * width : (i + 1) * width]
            if dx.size:
                dx[:, begin:end] = d @ w[begin:end].T
            for n in range(begin, end) if dw.size else ():
                put(dw[n], row_sums(x[:, n : n + 1] * d), accumulate)
        if db.size:
            put(db, row_sums(dy), accumulate)

    @classmethod
    def fitted(cls, sizes: dict[str, int]) -> dict[str, int]:
        """M = I·E."""
        return {**sizes, "M": sizes["I"] * sizes["E"]}

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """A multiplication for each weight."""
        return sizes["N"] * sizes["E"]


def groups(ends: Array) -> list[tuple[int, int]]:
    """The first column of each group, and the one after its last."""
    until = ends.astype(np.int64).tolist()
    return list(zip([0, *until[:-1]], until, strict=True))


def features_of(ends: Array, count: int) -> Array:
    """The feature of each bin."""
    return np.searchsorted(ends, np.arange(count), side="right")


def limits(ends: Array, count: int) -> tuple[Array, Array]:
    """The least and the largest output of each bin."""
    low, high = np.zeros(count, ends.dtype), np.ones(count, ends.dtype)
    for begin, end in groups(ends):
        low[begin : min(end, begin + 1)] = -1
        high[max(begin, end - 1) : end] = 2
    return low, high


class PiecewiseLinear(Layer):
    """y_t = (x − b_(t−1))/(b_t − b_(t−1)) within [0, 1], for each feature x and its bins with edges b.

    So y is 0 in the bins above x and 1 in those below it. Below the first edge and above the last the line
    goes on, by the width of one bin at most: the first bin's output is at least −1, the last one's at
    most 2, whatever x is.

    bins: a list with the edges of each feature, at least two increasing finite numbers; no bin narrower
        than 10⁻⁶ of its feature's span. `from_quantiles` takes them from data.
    embedding_dim: integer ≥ 1, or None (default). A linear layer of each feature's own follows, which makes
        so many numbers of its T bins.
    version: "A" (default) or "B", of the embedding. A begins with PyTorch's initial values of Linear for
        the largest T. B adds a linear map of the feature itself, x·linear_weight, and begins as this map
        alone: the weights of the bins are 0 at first, those of the feature and the bias U(−1/√d, 1/√d) with
        d the embedding_dim.

    The parameters, with an embedding_dim alone, are `weight` (all bins, embedding_dim) and `bias`
    (features·embedding_dim), and in version B `linear_weight` (features, embedding_dim).
    x (rows, features) → y (rows, all bins), or (rows, features·embedding_dim): the columns of a feature
    stand together. Any other width raises ShapeError.
    Source: Y. Gorishniy, I. Rubachev, A. Babenko, "On embeddings for numerical features in tabular deep
    learning", NeurIPS 2022, which goes on without bounds beyond the edges; version B of Y. Gorishniy, A.
    Kotelnikov, A. Babenko, "TabM: advancing tabular deep learning with parameter-efficient ensembling",
    ICLR 2025, as in the package rtdl_num_embeddings 0.0.12.
    """

    def __init__(self, bins: Any, embedding_dim: int | None = None, version: str = "A") -> None:
        edges = checked_bins(bins)
        if embedding_dim is not None:
            embedding_dim = check_int("embedding_dim", embedding_dim, low=1)
        version = check_choice("version", version, VERSIONS)
        super().__init__(bins=edges, embedding_dim=embedding_dim, version=version)
        counts = [len(own) - 1 for own in edges]
        self.__dict__["_counts"] = counts
        if embedding_dim is None:
            return
        plain = version == "A"
        fans = {"fan_in": max(counts) if plain else embedding_dim, "fan_out": embedding_dim}
        init = KaimingUniform(a=math.sqrt(5.0)) if plain else Zeros()
        self._declare("weight", (sum(counts), embedding_dim), init=init, **fans)
        self._declare("bias", (len(counts) * embedding_dim,), init=FanInUniform(), **fans)
        if not plain:
            shape = len(counts), embedding_dim
            self._declare("linear_weight", shape, init=FanInUniform(), **fans)

    @classmethod
    def from_quantiles(
        cls, X: Any, n_bins: int = 48, embedding_dim: int | None = None, version: str = "A"
    ) -> Self:
        """The layer with bins of about equally many rows of X each.

        X: (rows, features), finite numbers, at least one row and one column. n_bins: integer ≥ 1 (default
        48) of each feature. Edges that are equal, or closer than 10⁻⁶ of the column's span, become one; a
        constant column has a single bin around its value. embedding_dim, version: as for the layer.
        """
        return cls(quantile_bins(X, n_bins), embedding_dim, version)

    @property
    def in_width(self) -> int:
        """The number of features."""
        return len(self._counts)

    @property
    def out_width(self) -> int:
        """The number of columns of the output."""
        width = self.embedding_dim
        return sum(self._counts) if width is None else len(self._counts) * int(width)

    def output_shape(self, shape: Shape) -> Shape:
        """(features,) → (all bins,) or (features·embedding_dim,)."""
        if shape != (self.in_width,):
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came, expected {self.in_width} features, one for "
                "each list of edges in bins"
            )
        return (self.out_width,)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `piecewise`, and with an embedding_dim `grouped_linear`; of version B twice, and `add`."""
        total, ends = (sum(self._counts),), self._constant(lambda: self._ends, self.in_width)
        edge = self._constant(lambda: np.concatenate([e[:-1] for e in self.bins]), *total)
        scale = self._constant(lambda: np.concatenate([1 / np.diff(e) for e in self.bins]), *total)
        y = g.apply(piecewise, x=x, edge=edge, scale=scale, ends=ends)
        if self.embedding_dim is None:
            return y
        w, b = self._parameters["weight"], self._parameters["bias"]
        if self.version == "A":
            return g.apply(grouped_linear, x=y, w=w, b=b, ends=ends)
        zeros = self._constant(lambda: np.zeros(b.shape), *b.shape)
        y = g.apply(grouped_linear, x=y, w=w, b=zeros, ends=ends)
        each = self._constant(lambda: np.arange(1.0, self.in_width + 1), self.in_width)
        line = g.apply(grouped_linear, x=x, w=self._parameters["linear_weight"], b=b, ends=each)
        return g.apply(add, a=line, b=y)

    @property
    def _ends(self) -> Array:
        return np.array(list(running_sums(self._counts)), np.float64)

    @staticmethod
    def _constant(compute: Any, count: int) -> Derived:
        return Derived((count,), compute, constant=True)


def checked_bins(bins: Any) -> list[list[float]]:
    """The edges of each feature as lists of floats, or HyperparameterError."""
    given = bins
    if isinstance(bins, np.ndarray):
        bins = list(bins) if bins.ndim == 2 else None
    if not isinstance(bins, (list, tuple)) or not bins or isinstance(bins[0], (int, float)):
        raise HyperparameterError(
            f"bins is {shown(given)}; expected a list with a list of edges for each feature"
        )
    edges = []
    for k, own in enumerate(bins):
        try:
            found = arrays.numbers(f"bins[{k}]", own).astype(np.float64)
        except DataError as error:
            raise HyperparameterError(str(error)) from None
        if found.ndim != 1 or len(found) < 2 or not np.isfinite(found).all():
            raise HyperparameterError(
                f"bins[{k}] is {shown(own)}; expected at least two finite edges that increase"
            )
        widths = np.diff(found)
        if not widths.min() >= NARROWEST * (found[-1] - found[0]) or not widths.min() > 0:
            at = int(widths.argmin())
            raise HyperparameterError(
                f"bins[{k}] has edges {at} and {at + 1} at {found[at]:g} and {found[at + 1]:g}; expected "
                f"edges that increase, each by at least {NARROWEST:g} of the span: leave one out"
            )
        edges.append([float(e) for e in found])
    return edges


def quantile_bins(X: Any, n_bins: int = 48) -> list[list[float]]:
    """Edges for each column of X at its quantiles; see PiecewiseLinear.from_quantiles."""
    rows = arrays.features("X", X, None, np.float64).astype(np.float64)
    n_bins = check_int("n_bins", n_bins, low=1, high=2**20)
    if not rows.size:
        raise DataError(f"X has shape {rows.shape}; expected at least one row and one column")
    shares = np.linspace(0, 1, n_bins + 1)
    return [_merged(np.quantile(column, shares)) for column in rows.T]


def _merged(edges: Array) -> list[float]:
    """The edges without those that follow another one too closely."""
    low, high = float(edges[0]), float(edges[-1])
    least = 2 * NARROWEST * (high - low)
    if not least > 0 or not high - low > NARROWEST * max(abs(low), abs(high)):
        middle, half = low + 0.5 * (high - low), 0.5 * max(1.0, abs(low), abs(high))
        return [middle - half, middle + half]
    kept = [low]
    for edge in map(float, edges[1:-1]):
        if edge - kept[-1] >= least and high - edge >= least:
            kept.append(edge)
    return [*kept, high]
