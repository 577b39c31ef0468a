"""Losses that add up over elements, each a formula l(y, t) and its slope dl/dy.

    class absolute(Pointwise):
        @each
        def value(y: Real, t: Real) -> Real:
            return abs(y - t)

        @each
        def slope(y: Real, t: Real) -> Real:
            return sign(y - t)

Both take y, t, any further tensors with a number for each column, and then the op's numbers. Every backend
makes its kernels from them: `forward` sums rows in float64, `vjp` multiplies by the row's share. A third
formula `curve` of ẏ and some of these, d²l/dy²·ẏ, is derived unless it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import ShapeError
from fastnet.formulas.language import RowSlope, RowSum
from fastnet.layers.base import Shape
from fastnet.losses.base import Loss, numbers
from fastnet.losses.labels import constant
from fastnet.op import Array, Op


class Pointwise(Op):
    """Base of the ops row_loss = Σ_j l(y_j, t_j) / divisor, for y and t with any number of columns."""

    outputs: ClassVar = {"row_loss": "float64 B"}
    inputs: ClassVar = {"y": "B N", "t": "B N"}
    dims = ("N",)
    columns: ClassVar[tuple[str, ...]] = ()  # tensors with a number for each column
    value: ClassVar[Any]
    slope: ClassVar[Any]

    def __init_subclass__(cls) -> None:
        cls.inputs = {**Pointwise.inputs, **dict.fromkeys(cls.columns, "N")}
        cls.scalars = ("divisor", *cls.scalars)
        cls.forward = RowSum(cls.value.function)
        cls.vjp = RowSlope(cls.slope.function)
        super().__init_subclass__()

    forward: ClassVar[RowSum]
    vjp: ClassVar[RowSlope]

    @classmethod
    def written(cls, phase: str) -> tuple[str, ...]:
        """The outputs of a phase: a loss has no gradient for its targets."""
        return ("dy",) if phase == "vjp" else tuple(cls.outputs)


class PointwiseLoss(Loss, base=True):
    """Base of losses that are one Pointwise op; its numbers and columns are the loss's attributes."""

    targets = (-math.inf, math.inf)

    op: ClassVar[type[Pointwise]]
    by_rows: ClassVar[bool] = False  # whether the mean is over rows, not over elements

    def _op(self) -> type[Pointwise]:
        return self.op

    def _arguments(self) -> tuple[dict[str, Array], dict[str, float]]:
        """The op's columns and numbers."""
        op = self._op()
        columns = {name: getattr(self, name) for name in op.columns}
        return columns, {name: float(getattr(self, name)) for name in op.scalars[1:]}

    def target(self, y: Any, shape: Shape | None, name: str = "y") -> Array:
        """Targets as a float array (n, k) for an output shape (k,)."""
        array, kind = np.asarray(y), type(self).__name__
        shape = None if shape is None else self.target_shape(shape)
        given = numbers(array, name, kind)
        if shape is not None and (array.ndim < 2 or array.shape[1:] != shape):
            wanted = ", ".join(map(str, ("n", *shape)))
            raise ShapeError(
                f"{name} has shape {array.shape}; {kind} takes the output's shape ({wanted})"
            )
        if shape is not None:
            for column, value in self._arguments()[0].items():
                if value.shape not in (shape, (1,)):
                    raise ShapeError(
                        f"{column} has shape {value.shape}; expected a number for each of the "
                        f"output's {shape[0]} columns"
                    )
        return given

    def rows(self, g: Builder, output: Any, target: Any) -> tuple[Any, Any]:
        """Apply the op; it sums a row, or averages it where the mean is over elements."""
        shape = output.shape[1:]
        columns, scalars = self._arguments()
        constants: dict[str, Any] = {
            k: constant(np.broadcast_to(v, shape)) for k, v in columns.items()
        }
        sums = self.by_rows or self.reduction != "mean"
        divisor = 1.0 if sums else float(max(1, math.prod(shape)))
        given = {**constants, **scalars, "divisor": divisor}
        losses = g.apply(self._op(), y=output, t=target, **given)
        return losses, None

    def _each(self, output: Array, target: Array) -> tuple[Array, Callable[[Array], Array]]:
        op, (columns, scalars) = self._op(), self._arguments()
        given = output, target, *(v.astype(output.dtype) for v in columns.values())
        slope = op.slope(*given, *scalars.values())
        return op.value(*given, *scalars.values()), lambda d: d * slope
