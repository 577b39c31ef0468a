"""Gaussian negative log-likelihood, for predicted means and variances."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import SMALLEST, ShapeError, check_flag, check_real
from fastnet.formulas.language import Real, each, maximum
from fastnet.layers.base import Shape
from fastnet.losses.base import Loss, numbers
from fastnet.op import Array, Op


class gaussian_nll(Op):
    """row_loss = Σ_j (½(log s_j + e_j²/s_j) + offset)/divisor, e = t − μ, s = max(σ², eps).

    The first half of y's columns are the means μ, the second half the variances σ²; j runs over the
    columns of t. As in PyTorch, the gradient ignores the maximum.
    """

    outputs: ClassVar = {"row_loss": "float64 B"}
    inputs: ClassVar = {"y": "B N", "t": "B T"}
    dims = ("N", "T")
    scalars = ("eps", "offset", "divisor")

    @staticmethod
    def parts(y: Array, t: Array, eps: float) -> tuple[int, Array, Array]:
        """The number of means, the errors, and the variances, at least eps."""
        half = y.shape[1] // 2
        count = min(half, t.shape[1])
        return half, t[:, :count] - y[:, :count], np.maximum(y[:, half : half + count], eps)

    @staticmethod
    def forward(
        row_loss: Array, y: Array, t: Array, eps: float, offset: float, divisor: float
    ) -> None:
        """The losses of rows."""
        _, e, s = gaussian_nll.parts(y, t, eps)
        each = 0.5 * (np.log(s) + np.square(e / np.sqrt(s))) + offset
        row_loss[...] = np.sum(each, axis=1, dtype=np.float64) / divisor

    @staticmethod
    def vjp(dy: Array, drow_loss: Array, y: Array, t: Array, eps: float, divisor: float) -> None:
        """−e/s for a mean, ½(1/s − e²/s²) for a variance, as a product that does not overflow."""
        half, e, s = gaussian_nll.parts(y, t, eps)
        share = (drow_loss / divisor)[:, None].astype(y.dtype)
        dy.fill(0)
        ratio, root = e / s, 1 / np.sqrt(s)
        dy[:, : e.shape[1]] = -ratio * share
        dy[:, half : half + e.shape[1]] = 0.5 * (root - ratio) * (root + ratio) * share


class gaussian_curve(Op):
    """The tangents of −e/s and ½(1/s − e²/s²), the slopes of a term, along changes of mean and variance.

    They are (μ̇ + r·v̇)/s and (r·μ̇ + (r² − ½/s)·v̇)/s with r = e/s; as for the slopes, s = max(v, eps) counts
    as the variance v.
    """

    outputs: ClassVar = {"of_mean": "B T", "of_variance": "B T"}
    inputs: ClassVar = dict.fromkeys(("mean", "variance", "t", "tmean", "tvariance"), "B T")
    dims = ("T",)
    scalars = ("eps",)

    @each
    def forward(
        mean: Real, variance: Real, t: Real, tmean: Real, tvariance: Real, eps: float
    ) -> tuple[Real, Real]:
        """Both, of each element."""
        s = maximum(variance, eps)
        r = (t - mean) / s
        return (tmean + r * tvariance) / s, (r * tmean + (r * r - 0.5 / s) * tvariance) / s


class GaussianNLLLoss(Loss):
    """L = (1/(n·k))·Σ ½(log s + (t − μ)²/s), s = max(σ², eps), for targets t (n, k), outputs (n, 2k).

    The first k columns of the output are the means μ, the others the variances σ². The net must keep these
    positive, for example by a Softplus at its end if the targets are positive too. A variance below eps
    counts as eps and has the gradient at eps.
    full: bool (default False). True adds ½·log 2π to each term.
    eps: number ≥ 1.2e-38 (default 1e-6).
    reduction: "mean" (default, over all elements of t), "sum" or "none" (each element's term).
    Accuracy (see Loss): 1e-6.

    Source: D. A. Nix, A. S. Weigend, "Estimating the mean and variance of the target probability
    distribution", ICNN 1994, equation 3; PyTorch takes the variances as a separate argument.
    """

    def __init__(self, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(
            reduction,
            full=check_flag("full", full),
            eps=check_real("eps", eps, low=SMALLEST),
        )

    def target_shape(self, shape: Shape) -> Shape:
        """Half as many columns as the output."""
        if len(shape) != 1 or shape[0] % 2:
            raise ShapeError(
                f"GaussianNLLLoss takes outputs (n, 2k), means and variances; the model's are "
                f"(n, {', '.join(map(str, shape))})"
            )
        return (shape[0] // 2,)

    targets = (-math.inf, math.inf)

    def target(self, y: Any, shape: Shape | None, name: str = "y") -> Array:
        """Targets as a float array (n, k) for an output shape (2k,)."""
        array = numbers(np.asarray(y), name, type(self).__name__)
        if shape is not None and array.shape[1:] != self.target_shape(shape):
            raise ShapeError(
                f"{name} has shape {array.shape}; GaussianNLLLoss takes (n, {shape[0] // 2}), half "
                "as many columns as the output, which has means and variances"
            )
        return array

    def rows(self, g: Builder, output: Any, target: Any) -> tuple[Any, Any]:
        """Apply `gaussian_nll`."""
        divisor = output.shape[1] // 2 if self.reduction == "mean" else 1
        given = {"eps": self.eps, "offset": self._offset(), "divisor": float(max(1, divisor))}
        return g.apply(gaussian_nll, y=output, t=target, **given), None

    def _offset(self) -> float:
        return 0.5 * math.log(2 * math.pi) if self.full else 0.0

    def _each(self, output: Array, target: Array) -> tuple[Array, Callable[[Array], Array]]:
        _, e, s = gaussian_nll.parts(output, target, self.eps)
        ratio, root = e / s, 1 / np.sqrt(s)

        def backward(d: Array) -> Array:
            return np.concatenate([-ratio * d, 0.5 * (root - ratio) * (root + ratio) * d], axis=1)

        return 0.5 * (np.log(s) + np.square(e / np.sqrt(s))) + self._offset(), backward
