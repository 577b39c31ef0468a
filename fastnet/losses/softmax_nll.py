"""Softmax and negative log-likelihood in one: the loss of classification by integer labels."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.errors import DataError, ShapeError
from fastnet.layers.base import Builder, Shape
from fastnet.losses.base import Loss, accuracy
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


class CrossEntropyLoss(Loss):
    """L = (1/n)·Σ_rows (log Σ_c e^z_c − z_t): softmax and negative log-likelihood, fused and stable.

    Takes logits z (n, C) and integer labels t (n,) in [0, C) of any integer
    dtype; returns the mean over the rows, accumulated in float64. Its gradient is
    (softmax(z) − onehot(t))/n. Training with it reports accuracy.
    Source: J. S. Bridle, "Training stochastic model recognition algorithms as networks can lead to
    maximum mutual information estimation of parameters", NIPS 1989.
    """

    metrics: ClassVar = {"accuracy": accuracy}
    target_dtype = "int64"

    def target(self, y: Any, shape: Shape | None, name: str = "y") -> Array:
        """Labels as an int64 array (n,), each in [0, C) for an output shape (C,)."""
        labels = np.asarray(y)
        if labels.ndim != 1:
            raise ShapeError(
                f"{name} has shape {labels.shape}; CrossEntropyLoss takes integer labels of shape (n,)"
            )
        if labels.size and labels.dtype.kind not in "iu":
            raise DataError(
                f"{name} has dtype {labels.dtype}; CrossEntropyLoss takes integer labels: "
                "convert them with y.astype('int64')"
            )
        if shape is not None and labels.size:
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= shape[0]:
                raise DataError(
                    f"{name} holds labels from {low} to {high}; expected 0 to {shape[0] - 1}, "
                    f"as the model's output has {shape[0]} columns"
                )
        return labels.astype(np.int64, copy=False)

    def emit(self, g: Builder, output: Any, target: Any) -> Any:
        """One `softmax_nll`."""
        return g.apply(softmax_nll, z=output, t=target)
