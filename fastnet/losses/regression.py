"""Losses of regression: functions of the error e = y − t of each element."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from fastnet.builder import Builder
from fastnet.errors import SMALLEST, HyperparameterError, check_real, shown
from fastnet.formulas import language
from fastnet.formulas.language import (
    Real,
    each,
    expm1,
    log1p,
    log1p_exp,
    maximum,
    minimum,
    sign,
    tanh,
    where,
)
from fastnet.layers.base import Shape
from fastnet.losses.labels import check_columns
from fastnet.losses.mse import mse
from fastnet.losses.pointwise import Pointwise, PointwiseLoss

LN_2 = math.log(2.0)


class squared_error(Pointwise):
    """l = e²; dl/dy = 2e."""

    @each
    def value(y: Real, t: Real) -> Real:
        """The square."""
        e = y - t
        return e * e

    @each
    def slope(y: Real, t: Real) -> Real:
        """Twice the error."""
        return 2 * (y - t)


class half_squared_error(Pointwise):
    """l = e²/2; dl/dy = e."""

    @each
    def value(y: Real, t: Real) -> Real:
        """Half the square."""
        e = y - t
        return 0.5 * e * e

    @each
    def slope(y: Real, t: Real) -> Real:
        """The error."""
        return y - t


class absolute_error(Pointwise):
    """l = |e|; dl/dy = sign(e)."""

    @each
    def value(y: Real, t: Real) -> Real:
        """The absolute error."""
        return abs(y - t)

    @each
    def slope(y: Real, t: Real) -> Real:
        """0 where y is t."""
        return sign(y - t)


class huber(Pointwise):
    """l = e²/2 where |e| ≤ delta, else delta·(|e| − delta/2); dl/dy = min(max(e, −delta), delta)."""

    scalars = ("delta",)

    @each
    def value(y: Real, t: Real, delta: float) -> Real:
        """A parabola between two lines."""
        a = abs(y - t)
        m = minimum(a, delta)
        return m * (a - 0.5 * m)

    @each
    def slope(y: Real, t: Real, delta: float) -> Real:
        """The error, clipped."""
        return minimum(maximum(y - t, -delta), delta)

    @each
    def curve(ty: Real, y: Real, t: Real, delta: float) -> Real:
        """Between the lines; where they begin, it is 0."""
        return where(abs(y - t) < delta, ty, 0)


class smooth_l1(Pointwise):
    """l = e²/(2·width) where |e| < width, else |e| − width/2; dl/dy = e/width or sign(e)."""

    scalars = ("width",)

    @each
    def value(y: Real, t: Real, width: float) -> Real:
        """A parabola between two lines of slope 1."""
        a = abs(y - t)
        m = minimum(a, width)
        return m / width * (a - 0.5 * m)

    @each
    def slope(y: Real, t: Real, width: float) -> Real:
        """The error, scaled and clipped."""
        return minimum(maximum((y - t) / width, -1), 1)

    @each
    def curve(ty: Real, y: Real, t: Real, width: float) -> Real:
        """Between the lines; where they begin, it is 0."""
        return where(abs((y - t) / width) < 1, ty / width, 0)


class log_cosh(Pointwise):
    """l = ln cosh e; dl/dy = tanh e."""

    @each
    def value(y: Real, t: Real) -> Real:
        """With a = |e|: ln(1 + (1 − e^−a)²/(2e^−a)) below a = 1, else a + ln(1 + e^−2a) − ln 2."""
        a = abs(y - t)
        m = expm1(-minimum(a, 1))
        return where(a < 1, log1p(0.5 * m * m / (1 + m)), a + log1p_exp(-2 * a) - LN_2)

    @each
    def slope(y: Real, t: Real) -> Real:
        """The hyperbolic tangent."""
        return tanh(y - t)

    @each
    def curve(ty: Real, y: Real, t: Real) -> Real:
        """ẏ·(1 − tanh²e), without the difference, which cancels."""
        e = 2 * (y - t)
        return 4 * language.sigmoid(e) * language.sigmoid(-e) * ty


class pinball(Pointwise):
    """l = max(q·(t − y), (q − 1)·(t − y)), q for each column; dl/dy = −q below t, 1 − q above it."""

    columns = ("q",)

    @each
    def value(y: Real, t: Real, q: Real) -> Real:
        """Of two terms, one of which is at most 0."""
        e = t - y
        return maximum(q * e, (q - 1) * e)

    @each
    def slope(y: Real, t: Real, q: Real) -> Real:
        """0 where y = t; NaN where one of both is."""
        e = y - t
        return where(e > 0, 1 - q, where(e < 0, -q, 0 * e))


class MSELoss(PointwiseLoss):
    """L = (1/(n·k))·Σ (y − t)² over all elements of y and t, both (n, k).

    reduction: "mean" (default), "sum" (not divided) or "none" (each element's square).
    Shapes never broadcast; only targets (n,) count as (n, 1). The gradient is 2(y − t)/(n·k).
    Accuracy (see Loss): 1e-6.
    Source: A.-M. Legendre's least squares (1805), with PyTorch's mean over all elements.
    """

    op = squared_error

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def emit(
        self, g: Builder, output: Any, target: Any, weight: Any = None, *, by_rows: bool = False
    ) -> Any:
        """Apply `mse` for a plain mean, else the ops of the base class."""
        if weight is not None or self.reduction != "mean":
            return super().emit(g, output, target, weight, by_rows=by_rows)
        return g.apply(mse, y=output, t=target)

    def square_factor(self, shape: Shape) -> float | None:
        """1/k for a mean, else 1."""
        return 1.0 / max(1, math.prod(shape)) if self.reduction == "mean" else 1.0


class HalfMSELoss(PointwiseLoss):
    """L = (1/n)·Σ_rows ½‖y − t‖², the squared error of textbooks; y and t are (n, k).

    The mean is over rows: k/2 times MSELoss. The gradient is (y − t)/n.
    reduction: "mean" (default), "sum" (not divided) or "none" (½(y − t)² of each element).
    Accuracy (see Loss): 1e-6.
    Source: C. M. Bishop, "Neural networks for pattern recognition", Oxford 1995, section 6.1.
    """

    op = half_squared_error
    by_rows: ClassVar[bool] = True

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def square_factor(self, shape: Shape) -> float | None:
        """One half."""
        return 0.5


class L1Loss(PointwiseLoss):
    """L = (1/(n·k))·Σ |y − t| over all elements of y and t, both (n, k).

    The gradient is sign(y − t)/(n·k), 0 where y = t.
    reduction: "mean" (default), "sum" (not divided) or "none" (each element's absolute error).
    Accuracy (see Loss): 1e-6.
    Source: P.-S. Laplace's least absolute deviations (1774), with PyTorch's mean.
    """

    op = absolute_error

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)


class PinballLoss(PointwiseLoss):
    """L = (1/(n·k))·Σ max(q·(t − y), (q − 1)·(t − y)) over all elements of y and t, both (n, k).

    Where it is least, y is the q-quantile of t. The gradient is −q/(n·k) where y < t, (1 − q)/(n·k) where
    y > t, and 0 where they are equal.
    quantile: q, a number in (0, 1) or a vector (k,) of such (default 0.5, half of L1Loss).
    reduction: "mean" (default), "sum" (not divided) or "none" (each element's loss).
    Accuracy (see Loss): 1e-6.
    Source: R. Koenker, G. Bassett, "Regression quantiles", Econometrica 46, 1978.
    """

    op = pinball

    def __init__(self, quantile: Any = 0.5, reduction: str = "mean") -> None:
        wanted = "numbers in (0, 1), one or one for each column"
        given = check_columns("quantile", quantile, wanted, low=0, open_low=True)
        if not given.max() < 1:
            raise HyperparameterError(f"quantile is {shown(quantile)}; expected {wanted}")
        super().__init__(reduction, quantile=given)

    @property
    def q(self) -> Any:
        """The op's name for the quantile."""
        return self.quantile


class HuberLoss(PointwiseLoss):
    """L = (1/(n·k))·Σ h(y − t) with h(e) = e²/2 where |e| ≤ delta, else delta·(|e| − delta/2).

    y and t are (n, k). The gradient is min(max(y − t, −delta), delta)/(n·k).
    delta: number ≥ 1.2e-38 (default 1).
    reduction: "mean" (default), "sum" (not divided) or "none" (each h).
    Accuracy (see Loss): 1e-6.
    Source: P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics
    35, 1964.
    """

    op = huber

    def __init__(self, delta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction, delta=check_real("delta", delta, low=SMALLEST))


class SmoothL1Loss(PointwiseLoss):
    """L = (1/(n·k))·Σ s(y − t) with s(e) = e²/(2·beta) where |e| < beta, else |e| − beta/2.

    y and t are (n, k). It is HuberLoss(beta)/beta, and L1Loss if beta is 0.
    beta: number ≥ 0 (default 1). Below 1.2e-38, float32's smallest normal number, it counts as 0.
    reduction: "mean" (default), "sum" (not divided) or "none" (each s).
    Accuracy (see Loss): 1e-6.
    Source: R. Girshick, "Fast R-CNN", ICCV 2015, section 2.3.
    """

    def __init__(self, beta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction, beta=check_real("beta", beta, low=0))

    @property
    def width(self) -> float:
        """The op's name for beta."""
        width: float = self.beta
        return width

    def _op(self) -> type[Pointwise]:
        return smooth_l1 if self.beta >= SMALLEST else absolute_error


class LogCoshLoss(PointwiseLoss):
    """L = (1/(n·k))·Σ ln cosh(y − t) over all elements of y and t, both (n, k).

    About e²/2 for small errors e, |e| − ln 2 for large ones. The gradient is tanh(y − t)/(n·k).
    reduction: "mean" (default), "sum" (not divided) or "none" (each element's loss).
    Accuracy (see Loss): 1e-6.
    Source: R. Neuneier, H. G. Zimmermann, "How to train neural networks", in Neural Networks: Tricks of
    the Trade, 1998.
    """

    op = log_cosh

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)
