"""The L2 penalty of weight matrices as part of a loss, so that the loss that is reported contains it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.op import Array, Op, put


class l2_penalty(Op):
    """loss = data + ½·share·Σ w², with share = alpha/B for a minibatch of B rows; the sum in float64.

    dw = share·w. `row_loss`, the losses of the rows, is not used but for B.
    """

    outputs: ClassVar = {"loss": "float64 1", "share": "float64 1"}
    inputs: ClassVar = {"data": "float64 1", "row_loss": "float64 B", "w": "I O"}
    dims = ("I", "O")
    scalars = ("alpha",)
    adds_to = "data"

    @staticmethod
    def forward(
        loss: Array, share: Array, data: Array, row_loss: Array, w: Array, alpha: float
    ) -> None:
        """Add the penalty of one matrix."""
        share[0] = alpha / max(1, row_loss.size)
        loss[0] = data[0] + 0.5 * share[0] * np.square(w, dtype=np.float64).sum()

    @staticmethod
    def vjp(dw: Array, share: Array, w: Array, accumulate: int) -> None:
        """share·w."""
        put(dw, w * w.dtype.type(share[0]), accumulate)

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """A multiplication for each weight of a minibatch."""
        return sizes["I"] * sizes["O"] // max(1, rows)


def penalized(g: Builder, loss: Any, alpha: float) -> Any:
    """A loss of a model's graph, plus alpha/(2·B) times the squares of all its weight matrices.

    Outside a model's graph there are no weights, and the loss stays as it is.
    """
    node = g.source(loss)
    if node is None or alpha == 0:
        return loss
    row_loss = node.arguments["row_loss"]
    for w in g.matrices():
        loss = g.apply(l2_penalty, data=loss, row_loss=row_loss, w=w, alpha=alpha)
    return loss
