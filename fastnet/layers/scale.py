"""A trained factor, or a trained summand, for each feature."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import ShapeError, check_int
from fastnet.init import Constant, Zeros
from fastnet.layers.base import Layer, Shape
from fastnet.op import Array, Op, put, row_sums


class scale(Op):
    """y = x·w by columns; dx = dy·w, dw = Σ_rows dy·x."""

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N", "w": "N"}
    dims = ("N",)
    inplace = True

    @staticmethod
    def forward(y: Array, x: Array, w: Array) -> None:
        """Each column times its factor."""
        np.multiply(x, w, out=y)

    @staticmethod
    def vjp(dx: Array, dy: Array, dw: Array, x: Array, w: Array, accumulate: int) -> None:
        """The gradients of x and of the factors."""
        if dw.size:
            put(dw, row_sums(dy * x), accumulate)
        if dx.size:
            np.multiply(dy, w, out=dx)


class shift(Op):
    """y = x + b by columns; dx = dy, db = Σ_rows dy."""

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N", "b": "N"}
    dims = ("N",)
    inplace = True

    @staticmethod
    def forward(y: Array, x: Array, b: Array) -> None:
        """Each column plus its summand."""
        np.add(x, b, out=y)

    @staticmethod
    def vjp(dx: Array, dy: Array, db: Array, accumulate: int) -> None:
        """The gradients of x and of the summands."""
        if db.size:
            put(db, row_sums(dy), accumulate)
        if dx.size:
            np.copyto(dx, dy)


class affine(Op):
    """y = x·w + b by columns; dx = dy·w, dw = Σ_rows dy·x, db = Σ_rows dy."""

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N", "w": "N", "b": "N"}
    dims = ("N",)
    inplace = True

    @staticmethod
    def forward(y: Array, x: Array, w: Array, b: Array) -> None:
        """Each column times its factor, plus its summand."""
        np.add(x * w, b, out=y)

    @staticmethod
    def vjp(
        dx: Array, dy: Array, dw: Array, db: Array, x: Array, w: Array, accumulate: int
    ) -> None:
        """The gradients of x, of the factors and of the summands."""
        if dw.size:
            put(dw, row_sums(dy * x), accumulate)
        if db.size:
            put(db, row_sums(dy), accumulate)
        if dx.size:
            np.multiply(dy, w, out=dx)


class OfFeatures(Layer, base=True):
    """Base of layers of num_features features, whose rows have this width."""

    @property
    def in_width(self) -> int:
        """num_features."""
        return int(self.num_features)

    def output_shape(self, shape: Shape) -> Shape:
        """(num_features,) → (num_features,)."""
        if shape != (self.num_features,):
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came, expected num_features = {self.num_features}"
            )
        return shape


class Scale(OfFeatures):
    """y = x·weight for each feature, with trained factors.

    num_features: integer ≥ 1. The parameter is `weight` (num_features,), at first 1.

    x (rows, num_features) → y of the same shape; any other width raises ShapeError.
    Source: D. Holzmüller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and
    boosted trees on tabular data", NeurIPS 2024 (arXiv 2407.04491), section 3: a scaling layer of inputs,
    with which the net selects features softly.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features=check_int("num_features", num_features, low=1))
        self._declare("weight", (self.num_features,), init=Constant(1.0))

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `scale`."""
        return g.apply(scale, x=x, w=self._parameters["weight"])


class Bias(OfFeatures):
    """y = x + bias for each feature, with trained summands.

    num_features: integer ≥ 1. The parameter is `bias` (num_features,), at first 0.

    x (rows, num_features) → y of the same shape; any other width raises ShapeError.
    Source: elementary.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features=check_int("num_features", num_features, low=1))
        self._declare("bias", (self.num_features,), init=Zeros())

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `shift`."""
        return g.apply(shift, x=x, b=self._parameters["bias"])
