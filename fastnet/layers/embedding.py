"""Embedding: trained vectors in place of integer codes that stand in columns of the input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.data.codes import Code
from fastnet.errors import HyperparameterError, ShapeError, check_flag, check_int, shown
from fastnet.init import Initializer, Normal, check_init
from fastnet.layers.base import Layer, Shape
from fastnet.op import Array, Op

MOST = 2**24  # codes: float32 represents all integers up to here


class embedding(Op):
    """y: the columns of x but the one of codes, and the row w_c of the code c; dw_c = Σ dy of its rows.

    place: the column of codes. unknown: 1 where the last row of w stands for all numbers that are no codes,
    else 0: then y is NaN.
    """

    outputs: ClassVar = {"y": "B M"}
    inputs: ClassVar = {"x": "B N", "w": "V E"}
    dims = ("V", "E", "N", "M")
    scalars = ("place", "unknown")

    @staticmethod
    def forward(y: Array, x: Array, w: Array, place: float, unknown: float) -> None:
        """The other columns (B, N − 1), then the rows of w (B, E)."""
        at, others = int(place), x.shape[1] - 1
        y[:, :at], y[:, at:others] = x[:, :at], x[:, at + 1 :]
        codes = codes_of(x[:, at], len(w), unknown)
        y[:, others:] = np.where((codes >= 0)[:, None], w[codes], np.nan)

    @staticmethod
    def vjp(
        dx: Array,
        dw: Array,
        dy: Array,
        x: Array,
        place: float,
        unknown: float,
        accumulate: int,
    ) -> None:
        """dx is dy of the other columns, and 0 for the codes; rows of dw without a code are 0."""
        at, others = int(place), x.shape[1] - 1
        if dx.size:
            dx[:, :at], dx[:, at], dx[:, at + 1 :] = dy[:, :at], 0, dy[:, at:others]
        if dw.size:
            codes = codes_of(x[:, at], len(dw), unknown)
            sums = np.zeros(dw.shape)
            np.add.at(sums, codes[codes >= 0], dy[codes >= 0, others:])
            dw[...] = sums + dw if accumulate else sums

    @classmethod
    def fitted(cls, sizes: dict[str, int]) -> dict[str, int]:
        """M = N − 1 + E."""
        return {**sizes, "M": sizes["N"] - 1 + sizes["E"]}

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """A copy of a row."""
        return sizes["M"]


def codes_of(x: Array, rows: int, unknown: float) -> Array:
    """The row of the table for each number, int64; −1 where there is none."""
    count = rows - int(unknown)
    good = (x >= 0) & (x < count) & (x == np.trunc(x))
    return np.where(good, np.where(good, x, 0).astype(np.int64), count if unknown >= 1 else -1)


class Embedding(Layer):
    """y = [x without the columns of codes, w_c], where the code c of a row selects the row w_c of a table.

    num_embeddings: integer in [1, 2²⁴], the number of codes 0, 1, …; or a list, one for each column.
    embedding_dim: integer ≥ 1, the width of the vectors; or a list, one for each column.
    columns: the column of x with the codes, integer ≥ 0 (default 0); or a list of columns, each with a
        table of its own. The columns of the embeddings follow the others, in the order of this list.
    unknown: bool (default False). True: each table has one more row, for every number that is no code, such
        as that of a category which the training has not seen.
    weight_init: initialiser of the tables (default PyTorch's, N(0, 1)).

    Codes are integers 0 ≤ c < num_embeddings, as numbers of any dtype, which float32 holds exactly. Where
    they come from the model's input as they are, within Concat and other blocks too, codes are checked with
    the data: `fit`, `predict`, `evaluate` and `forward` raise DataError for others. Elsewhere others give
    NaN.
    The parameter is `weight` (num_embeddings, embedding_dim), with a row more for `unknown`; of a list of
    columns `weight_0`, `weight_1`, … No gradient reaches the codes. Rows of codes that a minibatch lacks
    have the gradient 0.
    x (rows, features) → y (rows, features − columns + Σ embedding_dim); ShapeError where a column is
    missing.
    Source: Y. Bengio et al., "A neural probabilistic language model", JMLR 3 (2003); of categorical
    features, C. Guo, F. Berkhahn, "Entity embeddings of categorical variables", 2016, arXiv:1604.06737.
    """

    def __init__(
        self,
        num_embeddings: Any,
        embedding_dim: Any,
        columns: Any = 0,
        unknown: bool = False,
        weight_init: Initializer | None = None,
    ) -> None:
        places = _several("columns", columns)
        self_columns = [check_int("columns", c) for c in places]
        if len(set(self_columns)) < len(self_columns) or not self_columns:
            raise HyperparameterError(
                f"columns is {shown(columns)}; expected at least one column, each once"
            )
        counts = _each("num_embeddings", num_embeddings, len(places), MOST)
        widths = _each("embedding_dim", embedding_dim, len(places))
        listed = isinstance(columns, (list, tuple, np.ndarray, range))
        super().__init__(
            num_embeddings=counts if _is_listed(num_embeddings) else counts[0],
            embedding_dim=widths if _is_listed(embedding_dim) else widths[0],
            columns=self_columns if listed else self_columns[0],
            unknown=check_flag("unknown", unknown),
            weight_init=check_init("weight_init", weight_init),
        )
        self.__dict__["_tables"] = list(zip(self_columns, counts, widths, strict=True))
        for k, (count, width) in enumerate(zip(counts, widths, strict=True)):
            name, rows = f"weight_{k}" if listed else "weight", count + int(self.unknown)
            init = weight_init or Normal()
            self._declare(name, (rows, width), init=init, fan_in=rows, fan_out=width)

    reads_codes: ClassVar[bool] = True

    def width_before(self, width: int) -> int:
        """The width without the embeddings, and with the columns of codes."""
        return width - sum(int(size) - 1 for _, _, size in self._tables)

    def output_shape(self, shape: Shape) -> Shape:
        """(features,) → (features − columns + Σ embedding_dim,)."""
        most = max(column for column, _, _ in self._tables)
        if len(shape) != 1 or shape[0] <= most:
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came; expected at least {most + 1} features, as "
                f"codes stand in column {most}"
            )
        return (shape[0] + sum(width - 1 for _, _, width in self._tables),)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `embedding` once for each column."""
        gone: list[int] = []
        for (column, _, width), w in zip(self._tables, self._parameters.values(), strict=True):
            at = column - sum(other < column for other in gone)
            gone.append(column)
            size = int(x.shape[1]) - 1 + width
            x = g.apply(embedding, x=x, w=w, place=float(at), unknown=float(self.unknown), M=size)
        return x

    def find_codes(self, places: list[int], found: list[Code]) -> list[int]:
        """The layer's columns, unless it takes any number; the others come first in its output."""
        width = sum(self.output_shape((len(places),)))
        remedy = "unknown=True gives all others a vector of their own"
        for column, count, _ in self._tables:
            if not self.unknown and places[column] >= 0:
                found.append(Code(places[column], count, self.label, remedy))
        gone = {column for column, _, _ in self._tables}
        kept = [place for column, place in enumerate(places) if column not in gone]
        return kept + [-1] * (width - len(kept))


def _is_listed(value: Any) -> bool:
    return isinstance(value, (list, tuple, range)) or (
        isinstance(value, np.ndarray) and value.ndim > 0
    )


def _several(name: str, value: Any) -> list[Any]:
    return list(value) if _is_listed(value) else [value]


def _each(name: str, value: Any, count: int, high: int | None = None) -> list[int]:
    """An integer ≥ 1 for each column, from one for all or a list of them."""
    given = _several(name, value)
    if _is_listed(value) and len(given) != count:
        raise HyperparameterError(
            f"{name} is {shown(value)}; expected an integer, or one for each of the {count} columns"
        )
    limit = {} if high is None else {"high": high}
    numbers = [check_int(name, v, low=1, **limit) for v in given]
    return numbers if len(numbers) == count else numbers * count
