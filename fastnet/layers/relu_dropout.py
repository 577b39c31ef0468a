"""ReLU and dropout as one op, which recognises kept elements by their positive outputs."""

from __future__ import annotations

import numpy as np

from fastnet.formulas.language import Real, each, where
from fastnet.layers.dropout import dropout
from fastnet.op import Array


class relu_dropout(dropout):
    """y = scale·max(x, 0) where the element's random word ≥ threshold, else 0; dx = scale·dy where y > 0.

    The result is bit for bit that of `relu` and then `dropout`, because scale ≥ 1 turns no positive number
    into 0. The vector-Jacobian product draws no words again and needs no max(x, 0).
    """

    @staticmethod
    def forward(
        y: Array, x: Array, threshold: float, scale: float, seed: int, step: int, stream: int
    ) -> None:
        """Take the positive part, then apply dropout. A kept NaN stays NaN."""
        dropout.forward(y, np.where(x <= 0, 0, x), threshold, scale, seed, step, stream)

    @each
    def vjp(dy: Real, y: Real, scale: float) -> Real:
        """The gradient passes where the output is positive, or NaN."""
        return where(y <= 0, 0, scale * dy)
