"""Scaled: inputs times a factor, which is applied where they are read."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from fastnet.data import arrays, sparse
from fastnet.data.lazy import LazyRows
from fastnet.errors import Attributed, DataError, HyperparameterError, check_real
from fastnet.op import Array


class Scaled(Attributed):
    """Inputs X times a number, such as `Scaled(images, 1 / 255)` for images of uint8.

    X: inputs (n, ...) of any real dtype, or a sparse matrix. They are not copied.
    scale: finite number > 0.

    Stands for X wherever inputs are expected: in `fit`, `evaluate`, `predict`, validation data. Each
    minibatch is converted to the model's dtype and then multiplied by `scale`, which is rounded to that
    dtype: to the bit as X.astype("float32") * np.float32(scale) for a model of float32.
    """

    X: Any
    scale: float

    def __init__(self, X: Any, scale: float) -> None:
        self.X, self.scale = X, _checked(scale)

    def __repr__(self) -> str:
        return f"Scaled(a {type(self.X).__name__}, {self.scale!r})"


class ScaledRows(LazyRows):
    """The rows of an array, times a factor."""

    def __getitem__(self, index: Any) -> Self:
        part = self.array[index]
        return type(self)(part, part.shape, self.dtype, self.scale)

    def numbers(self) -> Array:
        """The numbers of all rows, a new array."""
        return self.scaled(self.array)


def rows_of(name: str, value: Any, shape: tuple[int, ...] | None, dtype: Any) -> LazyRows | None:
    """Checked rows of inputs that are scaled or sparse; None for others, such as arrays.

    shape: expected shape of a row (None: any number of features). dtype: the model's.
    """
    if type(value) is np.ndarray:
        return None
    if isinstance(value, LazyRows):
        arrays.check_rows(name, value.shape, shape)
        return value
    if not isinstance(value, Scaled):
        return sparse.checked(name, value, shape, dtype)
    if isinstance(value.X, (LazyRows, Scaled)):
        raise DataError(
            f"{name} is a Scaled of a {type(value.X).__name__}; expected one of an array"
        )
    rows: LazyRows | None = sparse.checked(name, value.X, shape, dtype)
    if rows is None:
        array = arrays.features(name, value.X, shape, dtype)
        rows = ScaledRows(array, array.shape, dtype, 0.0)
    rows.scale = _checked(value.scale)  # it may have been assigned
    _check_scale(name, rows)
    return rows


def _checked(scale: Any) -> float:
    return check_real("scale", scale, low=0.0, open_low=True)


def _check_scale(name: str, rows: LazyRows) -> None:
    """Raise where a factor becomes 0 or infinite in the dtype, or makes a number infinite."""
    limits, array = np.finfo(rows.dtype), rows.array
    if not float(limits.smallest_normal) <= rows.scale <= float(limits.max):
        raise HyperparameterError(
            f"the scale of {name} is {rows.scale}; expected a normal number of {rows.dtype}"
        )
    most = 255.0
    if array.dtype.kind == "f" and array.size:
        most = max(abs(float(array.min())), abs(float(array.max())))
    if most * rows.scale > float(limits.max):
        raise DataError(
            f"{name} holds {most}, which times the scale {rows.scale} is too large for {rows.dtype}"
        )
