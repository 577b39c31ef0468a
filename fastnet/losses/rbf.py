"""A loss of Gaussian functions of the errors."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from fastnet.formulas.language import Real, each, exp_below_0, where
from fastnet.losses.labels import check_columns
from fastnet.losses.pointwise import Pointwise, PointwiseLoss


class rbf(Pointwise):
    """l = u·e^(−beta·e²), u and beta one for each column; dl/dy = −2·beta·e·l."""

    columns = ("u", "beta")

    @each
    def value(y: Real, t: Real, u: Real, beta: Real) -> Real:
        """A Gaussian of the error, as the square of its root, which is never subnormal."""
        e = y - t
        h = exp_below_0(-0.5 * beta * e * e)
        return u * h * h

    @each
    def slope(y: Real, t: Real, u: Real, beta: Real) -> Real:
        """0 far away, where e may be infinite and 0·∞ would be NaN."""
        e = y - t
        h = exp_below_0(-0.5 * beta * e * e)
        return where(h == 0, 0 * h, -2 * beta * (e * (u * h)) * h)


class RBFLoss(PointwiseLoss):
    """L = (1/n)·Σ_rows Σ_j u_j·e^(−beta_j·(y_j − t_j)²) for outputs y and targets t, both (n, k).

    u: number or vector (k,) (default −1). Negative ones pull y towards t; far away nothing pulls.
    beta: number > 0 or vector (k,) of such (default 1).
    reduction: "mean" (default, over the rows), "sum" or "none" (each element's term).

    The gradient is −2·u_j·beta_j·(y_j − t_j)·e^(−beta_j·(y_j − t_j)²)/n.
    Accuracy (see Loss): 3e-5, because the exponent, up to 103, is rounded.
    Source: D. S. Broomhead, D. Lowe, "Multivariable functional interpolation and adaptive networks",
    Complex Systems 2, 1988, for the radial basis.
    """

    op = rbf
    by_rows: ClassVar[bool] = True

    def __init__(self, u: Any = -1.0, beta: Any = 1.0, reduction: str = "mean") -> None:
        wanted = "finite numbers{}, one or one for each column"
        super().__init__(
            reduction,
            u=check_columns("u", u, wanted.format(""), low=-math.inf),
            beta=check_columns("beta", beta, wanted.format(" above 0"), low=0, open_low=True),
        )
