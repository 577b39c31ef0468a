"""Softmax and negative log-likelihood in one: the loss of classification by integer labels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastnet.op import Array, Op


class softmax_nll(Op):
    """loss = mean over rows of logΣ_c e^z_c − z_t, for logits z and labels t in [0, C).

    Shifted by the row's maximum m: row_loss = log Σ e^(z − m) − (z_t − m). dz = (p − onehot(t))/B.
    """

    outputs: ClassVar = {"loss": "float64 1", "row_loss": "float64 B", "p": "B C"}
    inputs: ClassVar = {"z": "B C", "t": "int64 B"}
    dims = ("C",)

    @staticmethod
    def forward(loss: Array, row_loss: Array, p: Array, z: Array, t: Array) -> None:
        """The loss, each row's, and the softmax p, which the gradient needs."""
        rows = np.arange(z.shape[0])
        shifted = z - z.max(axis=1, keepdims=True)
        np.exp(shifted, out=p)
        total = p.sum(axis=1, keepdims=True)
        np.divide(p, total, out=p)
        np.copyto(row_loss, np.log(total[:, 0]) - shifted[rows, t])
        loss[0] = row_loss.mean()

    @staticmethod
    def vjp(dz: Array, p: Array, t: Array) -> None:
        """(p − onehot(t))/B."""
        rows = p.shape[0]
        np.divide(p, rows, out=dz)
        dz[np.arange(rows), t] -= 1.0 / rows
