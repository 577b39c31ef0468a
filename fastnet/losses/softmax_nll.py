"""Fused softmax and negative log-likelihood: classification with integer labels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastnet.op import Array, Op


def below_top(z: Array) -> tuple[Array, Array, Array]:
    """z − m with each row's maximum m, e^(z − m), and Σ e^(z − m) minus the 1 of one maximum."""
    shifted = z - z.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    others = powers.copy()
    others[np.arange(z.shape[0]), z.argmax(axis=1)] = 0
    return shifted, powers, others.sum(axis=1, keepdims=True)


class softmax_nll(Op):
    """loss = mean over rows of logΣ_c e^z_c − z_t, for logits z and labels t in [0, C).

    The op subtracts the row's maximum m: row_loss = log(1 + Σ' e^(z − m)) − (z_t − m), where Σ' leaves out
    one of the maxima, so that a small loss keeps its digits. dz = (p − onehot(t))/B, computed at the label
    as the sum of the other p.
    """

    outputs: ClassVar = {"loss": "float64 1", "row_loss": "float64 B", "p": "B C"}
    inputs: ClassVar = {"z": "B C", "t": "int64 B"}
    dims = ("C",)

    @staticmethod
    def forward(loss: Array, row_loss: Array, p: Array, z: Array, t: Array) -> None:
        """The loss, each row's loss, and the softmax p, which the gradient needs."""
        rows = np.arange(z.shape[0])
        shifted, powers, rest = below_top(z)
        np.divide(powers, 1 + rest, out=p)
        np.copyto(row_loss, np.log1p(rest[:, 0]) - shifted[rows, t])
        loss[0] = row_loss.mean()

    @staticmethod
    def vjp(dz: Array, p: Array, t: Array) -> None:
        """(p − onehot(t))/B."""
        rows = np.arange(p.shape[0])
        np.divide(p, rows.size, out=dz)
        dz[rows, t] = 0
        dz[rows, t] = -dz.sum(axis=1)
