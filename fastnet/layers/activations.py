"""Elementwise activations: y = f(x), dx = dy·f′(x), with f′ written in terms of y where that is possible.

At kinks the derivative is PyTorch's: relu′(0) = 0, leaky_relu′(0) = negative_slope.
"""

from __future__ import annotations

from typing import Any, ClassVar

from fastnet import formula
from fastnet.errors import check_real
from fastnet.formula import Real, each, where
from fastnet.layers.base import Builder, Layer
from fastnet.op import Op


class Elementwise(Op):
    """Base of the ops y = f(x) of one tensor of any width."""

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N"}
    dims = ("N",)
    inplace = True


class relu(Elementwise):
    """y = max(x, 0); dx = 0 where y ≤ 0, else dy. NaN stays NaN."""

    @each
    def forward(x: Real) -> Real:
        """The positive part."""
        return where(x <= 0, 0, x)

    @each
    def vjp(dy: Real, y: Real) -> Real:
        """The gradient passes where the output is positive, or NaN."""
        return where(y <= 0, 0, dy)


class leaky_relu(Elementwise):
    """y = x where x > 0, else slope·x; dx = dy or slope·dy."""

    scalars = ("slope",)

    @each
    def forward(x: Real, slope: float) -> Real:
        """The slope may have any sign, so that the sign of x is not that of y: x is kept."""
        return where(x > 0, x, slope * x)

    @each
    def vjp(dy: Real, x: Real, slope: float) -> Real:
        """The gradient, times the slope where x is not positive."""
        return where(x > 0, dy, slope * dy)


class sigmoid(Elementwise):
    """y = 1 / (1 + e^−x), computed from e^−|x| so that nothing overflows; dx = dy·y·(1 − y)."""

    @each
    def forward(x: Real) -> Real:
        """1 / (1 + e^−x) where x ≥ 0, e^x / (1 + e^x) elsewhere."""
        return formula.sigmoid(x)

    @each
    def vjp(dy: Real, y: Real) -> Real:
        """dy·y·(1 − y)."""
        return dy * (y * (1 - y))


class tanh(Elementwise):
    """y = tanh(x); dx = dy·(1 − y²)."""

    @each
    def forward(x: Real) -> Real:
        """The hyperbolic tangent."""
        return formula.tanh(x)

    @each
    def vjp(dy: Real, y: Real) -> Real:
        """dy·(1 − y²)."""
        return dy * (1 - y * y)


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
