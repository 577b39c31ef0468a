"""States as files keep them: nested names and numbers in JSON, arrays beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet.errors import FileError, UsageError, shown
from fastnet.op import Array

# An object with one of these names stands for what JSON lacks.
ARRAY, FLOAT = "$array", "$float"
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def split(what: str, value: Any, arrays: dict[str, Array]) -> Any:
    """The value with JSON's types alone; its arrays go to `arrays`, named by their place in it.

    what: the value's name. Takes None, bools, numbers, strings, NumPy's arrays and numbers, and lists,
    tuples (which become lists) and mappings by strings of these. Raises UsageError for anything else.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {FLOAT: str(value)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        if what in arrays:
            raise UsageError(f"two arrays have the name {what!r}; expected other names")
        arrays[what] = value
        return {ARRAY: what}
    if isinstance(value, (list, tuple)):
        return [split(f"{what}/{i}", item, arrays) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str) or name[:1] == "$":
                raise UsageError(f"{what} has the name {shown(name)}; expected strings without '$'")
        return {name: split(f"{what}/{name}", item, arrays) for name, item in value.items()}
    raise UsageError(
        f"{what} is {shown(value)}, which no file can keep; expected numbers, strings, arrays, or lists "
        "and dicts of these"
    )


def join(value: Any, arrays: Mapping[str, Array]) -> Any:
    """The value that `split` got; FileError where an array is missing."""
    if isinstance(value, list):
        return [join(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {ARRAY}:
        name = value[ARRAY]
        if not isinstance(name, str) or name not in arrays:
            raise FileError(f"the array {shown(name)} is missing in the file")
        return arrays[name]
    if value.keys() == {FLOAT}:
        if value[FLOAT] not in tuple(_FLOATS):
            raise FileError(f"{shown(value[FLOAT])} stands for no number")
        return _FLOATS[value[FLOAT]]
    return {name: join(item, arrays) for name, item in value.items()}
