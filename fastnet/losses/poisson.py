"""The Poisson loss of counts."""

from __future__ import annotations

import math
from typing import Any

from fastnet.errors import SMALLEST, DataError, check_flag, check_real
from fastnet.formulas import language
from fastnet.formulas.language import Real, each, exp, log, maximum, where
from fastnet.layers.base import Shape
from fastnet.losses import links
from fastnet.losses.pointwise import Pointwise, PointwiseLoss
from fastnet.op import Array

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class poisson(Pointwise):
    """l = y − t·ln(y + eps); dl/dy = 1 − t/(y + eps)."""

    scalars = ("eps",)

    @each
    def value(y: Real, t: Real, eps: float) -> Real:
        """For a rate y."""
        return y - t * log(y + eps)

    @each
    def slope(y: Real, t: Real, eps: float) -> Real:
        """0 where the rate is t."""
        return 1 - t / (y + eps)


@language.formula
def rate_less(y: Real, t: Real, c: Real) -> Real:
    """e^y − t·c; factors e^(y/2) out, as one term may overflow where the other is larger."""
    h = exp(0.5 * y)
    return where(y > 0, h * (h - t / h * c), h * h - t * c)


class log_poisson(Pointwise):
    """l = e^y − t·y; dl/dy = e^y − t."""

    @each
    def value(y: Real, t: Real) -> Real:
        """For the logarithm y of a rate."""
        return rate_less(y, t, y)

    @each
    def slope(y: Real, t: Real) -> Real:
        """0 where the rate is t."""
        return rate_less(y, t, 0 * t + 1)


@language.formula
def half_log(t: Real) -> Real:
    """½·ln(2πt), for t > 1; else 0."""
    return where(t > 1, 0.5 * log(maximum(t, 1)) + HALF_LOG_TWO_PI, 0 * t)


class full_poisson(Pointwise):
    """l = y − t·ln(y + eps) + ln t!, the last by Stirling's formula; dl/dy = 1 − t/(y + eps)."""

    scalars = ("eps",)

    @each
    def value(y: Real, t: Real, eps: float) -> Real:
        """For a rate y; multiplies t by a difference of logarithms, as these may cancel."""
        c = log(y + eps) - log(maximum(t, 1))
        return (y - where(t > 1, t, 0 * t)) - t * c + half_log(t)

    @each
    def slope(y: Real, t: Real, eps: float) -> Real:
        """0 where the rate is t."""
        return 1 - t / (y + eps)


class full_log_poisson(Pointwise):
    """l = e^y − t·y + ln t!, the last by Stirling's formula; dl/dy = e^y − t."""

    @each
    def value(y: Real, t: Real) -> Real:
        """For the logarithm y of a rate; multiplies t by one number c, as its parts may cancel."""
        c = where(t > 1, y - log(maximum(t, 1)) + 1, y)
        return rate_less(y, t, c) + half_log(t)

    @each
    def slope(y: Real, t: Real) -> Real:
        """0 where the rate is t."""
        return rate_less(y, t, 0 * t + 1)


class PoissonNLLLoss(PointwiseLoss):
    """L = (1/(n·k))·Σ (e^y − t·y), or with log_input=False Σ (y − t·ln(y + eps)); y and t are (n, k).

    For counts t ≥ 0 and a rate e^y, or y ≥ 0; without ln t!.
    log_input: bool (default True). True: y are logarithms of rates.
    full: bool (default False). True adds ln t! where t > 1, by Stirling's formula
        t·ln t − t + ½·ln(2πt).
    eps: number ≥ 1.2e-38 (default 1e-8). Used with log_input=False.
    reduction: "mean" (default), "sum" (not divided) or "none" (each element's loss).

    The gradient is e^y − t or 1 − t/(y + eps), divided by n·k.
    Accuracy (see Loss): 1e-6, where terms are e^y and t·|y|, or y and t·(1 + |ln(y + eps)|), and with full
        t·(1 + ln t).
    Source: P. McCullagh, J. A. Nelder, "Generalized linear models", 2nd edition, 1989, chapter 6.
    """

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        eps: float = 1e-8,
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            reduction,
            log_input=check_flag("log_input", log_input),
            full=check_flag("full", full),
            eps=check_real("eps", eps, low=SMALLEST),
        )

    @property
    def domain(self) -> tuple[float, float]:  # type: ignore[override]
        """Rates are ≥ 0; their logarithms are any numbers."""
        return (-math.inf if self.log_input else 0.0, math.inf)

    @property
    def link(self) -> str | None:  # type: ignore[override]
        """Outputs may be logarithms of rates."""
        return links.LOG if self.log_input else None

    def _op(self) -> type[Pointwise]:
        if self.log_input:
            return full_log_poisson if self.full else log_poisson
        return full_poisson if self.full else poisson

    targets = (0.0, math.inf)

    def target(self, y: Any, shape: Shape | None, name: str = "y") -> Array:
        """Counts (n, k), at least 0."""
        given = super().target(y, shape, name)
        if given.size and given.min() < 0:
            raise DataError(
                f"{name} holds {given.min()}; PoissonNLLLoss takes numbers of at least 0"
            )
        return given
