"""Batch normalisation of features: batch statistics in training, running statistics in evaluation."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.builder import SYNCED, Builder
from fastnet.errors import SMALLEST, check_flag, check_int, check_real
from fastnet.init import Constant, Zeros
from fastnet.layers.scale import OfFeatures
from fastnet.layers.synced_batchnorm import Norm, synced_batchnorm
from fastnet.op import Array, Op, put, row_sums


class batchnorm(Op):
    """Training: x̂ = (x − mean)·rstd over the rows, y = gamma·x̂ + beta.

    rstd = 1/√(var + eps) with the biased variance (two passes); the running variance uses the unbiased
    one. The op computes both from x − x₀, where x₀ is the first row: a constant feature becomes exactly
    beta, and a feature far from 0 loses no digits. dx = gamma·rstd·(dy − mean(dy) − x̂·mean(dy·x̂)).

    Running statistics may be absent. momentum < 0: they become means over all minibatches so far.
    """

    outputs: ClassVar = {"y": "B N", "shift": "N", "rstd": "N"}  # shift: mean − x₀
    state: ClassVar = {"running_mean": "N", "running_var": "N", "batches": "int64 1"}
    inputs: ClassVar = {"x": "B N", "gamma": "N", "beta": "N"}
    optional = ("gamma", "beta", "running_mean", "running_var", "batches")
    dims = ("N",)
    scalars = ("eps", "momentum")

    @staticmethod
    def forward(
        y: Array,
        shift: Array,
        rstd: Array,
        running_mean: Array,
        running_var: Array,
        batches: Array,
        x: Array,
        gamma: Array,
        beta: Array,
        eps: float,
        momentum: float,
    ) -> None:
        """Normalise by the minibatch's statistics and move the running ones towards them."""
        rows = x.shape[0]
        from_first = x - x[0]
        np.divide(row_sums(from_first), rows, out=shift)
        centred = from_first - shift
        variance = row_sums(centred * centred) / rows
        np.divide(1, np.sqrt(variance + eps), out=rstd)
        np.multiply(centred, rstd, out=y)
        if gamma.size:
            np.add(y * gamma, beta, out=y)
        if running_mean.size:
            rate = momentum if momentum >= 0 else 1 / (batches[0] + 1)
            running_mean += rate * (x[0] + shift - running_mean)
            running_var += rate * (variance * (rows / (rows - 1)) - running_var)
            batches += 1

    @staticmethod
    def vjp(
        dx: Array,
        dgamma: Array,
        dbeta: Array,
        dy: Array,
        shift: Array,
        rstd: Array,
        x: Array,
        gamma: Array,
        accumulate: int,
    ) -> None:
        """The two means of dy come from mean and variance, which depend on every row."""
        xhat = (x - x[0] - shift) * rstd
        sum_dy, sum_dy_xhat = row_sums(dy), row_sums(dy * xhat)
        if dx.size:
            rows = x.shape[0]
            scale = gamma * rstd if gamma.size else rstd
            np.multiply(scale, dy - sum_dy / rows - xhat * (sum_dy_xhat / rows), out=dx)
        put(dgamma, sum_dy_xhat, accumulate)
        put(dbeta, sum_dy, accumulate)


class batchnorm_inference(Op):
    """Evaluation: y = gamma·(x − running_mean)/√(running_var + eps) + beta, each row by itself."""

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {
        "x": "B N",
        "gamma": "N",
        "beta": "N",
        "running_mean": "N",
        "running_var": "N",
    }
    optional = ("gamma", "beta")
    dims = ("N",)
    scalars = ("eps",)

    @staticmethod
    def forward(
        y: Array,
        x: Array,
        gamma: Array,
        beta: Array,
        running_mean: Array,
        running_var: Array,
        eps: float,
    ) -> None:
        """An affine map of each feature."""
        np.multiply(x - running_mean, 1 / np.sqrt(running_var + eps), out=y)
        if gamma.size:
            np.add(y * gamma, beta, out=y)

    @staticmethod
    def vjp(
        dx: Array,
        dgamma: Array,
        dbeta: Array,
        dy: Array,
        x: Array,
        gamma: Array,
        running_mean: Array,
        running_var: Array,
        eps: float,
        accumulate: int,
    ) -> None:
        """The running statistics are constants."""
        rstd = 1 / np.sqrt(running_var + eps)
        put(dgamma, row_sums(dy * ((x - running_mean) * rstd)), accumulate)
        put(dbeta, row_sums(dy), accumulate)
        if dx.size:
            np.multiply(dy, gamma * rstd if gamma.size else rstd, out=dx)


class BatchNorm1d(OfFeatures):
    """y = weight·(x − μ)/√(σ² + eps) + bias for each feature, with PyTorch's conventions.

    Training: μ and σ² are the minibatch's mean and biased variance. Then running_mean ←
    (1 − momentum)·running_mean + momentum·μ, running_var likewise with the unbiased variance, and
    num_batches_tracked grows by 1. A minibatch needs two rows. Evaluation: μ and σ² are running_mean and
    running_var.

    num_features: integer ≥ 1.
    eps: number ≥ 1.2e-38, float32's smallest normal number (default 1e-5).
    momentum: number in [0, 1] (default 0.1). The weight of the new statistics (Keras: 1 minus this). None:
        1/num_batches_tracked, so that the running statistics are means over all minibatches.
    affine: bool (default True). False: no weight (initially 1) and no bias (initially 0).
    track_running_stats: bool (default True). False: no running statistics. In evaluation, too, μ and σ² are
        those of the rows that come together, and a single row is refused. Then **rows depend on one
        another in predictions**: `predict` and `evaluate` take all rows at once, in one block, and refuse a
        batch_size that would divide them.

    Source: S. Ioffe, C. Szegedy, "Batch normalization", ICML 2015, which also has the running variance
    unbiased and the normalising one biased.
    """

    min_training_rows = 2

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(
            num_features=check_int("num_features", num_features, low=1),
            eps=check_real("eps", eps, low=SMALLEST),
            momentum=None
            if momentum is None
            else check_real("momentum", momentum, low=0.0, high=1.0),
            affine=check_flag("affine", affine),
            track_running_stats=check_flag("track_running_stats", track_running_stats),
        )
        shape = (self.num_features,)
        if self.affine:
            self._declare("weight", shape, init=Constant(1.0))
            self._declare("bias", shape, init=Zeros())
        if self.track_running_stats:
            self._declare("running_mean", shape, init=Zeros(), buffer=True)
            self._declare("running_var", shape, init=Constant(1.0), buffer=True, low=0.0)
            self._declare("num_batches_tracked", (1,), init=Zeros(), buffer=True, dtype="int64")

    @property
    def joins_rows(self) -> bool:
        """Whether it has no running statistics."""
        return not self.track_running_stats

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `batchnorm` in training, `batchnorm_inference` in evaluation by running statistics."""
        p = self._parameters
        common = {
            "x": x,
            "gamma": p.get("weight"),
            "beta": p.get("bias"),
            "running_mean": p.get("running_mean"),
            "running_var": p.get("running_var"),
            "eps": self.eps,
        }
        if self.track_running_stats and not g.training:
            return g.apply(batchnorm_inference, **common)
        momentum = -1.0 if self.momentum is None else self.momentum
        if g.training == SYNCED:
            del common["eps"]
            norm = Norm(self.eps, momentum)
            batches = p.get("num_batches_tracked")
            return g.apply(synced_batchnorm, **common, batches=batches, norm=norm)
        return g.apply(batchnorm, **common, batches=p.get("num_batches_tracked"), momentum=momentum)
