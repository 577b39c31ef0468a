"""Which columns of a table are inputs, of numbers or of categories, and what the target is."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet.cli.cells import (
    Cells,
    as_categories,
    as_numbers,
    check_hashable,
    check_kept,
    is_numeric,
)
from fastnet.cli.reading import Data, frame_of
from fastnet.data.labels import listed
from fastnet.errors import DataError
from fastnet.op import Array

MOST_CLASSES = 20  # different whole numbers that are taken for classes
MOST_TEXTS = 32  # different texts from which on a column may be free text
COUNTED = 20  # rows from which on a column may count them


@dataclass
class Inputs:
    """The inputs of a table: columns of numbers, columns of categories, and those that are left out."""

    numbers: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)  # each with the reason

    @property
    def names(self) -> list[str]:
        """The columns in the order of the net's inputs."""
        return self.numbers + self.categories

    def frame(self, data: Data, cells: Cells) -> Any:
        """The inputs of some rows as a frame."""
        columns = {name: as_numbers(data, name, cells, "") for name in self.numbers}
        columns |= {name: as_categories(data, name, cells) for name in self.categories}
        return frame_of(columns)


def check_names(data: Data, option: str, names: list[str]) -> None:
    """Raise DataError where an option names a column that is not there."""
    for name in names:
        if name not in data.columns:
            raise DataError(
                f"{data.path} has no column {name!r}, which {option} names; it has "
                f"{listed([*data.columns])}"
            )


def inputs_of(data: Data, cells: Cells, options: argparse.Namespace) -> Inputs:
    """The inputs for a net; DataError where there are none, or a column has a fault."""
    check_names(data, "--target", [options.target])
    check_names(data, "--category", options.category)
    check_names(data, "--drop", options.drop)
    check_names(data, "--keep", options.keep)
    found = Inputs()
    for name in data.columns:
        if name in options.drop:
            found.left[name] = "as asked for"
        elif name != options.target:
            check_hashable(data, name)
            numeric = name not in options.category and is_numeric(data, name, cells)
            reason = None if name in options.keep else _useless(data, name, cells, numeric)
            if reason:
                found.left[name] = reason
            elif numeric:
                found.numbers.append(name)
            else:
                check_kept(data, name)
                found.categories.append(name)
    if not found.names:
        raise DataError(
            f"{data.path} has no inputs beside the target; left out: {told(found.left)}"
        )
    return found


def told(left: dict[str, str]) -> str:
    """Columns with reasons, as text."""
    return "; ".join(f"{name} ({reason})" for name, reason in left.items()) or "none"


def _useless(data: Data, name: str, cells: Cells, numeric: bool) -> str | None:
    """Why a column tells nothing about other rows, or None."""
    if numeric:
        values, _ = cells.numbers(data.columns[name])
        known = values[np.isfinite(values)]
        beside = values - data.rows
        if len(values) >= COUNTED and (beside == beside[0]).all():
            return "counts the rows"
        different = len(np.unique(known))
    else:
        texts = [text for text in as_categories(data, name, cells) if text is not None]
        known, different = np.array(texts, object), len({*texts})
        if different > MOST_TEXTS and different > len(known) / 2:
            return f"{different} different texts"
    if not different:
        return "empty"
    if different == 1 and len(known) == len(data):
        return "a single value"
    return None


@dataclass(frozen=True)
class Target:
    """What is to be predicted: rows that have it, and its values, labels or float64."""

    task: str
    rows: Array
    values: Array


def target_of(data: Data, cells: Cells, options: argparse.Namespace) -> Target:
    """The target; DataError where it does not suit the task."""
    check_names(data, "--target", [options.target])
    check_hashable(data, options.target, target=True)
    name, column = options.target, data.columns[options.target]
    of_numbers = options.task == "regression" or is_numeric(data, name, cells)
    if of_numbers:
        values = as_numbers(
            data, name, cells, ", as --task regression asks for" if options.task else ""
        )
        there = np.isfinite(values)
        whole = bool((values[there] == np.floor(values[there])).all())
        different = len(np.unique(values[there]))
        of_classes = options.task == "classification" or (
            options.task is None and whole and different <= MOST_CLASSES
        )
        if of_classes and whole and np.abs(values[there]).max(initial=0) < 2**53:
            values = np.where(there, values, 0).astype(np.int64)
    else:  # here a text such as NA may well be a class
        there = np.array([not (v is None or v in cells.missing) for v in column], bool)
        values = np.where(there, column, "")
        kinds = {type(v) for v in values[there]}
        values = values.astype(bool) if kinds == {bool} else np.array([str(v) for v in values])
        of_classes = True
    task = "classification" if of_classes else "regression"
    rows, different = np.flatnonzero(there), len(np.unique(values[there]))
    if len(rows) < 2 or (of_classes and different < 2):
        raise DataError(
            f"{data.path}: the target {name!r} has {len(rows)} values, {different} different ones; "
            "expected at least two"
        )
    if of_classes and different > max(MOST_CLASSES, len(rows) // 4):
        raise DataError(
            f"{data.path}: the target {name!r} has {different} different values in {len(rows)} rows; for "
            "numbers write --task regression, and for a name or a date take another column"
        )
    return Target(task, rows, values[rows])
