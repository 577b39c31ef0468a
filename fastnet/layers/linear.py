"""The linear (dense, fully connected) layer."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import ShapeError, check_flag, check_int
from fastnet.init import FanInUniform, Initializer, KaimingUniform, check_init
from fastnet.layers.base import Layer, Shape
from fastnet.op import Array, Op, put, row_products, row_sums


class linear(Op):
    """y = x·w + b; dx = dy·wᵀ, dw = xᵀ·dy, db = Σ_rows dy."""

    outputs: ClassVar = {"y": "B O"}
    inputs: ClassVar = {"x": "B I", "w": "I O", "b": "O"}
    optional = ("b",)
    dims = ("I", "O")

    @staticmethod
    def forward(y: Array, x: Array, w: Array, b: Array) -> None:
        """y (B, O) = x (B, I) · w (I, O) + b (O)."""
        np.matmul(x, w, out=y)
        if b.size:
            np.add(y, b, out=y)

    @staticmethod
    def vjp(
        dx: Array, dw: Array, db: Array, dy: Array, x: Array, w: Array, accumulate: int
    ) -> None:
        """Gradients of the input (B, I), the weights (I, O) and the bias (O) for dy (B, O)."""
        if dx.size:
            np.matmul(dy, w.T, out=dx)
        if dw.size:
            put(dw, row_products(x, dy), accumulate)
        if db.size:
            put(db, row_sums(dy), accumulate)


class Linear(Layer):
    """y = x·Wᵀ + b with W (out_features, in_features), as PyTorch writes it.

    Stored as w = Wᵀ (in_features, out_features) in row-major order; `weight` is a view of it as W.

    in_features, out_features: integers ≥ 1.
    bias: bool (default True). False: no b (out_features).
    weight_init, bias_init: initialisers from fastnet.init (default PyTorch's, for both
        U(−1/√in_features, 1/√in_features)).

    x (rows, in_features) → y (rows, out_features); any other width raises ShapeError.
    Source: D. E. Rumelhart, G. E. Hinton, R. J. Williams, "Learning representations by back-propagating
    errors", Nature 323 (1986), equation 1; names, shapes and initial values are PyTorch's.
    """

    _weight_init: ClassVar[Initializer] = KaimingUniform(a=math.sqrt(5.0))
    _bias_init: ClassVar[Initializer] = FanInUniform()

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
    ) -> None:
        super().__init__(
            in_features=check_int("in_features", in_features, low=1),
            out_features=check_int("out_features", out_features, low=1),
            bias=check_flag("bias", bias),
            weight_init=check_init("weight_init", weight_init),
            bias_init=check_init("bias_init", bias_init, vector=True),
        )
        fans = {"fan_in": self.in_features, "fan_out": self.out_features}
        self._declare(
            "weight",
            (self.in_features, self.out_features),
            init=weight_init or self._weight_init,
            transposed=True,
            **fans,
        )
        if bias:
            self._declare("bias", (self.out_features,), init=bias_init or self._bias_init, **fans)
        else:
            self.__dict__["bias"] = None  # as in PyTorch; the configuration has False

    @property
    def in_width(self) -> int:
        """in_features."""
        return int(self.in_features)

    def output_shape(self, shape: Shape) -> Shape:
        """(in_features,) → (out_features,)."""
        config = self._config  # past the look-ups of attributes, of which a model makes many
        if shape != (config["in_features"],):
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came, expected in_features = {self.in_features}"
            )
        return (config["out_features"],)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `linear`."""
        w, b = self._parameters["weight"], self._parameters.get("bias")
        return g.apply(linear, x=x, w=w, b=b)
