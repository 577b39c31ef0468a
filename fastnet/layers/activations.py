"""Elementwise activations: y = f(x), dx = dy·f′(x), with f′ written in terms of y where that is possible.

At kinks the derivative is PyTorch's: relu′(0) = 0, leaky_relu′(0) = negative_slope.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.errors import check_real
from fastnet.layers.base import Builder, Layer
from fastnet.op import Array, Op


class Elementwise(Op):
    """Base of the ops y = f(x) of one tensor of any width."""

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N"}
    dims = ("N",)
    inplace = True


class relu(Elementwise):
    """y = max(x, 0); dx = 0 where y ≤ 0, else dy. NaN stays NaN."""

    @staticmethod
    def forward(y: Array, x: Array) -> None:
        """The positive part."""
        np.maximum(x, 0, out=y)

    @staticmethod
    def vjp(dx: Array, dy: Array, y: Array) -> None:
        """The gradient passes where the output is positive, or NaN."""
        np.copyto(dx, np.where(y <= 0, 0, dy))


class leaky_relu(Elementwise):
    """y = x where x > 0, else slope·x; dx = dy or slope·dy."""

    scalars = ("slope",)

    @staticmethod
    def forward(y: Array, x: Array, slope: float) -> None:
        """The slope may have any sign, so that the sign of x is not that of y: x is kept."""
        np.copyto(y, np.where(x > 0, x, slope * x))

    @staticmethod
    def vjp(dx: Array, dy: Array, x: Array, slope: float) -> None:
        """The gradient, times the slope where x is not positive."""
        np.copyto(dx, np.where(x > 0, dy, slope * dy))


class sigmoid(Elementwise):
    """y = 1 / (1 + e^−x), computed from e^−|x| so that nothing overflows; dx = dy·y·(1 − y)."""

    @staticmethod
    def forward(y: Array, x: Array) -> None:
        """1 / (1 + e^−x) where x ≥ 0, e^x / (1 + e^x) elsewhere."""
        e = np.exp(-np.abs(x))
        np.divide(np.where(x >= 0, 1, e), 1 + e, out=y)

    @staticmethod
    def vjp(dx: Array, dy: Array, y: Array) -> None:
        """dy·y·(1 − y)."""
        np.multiply(dy, y * (1 - y), out=dx)


class tanh(Elementwise):
    """y = tanh(x); dx = dy·(1 − y²)."""

    @staticmethod
    def forward(y: Array, x: Array) -> None:
        """The hyperbolic tangent."""
        np.tanh(x, out=y)

    @staticmethod
    def vjp(dx: Array, dy: Array, y: Array) -> None:
        """dy·(1 − y²)."""
        np.multiply(dy, 1 - y * y, out=dx)


class ReLU(Layer):
    """y = max(x, 0), elementwise; the derivative at 0 is 0. NaN stays NaN."""

    def emit(self, g: Builder, x: Any) -> Any:
        """One `relu`."""
        return g.apply(relu, x=x)


class LeakyReLU(Layer):
    """y = x where x > 0, else negative_slope·x; the derivative at 0 is negative_slope.

    negative_slope: any finite number, 0.01 by default.
    Source: A. L. Maas, A. Y. Hannun, A. Y. Ng, "Rectifier nonlinearities improve neural network
    acoustic models", ICML workshop 2013.
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__(negative_slope=check_real("negative_slope", negative_slope))

    def emit(self, g: Builder, x: Any) -> Any:
        """One `leaky_relu`."""
        return g.apply(leaky_relu, x=x, slope=self.negative_slope)


class Sigmoid(Layer):
    """y = 1 / (1 + e^−x), elementwise; never overflows."""

    def emit(self, g: Builder, x: Any) -> Any:
        """One `sigmoid`."""
        return g.apply(sigmoid, x=x)


class Tanh(Layer):
    """y = tanh(x), elementwise."""

    def emit(self, g: Builder, x: Any) -> Any:
        """One `tanh`."""
        return g.apply(tanh, x=x)
