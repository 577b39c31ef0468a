"""From the losses of rows to the loss of a minibatch: weighted means and sums."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from fastnet.op import Array, Op

SUM, OWN_WEIGHTS, ROWS = range(
    3
)  # what a minibatch's loss is divided by: nothing, its weights, its rows


class weighted_loss(Op):
    """loss = Σ w·row_loss / total over B rows, in float64, by `mean` with total 1, Σ w·c or B.

    mean: 0 (SUM), 1 (OWN_WEIGHTS) or 2 (ROWS). w are the samples' weights, c what a row counts for by
    itself; absent ones are 1. scale is 1/total. Where the total is 0 there is nothing to average: loss and
    scale are 0, save that NaN stays NaN. An infinite loss of weight 0 adds 0. drow_loss = w·scale.
    """

    outputs: ClassVar = {"loss": "float64 1", "scale": "float64 1"}
    inputs: ClassVar = {"row_loss": "float64 B", "w": "B", "c": "B"}
    optional = ("w", "c")
    scalars = ("mean",)

    @staticmethod
    def forward(
        loss: Array, scale: Array, row_loss: Array, w: Array, c: Array, mean: float
    ) -> None:
        """The weighted sum, and what it is divided by."""
        one = np.ones(row_loss.size)
        weight = w.astype(np.float64) if w.size else one
        total = 1.0 if mean == SUM else float(row_loss.size)
        if mean == OWN_WEIGHTS:
            total = np.sum(weight * (c if c.size else one))
        scale[0] = 1 / total if total > 0 else 0
        summed = np.sum(weight * np.where((weight == 0) & np.isinf(row_loss), 0, row_loss))
        loss[0] = summed / total if total > 0 else summed if np.isnan(summed) else 0

    @staticmethod
    def vjp(drow_loss: Array, scale: Array, w: Array) -> None:
        """w·scale."""
        drow_loss[...] = w * scale[0] if w.size else scale[0]


LANES = 64  # sums that are taken side by side


def summed(values: Array) -> float:
    """Σ values, float64, in an order that depends on their number alone, whatever the machine.

    NumPy's sum of a vector has an order that depends on the instruction set; that over the rows of a
    matrix has not. 10⁶ terms are within 1e-11 of Σ|terms|.
    """
    whole = len(values) // LANES * LANES
    lanes = values[:whole].reshape(-1, LANES).sum(axis=0)
    try:
        return math.fsum([*lanes, *values[whole:]])
    except (OverflowError, ValueError):  # a sum beyond the largest number; ∞ − ∞
        return float(sum([*lanes, *values[whole:]]))
