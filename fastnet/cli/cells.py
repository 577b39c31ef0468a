"""Cells of tables: which texts are numbers, which are missing, and which columns are which."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.cli.reading import Data
from fastnet.errors import DataError, shown
from fastnet.op import Array
from fastnet.tabular.saved import PLAIN

# What stands for a missing value, in lower case: what R, pandas, SQL and UCI's files write.
MISSING = ("na", "n/a", "#n/a", "<na>", "nan", "null", "none", "?", "-")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# A group that begins with 0, as in 0,125, is a decimal of the other kind.
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
WITH_COMMA = re.compile(r"[+-]?\d+,\d+")
WITH_POINT = re.compile(r"[+-]?\d*\.\d+")
FEW = 0.05  # of a column's values, that are faults where the others are numbers
KEPT = (*PLAIN, np.number, np.bool_)  # kinds of categories
SWAPPED = str.maketrans(",.", ".,")


@dataclass(frozen=True)
class Cells:
    """How the cells of a file are read. decimal: "." or ","; missing: further texts for missing values."""

    decimal: str
    missing: frozenset[str]

    @classmethod
    def of(
        cls, data: Data, decimal: str | None, missing: Collection[str], known: str = ""
    ) -> Cells:
        """Those of a file.

        decimal: the mark; None: a comma where more numbers have it than a point. known: that of earlier
        files, which decides where each number may be read in both ways, as 1.250 can.
        """
        return cls(decimal or _decimal(data, known), frozenset(missing))

    def is_missing(self, cell: Any) -> bool:
        """Whether a cell is empty or says that it is missing."""
        if isinstance(cell, str) and cell.lower() in MISSING:
            return True
        return cell is None or _text(cell) in self.missing

    def number(self, cell: Any) -> float | None:
        """The finite number that a cell is, or None."""
        if isinstance(cell, str):
            text = cell.translate(SWAPPED) if self.decimal == "," else cell
            if GROUPED.fullmatch(text):
                text = text.replace(",", "")
            found = float(text) if NUMBER.fullmatch(text) else np.inf
        elif isinstance(cell, (int, float, np.integer, np.floating)) and not isinstance(cell, bool):
            found = float(cell)
        else:
            return None
        return found if np.isfinite(found) else None

    def numbers(self, column: Array) -> tuple[Array, Array]:
        """A column as float64, NaN where it is missing or no number, and where it is no number."""
        known = {cell: np.nan if self.is_missing(cell) else self.number(cell) for cell in {*column}}
        found = np.array([known[cell] for cell in column], object)
        bad = np.array([number is None for number in found], bool)
        found[bad] = np.nan
        return found.astype(np.float64), bad


def _decimal(data: Data, known: str) -> str:
    if not data.of_text or (data.separator == "," and len(data.columns) > 1):
        return "."
    texts = [cell for column in data.columns.values() for cell in {*column} if cell is not None]
    commas = [text for text in texts if WITH_COMMA.fullmatch(text)]
    points = [text for text in texts if WITH_POINT.fullmatch(text)]
    either = (text if "," in text else text.translate(SWAPPED) for text in (*commas, *points))
    if known and all(GROUPED.fullmatch(text) for text in either):
        return known
    return "," if len(commas) > len(points) else "."


def as_numbers(data: Data, name: str, cells: Cells, hint: str) -> Array:
    """A column of numbers, float64; DataError with the row of the first cell that is none.

    hint: the end of the message, what to do.
    """
    found, bad = cells.numbers(data.columns[name])
    if bad.any():
        raise DataError(_fault(data, name, bad, f"expected a number{hint}"))
    return found


def is_numeric(data: Data, name: str, cells: Cells) -> bool:
    """Whether a column is one of numbers; DataError where but a few of its cells are none."""
    found, bad = cells.numbers(data.columns[name])
    known = int(bad.sum() + np.isfinite(found).sum())
    if not bad.any():
        return bool(known)
    if data.of_text and bad.sum() <= FEW * known:
        told = _fault(
            data, name, bad, f"where {known - bad.sum()} of its {known} values are numbers"
        )
        raise DataError(
            f"{told}: correct it, or write --missing TEXT for what is missing there, or --category "
            f"{_quoted(name)}"
        )
    return False


def check_hashable(data: Data, name: str, *, target: bool = False) -> None:
    """Raise DataError where a column has lists, arrays or other values that cannot be compared."""
    bad = np.array([not isinstance(cell, Hashable) for cell in data.columns[name]], bool)
    if bad.any() and target:
        told = "which is no target; expected a number or a text in each row: name another --target"
        raise DataError(_fault(data, name, bad, told))
    if bad.any():
        raise DataError(_unkept(data, name, bad))


def check_kept(data: Data, name: str) -> None:
    """Raise DataError where a column has categories that no file keeps, such as dates."""
    column = data.columns[name]
    bad = np.array([not (cell is None or isinstance(cell, KEPT)) for cell in column], bool)
    if bad.any():
        raise DataError(_unkept(data, name, bad))


def _unkept(data: Data, name: str, bad: Array) -> str:
    told = _fault(data, name, bad, "which no model's file keeps as a category")
    return f"{told}; give it as numbers or text, or write --drop {_quoted(name)}"


def _fault(data: Data, name: str, bad: Array, rest: str) -> str:
    row = int(np.argmax(bad))
    cell, number = data.columns[name][row], data.rows[row]
    return f"{data.path}: column {shown(name)} has {shown(cell)} in row {number}, {rest}"


def _quoted(name: str) -> str:
    return f"'{name}'" if re.search(r"[^\w.-]", name) else name


def as_categories(data: Data, name: str, cells: Cells) -> Array:
    """A column of categories, objects; None where it is missing."""
    column = data.columns[name]
    known = {cell: None if cells.is_missing(cell) else cell for cell in {*column}}
    found = np.empty(len(column), object)
    found[:] = [known[cell] for cell in column]
    return found


def as_known(column: Array, known: Iterable[Any]) -> tuple[Array, Counter[Any]]:
    """A column in terms of the categories of a model, and what it lacks, with the number of rows.

    A text stands for the category that prints as it, such as "1" for 1 and "True" for True.
    """
    by_text: dict[str, Any] = {}
    for category in known:
        by_text.setdefault(_text(category), category)
    values = {cell: by_text.get(_text(cell), cell) for cell in {*column} if cell is not None}
    found = np.empty(len(column), object)
    found[:] = [None if cell is None else values[cell] for cell in column]
    there = {*by_text}
    lacking = {cell for cell in values if _text(cell) not in there}
    return found, Counter(cell for cell in column if cell in lacking)


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
