"""Dropout behind a rectifier as one op: where the output is positive, the element was kept."""

from __future__ import annotations

import numpy as np

from fastnet.formulas.language import Real, each, where
from fastnet.layers.dropout import dropout
from fastnet.op import Array


class relu_dropout(dropout):
    """y = scale·max(x, 0) where the element's random word ≥ threshold, else 0; dx = scale·dy where y > 0.

    The bits are those of `relu` and `dropout` one after the other: scale ≥ 1 lets no positive number
    vanish. The vector-Jacobian product draws no words again, and max(x, 0) is not kept for it.
    """

    @staticmethod
    def forward(
        y: Array, x: Array, threshold: float, scale: float, seed: int, step: int, stream: int
    ) -> None:
        """Take the positive part, then keep and scale, or zero. NaN that is kept stays NaN."""
        dropout.forward(y, np.where(x <= 0, 0, x), threshold, scale, seed, step, stream)

    @each
    def vjp(dy: Real, y: Real, scale: float) -> Real:
        """The gradient passes where the output is positive, or NaN."""
        return where(y <= 0, 0, scale * dy)
