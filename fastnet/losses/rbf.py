"""A loss of Gaussians of the errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet import arrays
from fastnet.errors import HyperparameterError
from fastnet.formula import Real, each, exp, maximum, minimum
from fastnet.losses.pointwise import Pointwise, PointwiseLoss

FARTHEST = 3e38  # finite in float32, too


class rbf(Pointwise):
    """l = u·e^(−beta·e²), u and beta one for each column; dl/dy = −2·beta·e·l."""

    columns = ("u", "beta")

    @each
    def value(y: Real, t: Real, u: Real, beta: Real) -> Real:
        """A Gaussian of the error."""
        e = y - t
        return u * exp(-beta * e * e)

    @each
    def slope(y: Real, t: Real, u: Real, beta: Real) -> Real:
        """It vanishes far away, where e may be infinite, and 0·∞ is not 0."""
        e = minimum(maximum(y - t, -FARTHEST), FARTHEST)
        return -2 * beta * (e * (u * exp(-beta * e * e)))


class RBFLoss(PointwiseLoss):
    """L = (1/n)·Σ_rows Σ_j u_j·e^(−beta_j·(y_j − t_j)²) for outputs y and targets t, both (n, k).

    u: a number or a vector (k,), −1 by default: negative ones draw y towards t, and what is far away has
        no pull. beta > 0: a number or a vector (k,), 1 by default.
    reduction: "mean" (over the rows), "sum" or "none" (each element's term).

    The gradient is −2·u_j·beta_j·(y_j − t_j)·e^(−beta_j·(y_j − t_j)²)/n.
    Source: D. S. Broomhead, D. Lowe, "Multivariable functional interpolation and adaptive networks",
    Complex Systems 2, 1988, for the radial basis.
    """

    op = rbf
    by_rows = True

    def __init__(self, u: Any = -1.0, beta: Any = 1.0, reduction: str = "mean") -> None:
        given = {}
        for name, value, low in (("u", u, -math.inf), ("beta", beta, 0.0)):
            array = arrays.as_array(name, value)
            good = array.ndim < 2 and array.size and array.dtype.kind in "fiu"
            if not (good and np.isfinite(array).all() and array.min() > low):
                above = "" if name == "u" else " above 0"
                raise HyperparameterError(
                    f"{name} is {value!r}; expected finite numbers{above}, one or one for each column"
                )
            given[name] = np.atleast_1d(array.astype(np.float64))
        super().__init__(reduction, **given)
