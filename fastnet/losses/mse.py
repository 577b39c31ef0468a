"""The mean squared error as one op."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastnet.op import Array, Op


class mse(Op):
    """loss = mean over all elements of (y − t)²; row_loss is each row's mean; dy = 2(y − t)/(B·N)."""

    outputs: ClassVar = {"loss": "float64 1", "row_loss": "float64 B"}
    inputs: ClassVar = {"y": "B N", "t": "B N"}
    dims = ("N",)

    @staticmethod
    def forward(loss: Array, row_loss: Array, y: Array, t: Array) -> None:
        """Squares in the model's dtype, summed in float64."""
        error = y - t
        np.mean(error * error, axis=1, dtype=np.float64, out=row_loss)
        loss[0] = row_loss.mean()

    @staticmethod
    def vjp(dy: Array, y: Array, t: Array) -> None:
        """2(y − t)/(B·N)."""
        np.multiply(y - t, 2.0 / y.size, out=dy)
