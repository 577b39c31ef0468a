"""Some columns of the input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import HyperparameterError, ShapeError, check_int, shown
from fastnet.layers.base import Layer, Shape
from fastnet.op import Array, Op
from fastnet.parameter import Derived


class take_columns(Op):
    """y_m = x_c with c = places_m; dx_c = Σ dy_m over the m with places_m = c."""

    outputs: ClassVar = {"y": "B M"}
    inputs: ClassVar = {"x": "B N", "places": "int64 M"}
    dims = ("M", "N")

    @staticmethod
    def forward(y: Array, x: Array, places: Array) -> None:
        """A copy of these columns."""
        np.take(x, places, axis=1, out=y)

    @staticmethod
    def vjp(dx: Array, dy: Array, places: Array) -> None:
        """Others have the gradient 0."""
        dx[...] = 0
        for m, column in enumerate(places):
            dx[:, column] += dy[:, m]

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """A copy of a row."""
        return sizes["M"]


class Columns(Layer):
    """y = x[:, columns]: some columns of the input, in any order.

    columns: a list of integers ≥ 0, at least one; a column may stand there several times.

    In a Concat it gives each branch columns of its own:
    `Concat(Sequential(Columns([0, 1]), Periodic(2, 8)), Columns([2]))`. Columns that are left out have the
    gradient 0.
    x (rows, features) → y (rows, len(columns)). Raises ShapeError where a column is missing.
    Source: elementary.
    """

    def __init__(self, columns: Any) -> None:
        kinds = list, tuple, range, np.ndarray
        if not isinstance(columns, kinds) or getattr(columns, "ndim", 1) != 1 or not len(columns):
            raise HyperparameterError(
                f"columns is {shown(columns)}; expected a list of columns, at least one"
            )
        super().__init__(
            columns=[check_int(f"columns[{i}]", c, high=2**31 - 1) for i, c in enumerate(columns)]
        )

    def width_before(self, width: int) -> int | None:
        """Not known."""
        return None

    def output_shape(self, shape: Shape) -> Shape:
        """(features,) → (len(columns),)."""
        if len(shape) != 1 or shape[0] <= max(self.columns):
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came; expected at least {max(self.columns) + 1} "
                f"features, as columns has {max(self.columns)}"
            )
        return (len(self.columns),)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `take_columns`."""
        table = np.array(self.columns, np.int64)
        places = Derived(table.shape, lambda: table, "int64", constant=True)
        return g.apply(take_columns, x=x, places=places)
