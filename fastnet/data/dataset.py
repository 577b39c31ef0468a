"""Dataset: checked inputs, targets and weights, as steps read them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np

from fastnet.data import arrays
from fastnet.data.lazy import LazyRows
from fastnet.op import Array


class HostLoss(Protocol):
    """A loss that Python computes within a step."""

    @property
    def name(self) -> str:
        """The loss's name in error messages."""

    def call(self, output: Array, target: Array, weight: Array | None) -> tuple[float, Array]:
        """The loss for these rows, and its gradient with respect to the output."""


@dataclass(eq=False, repr=False)
class Dataset:
    """Inputs x, targets y and weights w by rows, with what a loss needs to know of them.

    host: the loss, if Python computes it. explain: a function that says why the loss of outputs and
    targets is not finite, or None where it cannot.
    """

    x: Array | LazyRows
    y: Array
    classes: int = 0  # > 0: y are labels in [0, classes)
    ignored: int = 0  # the label of ignored rows
    w: Array | None = None  # the samples' weights, in the model's dtype
    by_rows: bool = False  # a minibatch's mean divides by its rows, not by its weights
    host: HostLoss | None = None
    threshold: float | None = (
        None  # of the decisions that steps are to record; None: they record none
    )
    outputs: bool = False  # whether steps record the model's outputs
    explain: Callable[[Array, Array], str | None] | None = None
    weight_mean: float = 1.0  # by which the weights have been divided, counts of rows included

    @classmethod
    def checked(
        cls,
        loss: Any,
        x: Array | LazyRows,
        y: Any,
        sample_weight: Any,
        *,
        output_shape: tuple[int, ...],
        dtype: np.dtype[Any],
        names: tuple[str, str],
        by_rows: bool = False,
        weight_mean: float | None = None,
        rows: Array | None = None,
    ) -> Self:
        """A data set for a loss of outputs with rows of a shape; inputs must be checked already.

        by_rows: divide the weights by `weight_mean` (None: by their mean over these rows), so that a
        minibatch's mean is one over its rows. names: the names of x and y in error messages. rows: those
        that will be used; weights are theirs alone, and those of others are 0 (None: all).
        """
        x_name, y_name = names
        y = loss.column(arrays.as_array(y_name, y), output_shape)
        y = loss.target(y, output_shape, y_name)
        arrays.check_lengths(x_name, x, y_name, y)
        labels = y.ndim == 1 and y.dtype == np.int64
        if not (labels or loss.on_host):  # a Python function may accept NaN
            arrays.check_finite(y_name, y, dtype, loss.takes_minus_infinity)
        used = y if rows is None else y[rows]
        if rows is not None and sample_weight is not None:
            sample_weight = arrays.weights("sample_weight", sample_weight, len(y), dtype)[rows]
        w = given = loss.weights(used, sample_weight, dtype)
        divided = 1.0
        if by_rows := by_rows and loss.reduction != "sum":
            scaled = loss.scaled_weights(used, w, weight_mean)
            w = None if scaled is None else scaled.astype(dtype)
            by_rows = w is not None  # without weights both means are equal
            divided = _quotient(given, scaled)
        if rows is not None and w is not None:
            of_used, w = w, np.zeros(len(y), dtype)
            w[rows] = of_used
        classes, ignored = (output_shape[0], loss.ignore_index or 0) if labels else (0, 0)
        y = np.require(y, requirements=["C", "A"])
        host = loss if loss.on_host else None
        explain = loss.explain
        return cls(x, y, classes, ignored, w, by_rows, host, explain=explain, weight_mean=divided)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.x)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of a row of x."""
        return tuple(self.x.shape[1:])

    @property
    def width(self) -> int:
        """The number of values in a row of x."""
        return math.prod(self.row_shape)

    def take(self, index: Array) -> tuple[Array | LazyRows, Array, Array | None]:
        """These rows of x, y and w."""
        return self.x[index], self.y[index], None if self.w is None else self.w[index]

    def layout(self) -> tuple[float, int, int]:
        """How to read x: its scale, and the addresses of begins and columns (see LazyRows)."""
        if not isinstance(self.x, LazyRows):
            return 0.0, 0, 0
        parts = self.x.begins, self.x.columns
        begins, columns = (0 if a is None else int(a.ctypes.data) for a in parts)
        return self.x.scale, begins, columns

    def room(self, count: int) -> Self:
        """A data set of the same kind with room for so many rows, whose x is an array (see `make`)."""
        dtype = self.x.dtype
        x, y = (
            np.empty((count, *self.row_shape), dtype),
            np.zeros_like(self.y, shape=(count, *self.y.shape[1:])),
        )
        return replace(
            self, x=x, y=y, w=None if self.w is None else np.empty_like(self.w, shape=count)
        )

    def make(self, rows: Array, room: Dataset) -> None:
        """Make these rows, the first of the room."""
        x, y, w = self.take(rows)
        np.copyto(np.asarray(room.x)[: len(rows)], x)
        room.y[: len(rows)] = y
        if w is not None and room.w is not None:
            room.w[: len(rows)] = w

    def source(self, name: str) -> tuple[int, np.dtype[Any] | None]:
        """Address and dtype of "x", "y" or "w" for native code; (0, None) for a missing one."""
        array: Array | LazyRows | None = getattr(self, name)
        if isinstance(array, LazyRows):
            array = array.array
        return (0, None) if array is None else (int(array.ctypes.data), array.dtype)


def _quotient(given: Array | None, scaled: Array | None) -> float:
    """The number by which weights have been divided; given: None, if all were 1."""
    if scaled is None or not len(scaled) or not scaled.max() > 0:
        return 1.0
    at = int(scaled.argmax())
    return (1.0 if given is None else float(given[at])) / float(scaled[at])
