"""Penalties and bounds on parameters, which any optimizer can add to a step as passes of their own."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastnet.formulas.language import Real, each, maximum, sign
from fastnet.op import Array, Op
from fastnet.optim.gradients import SCALE


class l1_gradient(Op):
    """penalized = g + l1·sign(w): the rule takes it as its gradient g."""

    state: ClassVar = {"penalized": "N"}
    inputs: ClassVar = {"w": "N", "g": "N"}
    dims = ("N",)
    hyper = ("l1",)

    @each
    def update(w: Real, g: Real, l1: float) -> Real:
        """The subgradient of l1·|w|, which is 0 at 0."""
        return g + l1 * sign(w)


class soft_threshold(Op):
    """w ← sign(w)·max(|w| − cut, 0): the proximal step of cut·|w|."""

    state: ClassVar = {"w": "N"}
    dims = ("N",)
    hyper = ("cut",)

    @each
    def update(w: Real, cut: float) -> Real:
        """Weights smaller than the cut become exactly 0."""
        return sign(w) * maximum(abs(w) - cut, 0)


class scale_units(Op):
    """Scale each column of w that is longer than max_norm to that length; sums in float64.

    An infinite max_norm changes nothing.
    """

    state: ClassVar = {"w": "I O"}
    dims = ("I", "O")
    hyper = ("max_norm",)

    @staticmethod
    def update(w: Array, max_norm: float) -> None:
        """A column holds the weights of one unit."""
        norms = np.sqrt(np.square(w, dtype=np.float64).sum(axis=0))
        if not np.isfinite(norms).all():
            norms = np.sqrt(np.square(SCALE * w.astype(np.float64)).sum(axis=0)) / SCALE
        w *= np.divide(max_norm, norms, out=np.ones_like(norms), where=norms > max_norm)
