"""Columns of tables: which are numbers and which are categories, and what a net gets of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet.errors import DataError, HyperparameterError, shown
from fastnet.op import Array

MOST_ONE_HOT = 8  # categories of a column that may have an embedding


def columns_of(X: Any) -> tuple[list[Array], list[str]]:
    """The columns of a frame or array, float64 or object, and their names for messages.

    Missing values are NaN in columns of numbers and None in others. Raises DataError where a column holds
    an infinite number or dates.
    """
    parts = _of_frame(X)
    if parts is None:
        array = np.asarray(X)
        parts = [(f"column {i}", array[:, i]) for i in range(array.shape[1])]
    return [_column(name, values) for name, values in parts], [name for name, _ in parts]


def _of_frame(X: Any) -> list[tuple[str, Any]] | None:
    """The columns of a frame of pandas or polars, or a table of pyarrow."""
    if hasattr(X, "iloc"):
        return [(str(name), X.iloc[:, i]) for i, name in enumerate(X.columns)]
    if hasattr(X, "get_columns"):
        return [(str(column.name), column) for column in X.get_columns()]
    if hasattr(X, "column_names"):
        names = X.column_names
        return [(str(name), X.column(i)) for i, name in enumerate(names)]
    return None


def _column(name: str, given: Any) -> Array:
    """One column as float64 with NaN, or as objects with None."""
    values = given.to_numpy() if hasattr(given, "to_numpy") else np.asarray(given)
    kind = values.dtype.kind
    if kind in "mM":
        raise DataError(
            f"X has dates or times in {name!r}; expected numbers or categories: give years, months or "
            "days since a date"
        )
    if kind in "fiu":
        return _finite(name, values.astype(np.float64))
    if kind == "b" or not _are_numbers(values):
        return _categories(values)
    return _finite(name, np.array([np.nan if _missing(v) else float(v) for v in values]))


def _are_numbers(values: Array) -> bool:
    """Whether objects are numbers, or missing."""
    numbers = (int, float, np.integer, np.floating)
    return values.dtype.kind == "O" and all(
        _missing(v) or (isinstance(v, numbers) and not isinstance(v, bool)) for v in values
    )


def _missing(value: Any) -> bool:
    """Whether a value is None, NaN or what pandas has for them."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA
        return True


def _categories(values: Array) -> Array:
    found = np.empty(len(values), object)
    found[:] = [None if _missing(v) else v.item() if hasattr(v, "item") else v for v in values]
    return found


def _finite(name: str, values: Array) -> Array:
    if np.isinf(values).any():
        raise DataError(
            f"X holds an infinite number in {name!r}; expected finite numbers, or NaN for missing ones"
        )
    return values


@dataclass
class Table:
    """Columns as a net gets them: numbers, one-hot codes, and codes 0 … k for embeddings."""

    numeric: Array  # float64 (n, columns), NaN where missing
    onehot: Array  # float64 (n, codes)
    codes: Array  # float64 (n, columns)

    def take(self, rows: Array) -> Table:
        """Some of the rows."""
        return Table(self.numeric[rows], self.onehot[rows], self.codes[rows])


@dataclass
class Columns:
    """What a fit has found of the columns of a table.

    embed: whether a column with more than MOST_ONE_HOT categories becomes a code. A column of two
    categories becomes ±1, or 0 where missing or unknown, one of more a column for each, with 0 everywhere
    where unknown. A column of numbers with missing ones has another with ±1 beside it.
    """

    embed: bool
    names: list[str] = field(default_factory=list)
    known: list[dict[Any, int] | None] = field(default_factory=list)  # None: numbers
    gaps: list[bool] = field(default_factory=list)  # whether numbers are missing
    widths: list[int] = field(default_factory=list)  # of one-hot groups
    categories: list[int] = field(default_factory=list)  # of columns with codes

    def fit(self, columns: list[Array], names: list[str], categorical: Any) -> Columns:
        """Find categories; categorical: names or numbers of columns, or None: those without numbers."""
        chosen = _chosen(categorical, names)
        self.names = names
        for i, column in enumerate(columns):
            if column.dtype == object or i in chosen:
                values = {_key(v) for v in column.tolist()} - {None}
                self.known.append({v: k for k, v in enumerate(sorted(values, key=_order))})
                self.gaps.append(False)
            else:
                self.known.append(None)
                self.gaps.append(bool(np.isnan(column).any()))
        for known, gap in zip(self.known, self.gaps, strict=True):
            if known is None:
                self.widths += [1] if gap else []
            elif self.embed and len(known) > MOST_ONE_HOT:
                self.categories.append(len(known))
            elif known:
                self.widths.append(1 if len(known) == 2 else len(known))
        return self

    def table(self, columns: list[Array]) -> Table:
        """The columns of the same table, or of another with such columns."""
        numeric, onehot, codes = list[Array](), list[Array](), list[Array]()
        for i, (column, known) in enumerate(zip(columns, self.known, strict=True)):
            if known is None:
                values = self.numbers(i, column)
                numeric.append(values)
                if self.gaps[i]:
                    onehot.append(np.where(np.isnan(values), 1.0, -1.0)[:, None])
                continue
            code = np.array([known.get(_key(v), -1) for v in column.tolist()], np.float64)
            if self.embed and len(known) > MOST_ONE_HOT:
                codes.append(code)
            elif len(known) == 2:
                onehot.append(np.where(code < 0, 0.0, 2.0 * code - 1.0)[:, None])
            elif known:
                onehot.append((code[:, None] == np.arange(len(known))).astype(np.float64))
        rows = len(columns[0])
        return Table(
            np.stack(numeric, 1) if numeric else np.zeros((rows, 0)),
            np.concatenate(onehot, 1) if onehot else np.zeros((rows, 0)),
            np.stack(codes, 1) if codes else np.zeros((rows, 0)),
        )

    def numbers(self, i: int, column: Array) -> Array:
        """A column in place of column i, of numbers, as float64; DataError where it holds others."""
        if column.dtype != object:
            return column
        if all(v is None for v in column):
            return np.full(len(column), np.nan)
        bad = next(v for v in column if v is not None)
        raise DataError(
            f"X holds {shown(bad)} in {self.names[i]!r}; expected numbers, as in the fit"
        )


def _key(value: Any) -> Any:
    """A value as a category; None where it is missing."""
    return None if _missing(value) else value


def _order(value: Any) -> tuple[str, Any]:
    """What sorts categories of one kind by value, and kinds by name."""
    kind = "number" if isinstance(value, (int, float)) else type(value).__name__
    return kind, value if isinstance(value, (int, float, str)) else str(value)


def _chosen(categorical: Any, names: list[str]) -> set[int]:
    """The numbers of the columns that a user calls categorical."""
    if categorical is None:
        return set()
    if isinstance(categorical, (str, bytes)) or not isinstance(categorical, Iterable):
        raise HyperparameterError(
            f"categorical_features is {shown(categorical)}; expected a list of names or numbers of columns"
        )
    found = set()
    for one in categorical:
        place = names.index(one) if isinstance(one, str) and one in names else one
        if isinstance(place, (bool, np.bool_)) or not isinstance(place, (int, np.integer)):
            raise HyperparameterError(
                f"categorical_features has {shown(one)}; expected a name or number of a column of X"
            )
        if not 0 <= place < len(names):
            raise HyperparameterError(
                f"categorical_features has {place}; X has {len(names)} columns, from 0 on"
            )
        found.add(int(place))
    return found
