"""Columns of categories as columns of zeros and ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import DataError, HyperparameterError, ShapeError, UsageError, check_int, shown
from fastnet.layers.base import Shape
from fastnet.op import Array, Op
from fastnet.preprocess.base import Preprocessor, Values

MOST = 1 << 16  # categories of a column


class one_hot(Op):
    """Column o of y compares x[:, s] with the category v[o], where s = source[o], or copies a column of x.

    y = 1 where they are equal, else 0. The last of neighbours with the same s is the slot of unknown
    categories: 1 where none of the others is. Where s < 0, y copies column −1 − s of x. dx = dy there; for
    categories it is 0.
    """

    outputs: ClassVar = {"y": "B O"}
    inputs: ClassVar = {"x": "B N", "v": "O", "source": "int64 O"}
    dims = ("O", "N")

    @staticmethod
    def forward(y: Array, x: Array, v: Array, source: Array) -> None:
        """From left to right."""
        found = np.zeros(len(x), bool)
        for o, s in enumerate(source):
            if s < 0:
                y[:, o] = x[:, -1 - s]
                continue
            if o + 1 < len(source) and source[o + 1] == s:
                equal = x[:, s] == v[o]
                found |= equal
                y[:, o] = equal
            else:
                y[:, o] = ~found
                found[:] = False

    @staticmethod
    def vjp(dx: Array, dy: Array, source: Array) -> None:
        """The copied columns."""
        if dx.size:
            dx[...] = 0
            for o, s in enumerate(source):
                if s < 0:
                    dx[:, -1 - s] += dy[:, o]


class OneHot(Preprocessor):
    """For each category of a column of x a column y = 1 where x is it, else 0, and one for others.

    A row whose category `fit` has not seen has its 1 in the last slot, the unknown one.

    columns: the places of the columns of categories, integers in [0, num_features), or None (default): all.
        The others come first in y, as they are and in their order; then the slots of the first column of
        categories, ascending, and so on.
    sizes: the number of categories of each of these columns, without the unknown slot, or None (default):
        as many as `fit` finds. Needed only to make a model before it is fitted.
    num_features: integer ≥ 1, or None (default): that of the data of `fit`.

    Categories are numbers, such as codes from 0 on, which numpy.unique(..., return_inverse=True) and
    scikit-learn's OrdinalEncoder make of strings. Fitted: `categories_`, an array of each column's
    categories. The inverse gives the category with the largest y, and NaN for the unknown slot.
    Raises DataError where two categories are one number in float32, or a column has more than 65,536.
    Source: D. B. Suits, "Use of dummy variables in regression equations", JASA 52, 1957; scikit-learn's
    OneHotEncoder, which has no slot for what is unknown.
    """

    def __init__(
        self,
        columns: Iterable[Any] | None = None,
        sizes: Iterable[Any] | None = None,
        num_features: int | None = None,
    ) -> None:
        chosen = None if columns is None else _integers("columns", columns, 0)
        if chosen is not None and (not chosen or len({*chosen}) < len(chosen)):
            raise HyperparameterError(f"columns is {shown(columns)}; expected different integers")
        counts = None if sizes is None else _integers("sizes", sizes, 1)
        known = None if num_features is None else check_int("num_features", num_features, low=1)
        if chosen is not None and known is not None and max(chosen) >= known:
            raise HyperparameterError(
                f"columns is {shown(columns)}; expected integers in [0, {known - 1}]"
            )
        if counts is not None and known is not None:
            _check_count(counts, known if chosen is None else len(chosen))
        super().__init__(known, columns=chosen, sizes=counts)

    def _is_determined(self) -> bool:
        return self.num_features is not None and self.sizes is not None

    def _determine(self, features: int, values: Values) -> None:
        super()._determine(features, values)
        source = values["source_"]
        self._config["sizes"] = [
            int((source == column).sum()) - 1 for column in self._encoded(features)
        ]

    def _encoded(self, features: int) -> list[int]:
        """The columns of categories."""
        chosen: list[int] | None = self.columns
        if chosen is not None and max(chosen) >= features:
            raise ShapeError(
                f"X has {features} features and columns is {shown(chosen)}; expected them in "
                f"[0, {features - 1}]"
            )
        return list(range(features)) if chosen is None else chosen

    def _layout(self, features: int, sizes: list[int]) -> list[int]:
        """Where each output column comes from."""
        encoded = self._encoded(features)
        others = [-1 - column for column in range(features) if column not in {*encoded}]
        slots = ([c] * (size + 1) for c, size in zip(encoded, sizes, strict=True))
        return [*others, *(column for part in slots for column in part)]

    def _declare_numbers(self, features: int) -> None:
        shape = (len(self._layout(features, self.sizes)),)
        self._number("value_", shape)
        self._number("source_", shape, dtype="int64", low=float(-features))

    def _fitted(self, X: Array) -> Values:
        encoded = self._encoded(X.shape[1])
        found = []
        for column in encoded:
            categories = np.unique(X[:, column].astype(np.float64))
            if len(categories) > MOST:
                raise DataError(
                    f"column {column} of X has {len(categories)} categories; expected at most {MOST}"
                )
            if len(np.unique(categories.astype(np.float32))) < len(categories):
                raise DataError(
                    f"column {column} of X has categories that are one number in float32; number them from "
                    "0 on, as numpy.unique(..., return_inverse=True) does"
                )
            found.append(categories)
        counts = [len(categories) for categories in found]
        if self.sizes is not None and counts != self.sizes:
            raise DataError(
                f"X has {shown(counts)} categories in its columns and sizes is {shown(self.sizes)}; make a "
                "new layer for these data"
            )
        layout = np.array(self._layout(X.shape[1], counts))
        values = np.zeros(len(layout))
        for column, categories in zip(encoded, found, strict=True):
            values[np.flatnonzero(layout == column)[:-1]] = categories
        return {"value_": values, "source_": layout}

    def output_shape(self, shape: Shape) -> Shape:
        """(num_features,) → (slots and other columns,)."""
        shape = super().output_shape(shape)
        if self.sizes is None:
            raise UsageError(
                f"{self.label} does not know its categories; fit it first, or give sizes and num_features"
            )
        return (len(self._layout(shape[0], self.sizes)),)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `one_hot`."""
        self._check_ready()
        p = self._parameters
        return g.apply(one_hot, x=x, v=p["value_"], source=p["source_"])

    def _inverse(self, y: Array) -> Array:
        source, values = self._buffer("source_").astype(np.int64), self._buffer("value_")
        found = np.empty((len(y), self.num_features))
        for column in range(self.num_features):
            slots = np.flatnonzero(source == column)
            if len(slots):
                of_slot = np.append(values[slots[:-1]], np.nan)
                found[:, column] = of_slot[y[:, slots].argmax(axis=1)]
            else:
                found[:, column] = y[:, np.flatnonzero(source == -1 - column)[0]]
        return found

    @property
    def categories_(self) -> list[Array]:
        """The categories of each column of categories, ascending, float64."""
        self._check_ready()
        source, values = self._buffer("source_"), self._buffer("value_")
        return [values[np.flatnonzero(source == c)[:-1]] for c in self._encoded(self.num_features)]


def _integers(name: str, given: Any, low: int) -> list[int]:
    """A list of integers."""
    try:
        return [check_int(name, value, low=low) for value in given]
    except TypeError:
        raise HyperparameterError(f"{name} is {shown(given)}; expected integers ≥ {low}") from None


def _check_count(sizes: list[int], columns: int) -> None:
    if len(sizes) != columns:
        raise HyperparameterError(
            f"sizes is {shown(sizes)}; expected a number for each of {columns} columns of categories"
        )
