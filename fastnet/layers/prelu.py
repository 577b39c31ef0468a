"""PReLU: a rectifier with a trained negative slope."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import ShapeError, check_int, check_real
from fastnet.init import Constant
from fastnet.layers.base import Layer, Shape
from fastnet.op import Array, Op, put, row_sums


class prelu(Op):
    """y = x where x > 0, else a_j·x, where column j has the slope a_(j mod A).

    dx = dy or a_j·dy; da sums dy·min(x, 0) over the rows, and over the columns that share a slope.
    """

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N", "a": "A"}
    dims = ("N", "A")

    @staticmethod
    def forward(y: Array, x: Array, a: Array) -> None:
        """Each column has a slope."""
        np.copyto(y, np.where(x > 0, x, slopes(a, x) * x))

    @staticmethod
    def vjp(dx: Array, da: Array, dy: Array, x: Array, a: Array, accumulate: int) -> None:
        """The gradients of x and of the slopes."""
        if dx.size:
            np.copyto(dx, np.where(x > 0, dy, slopes(a, x) * dy))
        columns = row_sums(dy * np.where(x > 0, 0, x))
        none = np.zeros(-len(columns) % len(a), a.dtype)
        put(da, row_sums(np.concatenate([columns, none]).reshape(-1, len(a))), accumulate)


def slopes(a: Array, x: Array) -> Array:
    """The slope of each column of x."""
    return np.resize(a, x.shape[1])


class PReLU(Layer):
    """y = x where x > 0, else a·x, with trained slopes a; the derivative at 0 is a.

    num_parameters: integer ≥ 1 (default 1). 1: one slope; otherwise one for each feature of x (n,
        features).
    init: number (default 0.25). The initial slopes.
    The parameter is `weight` (num_parameters,), as in PyTorch. Weight decay would pull it towards ReLU;
    the paper uses none.
    Source: K. He et al., "Delving deep into rectifiers", ICCV 2015, equations 1 and 5.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        count, start = check_int("num_parameters", num_parameters, low=1), check_real("init", init)
        super().__init__(num_parameters=count, init=start)
        self._declare("weight", (count,), init=Constant(start))

    @property
    def in_width(self) -> int | None:
        """The number of features, where each has its own slope."""
        return self.num_parameters if self.num_parameters > 1 else None

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the input; ShapeError where it does not have one feature for each slope."""
        if len(shape) != 1 or self.num_parameters not in (1, shape[0]):
            wanted = "k" if self.num_parameters == 1 else self.num_parameters
            raise ShapeError(
                f"{self.label}: the input has shape (n, {', '.join(map(str, shape))}); "
                f"expected (n, {wanted})"
            )
        return shape

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `prelu`."""
        return g.apply(prelu, x=x, a=self._parameters["weight"])
