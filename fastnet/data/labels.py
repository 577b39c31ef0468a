"""Labels in the user's terms: which classes there are, and the number of each label's class."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.data import arrays
from fastnet.data.frames import only_column
from fastnet.errors import DataError, HyperparameterError, shown
from fastnet.op import Array

Label = bool | int | str
Classes = tuple[Label, ...]

WANTED = "strings, booleans or integers alone"
MOST_NAMED = 8  # labels or columns in a message


def read(name: str, value: Any) -> Array:
    """Labels as an array of bools, integers or strings; anything else as it is, for the loss to judge.

    Strings come as objects. A frame with one column is that column.
    """
    value = only_column(value)
    array = arrays.as_array(name, value)
    if not (array.ndim and array.size):
        return array
    if array.dtype.kind in "UT":
        # NumPy makes a string of everything that stands beside one in a list.
        of = value if isinstance(value, (list, tuple)) else array
        array = np.array(of, object)
    return _of_objects(name, array) if array.dtype.kind == "O" else array


def _of_objects(name: str, array: Array) -> Array:
    values = array.reshape(-1).tolist()
    kinds = {kind: _kind(kind) for kind in set(map(type, values))}
    if None in kinds.values() or float in kinds.values():
        for row, value in enumerate(values):
            kind = kinds[type(value)]
            if kind is None or (kind is float and value != value):
                raise DataError(
                    f"{name} holds {shown(value)} in row {row}, a missing label; fill it or leave its "
                    "row out"
                )
    found = set(kinds.values())
    if len(found) > 1 or not found <= {bool, int, str}:
        types = ", ".join(sorted({kind.__name__ for kind in kinds}))
        raise DataError(f"{name} holds labels of the types {types}; expected {WANTED}")
    if found == {str}:
        return array
    try:
        return array.astype(np.bool_ if found == {bool} else np.int64)
    except OverflowError:
        raise DataError(f"{name} holds integers beyond 64 bits; expected labels within") from None


def _kind(given: type) -> type | None:
    """The kind of label that values of a type are; None: missing ones."""
    if given.__name__ in ("NoneType", "NAType", "NaTType"):
        return None
    if issubclass(given, (str, float)):
        return str if issubclass(given, str) else float
    if issubclass(given, (bool, np.bool_)):
        return bool
    return int if issubclass(given, (int, np.integer)) else given


def are_labels(array: Array, *, column: bool) -> bool:
    """Whether an array has the form of labels (n,), or with `column` also (n, 1)."""
    shape = array.shape[1:]
    return (
        array.dtype.kind in "biuO"
        and array.ndim > 0
        and (shape == () or (column and shape == (1,)))
    )


def are_numbers(classes: Classes) -> bool:
    """Whether each class is the number of its place, as False and True are."""
    return type(classes[0]) is bool or classes == tuple(range(len(classes)))


def classes_in(
    name: str, array: Array, count: int, ignored: int | None, *, learn: bool = True
) -> Classes | None:
    """The `count` classes of labels, sorted; None for integers of which no `count` classes can be made.

    ignored: the label of rows that have no class, or None. learn: False, if only the numbers from 0 on are
    known before a fit.
    """
    if array.dtype.kind == "b":
        return (False, True) if count == 2 else tuple(range(count))
    if array.dtype.kind == "O":
        named = sorted(set(map(str, array.reshape(-1).tolist())))
        if not learn:
            raise DataError(
                f"{name} holds the label {shown(named[0])}, and the model has no classes yet; fit it "
                f"first, or number the classes from 0 to {count - 1}"
            )
        if len(named) != count:
            raise DataError(
                f"{name} holds {len(named)} different labels, {listed(named)}; expected {count}, as many "
                "as the model's output tells apart"
            )
        return _checked(name, named, ignored)
    if not array.size or (array.min() >= 0 and array.max() < count):
        return tuple(range(count))
    kept = array if ignored is None else array[array != ignored]
    if not kept.size or (kept.min() >= 0 and kept.max() < count):
        return tuple(range(count))
    found: list[Any] = np.unique(kept).tolist()
    if len(found) != count or not learn:
        return None
    if found[-1] >= 2**63:
        raise DataError(f"{name} holds the label {found[-1]}; expected integers below 2**63")
    return _checked(name, found, ignored)


def _checked(name: str, found: list[Any], ignored: int | None) -> Classes:
    if ignored is not None and 0 <= ignored < len(found):
        raise HyperparameterError(
            f"ignore_index is {ignored} and {name} holds the labels {listed(found)}, which are numbered "
            f"from 0 to {len(found) - 1}; expected a negative ignore_index"
        )
    return tuple(found)


def numbers_of(name: str, array: Array, classes: Classes, ignored: int | None) -> Array:
    """The number of each label's class, int64; `ignored` stays as it is. DataError for other labels."""
    if array.dtype.kind == "O" or type(classes[0]) is str:
        table: dict[Any, int] = {}
        if array.dtype.kind == "O" and type(classes[0]) is str:
            table = {label: number for number, label in enumerate(classes)}
        values = array.reshape(-1).tolist()
        try:
            found = np.fromiter(map(table.__getitem__, values), np.int64, len(values))
        except KeyError as error:
            raise _unknown(name, values, error.args[0], classes) from None
        return found.reshape(array.shape)
    known = np.array(classes, np.int64)
    place = np.searchsorted(known, array.astype(np.int64)).clip(max=len(known) - 1)
    wrong = known[place] != array
    if ignored is not None:
        left_out = array == ignored
        place[left_out] = ignored
        wrong &= ~left_out
    if array.dtype.kind == "b" and array.size:
        wrong[...] = True
    if wrong.any():
        label = array.reshape(-1)[int(wrong.argmax())].item()
        raise _unknown(name, array.reshape(-1).tolist(), label, classes)
    return place


def _unknown(name: str, values: list[Any], label: Any, classes: Classes) -> DataError:
    return DataError(
        f"{name} holds the label {shown(label)} in row {values.index(label)}; the model's classes are "
        f"{listed(classes)}"
    )


def listed(values: Any) -> str:
    """Labels or names of columns for a message."""
    named = ", ".join(map(shown, list(values)[:MOST_NAMED]))
    return named if len(values) <= MOST_NAMED else f"{named}, … ({len(values)} in all)"


def as_classes(classes: Classes) -> Array:
    """Classes as an array: of strings, bools or int64."""
    found = np.array(classes)
    # NumPy's strings drop characters \0 at their ends.
    return found if tuple(found.tolist()) == classes else np.array(classes, object)
