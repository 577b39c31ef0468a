"""Losses of probabilities: of Bernoulli outputs, and of one distribution against another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet.errors import check_flag
from fastnet.formulas import language
from fastnet.formulas.language import (
    Real,
    each,
    exp,
    log,
    log1p,
    log1p_exp,
    maximum,
    minimum,
    where,
)
from fastnet.layers.base import Shape
from fastnet.losses import links
from fastnet.losses.base import probabilities
from fastnet.losses.labels import check_columns
from fastnet.losses.metrics import Metric, binary_accuracy
from fastnet.losses.pointwise import Pointwise, PointwiseLoss
from fastnet.op import Array

LEAST = float(np.float32(1e-12))  # PyTorch's bound, in float32


class bce_with_logits(Pointwise):
    """l = (1 − t)·max(y, 0) + t·max(−y, 0) + ln(1 + e^−|y|); dl/dy = sigmoid(y) − t."""

    @each
    def value(y: Real, t: Real) -> Real:
        """−t·ln p − (1 − t)·ln(1 − p) with p = sigmoid(y), in terms ≥ 0, so that none cancel."""
        return (1 - t) * maximum(y, 0) + t * maximum(-y, 0) + log1p_exp(-abs(y))

    @each
    def slope(y: Real, t: Real) -> Real:
        """Probability minus target, computed from 1 − probability where that is small."""
        q = language.sigmoid(-abs(y))
        return where(y < 0, q - t, (1 - t) - q)

    @each
    def curve(ty: Real, y: Real) -> Real:
        """p·(1 − p)·ẏ; the kinks of the slope's terms at 0 cancel."""
        return language.sigmoid(y) * language.sigmoid(-y) * ty


class weighted_bce_with_logits(Pointwise):
    """l = (1 − t)·ln(1 + e^y) + u·t·ln(1 + e^−y), u for each column.

    dl/dy = (1 − t)·sigmoid(y) − u·t·sigmoid(−y).
    """

    columns = ("u",)

    @each
    def value(y: Real, t: Real, u: Real) -> Real:
        """−u·t·ln p − (1 − t)·ln(1 − p), in terms ≥ 0, so that none cancel."""
        small = log1p_exp(-abs(y))
        return (1 - t) * (maximum(y, 0) + small) + u * t * (maximum(-y, 0) + small)

    @each
    def slope(y: Real, t: Real, u: Real) -> Real:
        """The false part pushes y down; the true part, times u, pushes it up."""
        return (1 - t) * language.sigmoid(y) - u * t * language.sigmoid(-y)

    @each
    def curve(ty: Real, y: Real, t: Real, u: Real) -> Real:
        """Of both parts p·(1 − p), without a difference."""
        return ((1 - t) + u * t) * (language.sigmoid(y) * language.sigmoid(-y)) * ty


class bce(Pointwise):
    """l = −t·max(ln y, −100) − (1 − t)·max(ln(1 − y), −100); dl/dy = (y − t)/max(y·(1 − y), 1e-12)."""

    @each
    def value(y: Real, t: Real) -> Real:
        """Finite at y = 0 and y = 1."""
        return -t * maximum(log(y), -100) - (1 - t) * maximum(log1p(-y), -100)

    @each
    def slope(y: Real, t: Real) -> Real:
        """Finite at y = 0 and y = 1."""
        return (y - t) / maximum(y * (1 - y), LEAST)

    @each
    def curve(ty: Real, y: Real, t: Real) -> Real:
        """t/y² + (1 − t)/(1 − y)², of which no terms cancel; at the bounds that of (y − t)/1e-12."""
        q = 1 - y
        return ty * where(y * q > LEAST, t / (y * y) + (1 - t) / (q * q), 1 / LEAST)


@language.formula
def nothing(y: Real) -> Real:
    """0 for every y, but NaN for NaN."""
    return 0 * maximum(minimum(y, 1), -1)


class kl_div(Pointwise):
    """l = t·(ln t − y), 0 where t is 0; dl/dy = −t."""

    @each
    def value(y: Real, t: Real) -> Real:
        """For log-probabilities y and probabilities t; 0 where t is 0, whatever y is."""
        return where(t == 0, nothing(y), t * (log(t) - y))

    @each
    def slope(y: Real, t: Real) -> Real:
        """Constant in y."""
        return -t


class kl_div_of_logs(Pointwise):
    """l = e^t·(t − y), 0 where t is −∞; dl/dy = −e^t."""

    @each
    def value(y: Real, t: Real) -> Real:
        """For log-probabilities y and t; e^t as a product of two halves, as t − y may be large.

        If both halves are 0, the term is 0 too, unless y = −∞ (equal to twice itself) and t is finite.
        """
        half = exp(0.5 * t)
        infinite = (t > y) & (y == 2 * y)
        return where(half == 0, where(infinite, -y, nothing(y)), half * (half * (t - y)))

    @each
    def slope(y: Real, t: Real) -> Real:
        """Constant in y."""
        return -exp(t)


class BCEWithLogitsLoss(PointwiseLoss):
    """L = −(1/(n·k))·Σ (u·t·ln p + (1 − t)·ln(1 − p)), p = sigmoid(y), over all elements of (n, k).

    For one output, or for several labels per sample: y are logits (n, k), t probabilities (n, k) in [0, 1]
    of any real dtype. Without u the gradient is (p − t)/(n·k), else ((1 − t)·p − u·t·(1 − p))/(n·k).
    Accuracy (see Loss): 1e-6. The loss has no terms that cancel.
    pos_weight: u, a number ≥ 0 or a vector (k,) of such (default None: 1). The weight of true labels.
    reduction: "mean" (default), "sum" (not divided) or "none" (each element's loss).
    Training reports accuracy, element by element, see `binary_accuracy`.
    Source: C. M. Bishop, "Pattern recognition and machine learning", Springer 2006, equation 4.90, with
    PyTorch's pos_weight.
    """

    link = links.SIGMOID

    def __init__(self, pos_weight: Any = None, reduction: str = "mean") -> None:
        wanted = "finite numbers of at least 0, one or one for each column"
        given = (
            None if pos_weight is None else check_columns("pos_weight", pos_weight, wanted, low=0)
        )
        super().__init__(reduction, pos_weight=given)

    def classes_of(self, shape: Shape) -> int:
        """Two of one output."""
        return 2 if shape == (1,) else 0

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Accuracy by elements: a logit of at least 0 counts as true."""
        return {"accuracy": binary_accuracy(0.0)}

    @property
    def u(self) -> Array:
        """The op's name for pos_weight."""
        u: Array = self.pos_weight
        return u

    def _op(self) -> type[Pointwise]:
        return bce_with_logits if self.pos_weight is None else weighted_bce_with_logits

    targets = (0.0, 1.0)

    def target(self, y: Any, shape: Shape | None, name: str = "y") -> Array:
        """Probabilities (n, k)."""
        return probabilities(super().target(y, shape, name), name, type(self).__name__)


class BCELoss(PointwiseLoss):
    """L = −(1/(n·k))·Σ (t·ln y + (1 − t)·ln(1 − y)) over all elements of y and t, both (n, k) in [0, 1].

    For probabilities, such as Sigmoid's outputs: one for each sample, or several. As in PyTorch,
    logarithms are at least −100 and the gradient is (y − t)/max(y·(1 − y), 1e-12)/(n·k), so that both are
    finite at 0 and 1. BCEWithLogitsLoss is more accurate there, and faster. Outputs outside [0, 1] give
    NaN. Accuracy (see Loss): 1e-6, for the formula with these bounds.
    reduction: "mean" (default), "sum" (not divided) or "none" (each element's loss).
    Training reports accuracy, element by element, see `binary_accuracy`.
    Source: C. M. Bishop, "Pattern recognition and machine learning", Springer 2006, equation 4.90.
    """

    op = bce
    link = links.PROBABILITY
    domain = (0.0, 1.0)

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def classes_of(self, shape: Shape) -> int:
        """Two of one output."""
        return 2 if shape == (1,) else 0

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Accuracy by elements: a probability of at least ½ counts as true."""
        return {"accuracy": binary_accuracy(0.5)}

    targets = (0.0, 1.0)

    def target(self, y: Any, shape: Shape | None, name: str = "y") -> Array:
        """Probabilities (n, k)."""
        return probabilities(super().target(y, shape, name), name, type(self).__name__)


class KLDivLoss(PointwiseLoss):
    """L = (1/n)·Σ t·(ln t − y) with "batchmean": log-probabilities y (n, k) against probabilities t (n, k).

    reduction: "mean" (default, as in PyTorch: over all n·k elements), "batchmean" (over the rows, which
        is the divergence itself), "sum" or "none" (each element's term).
    log_target: bool (default False). True: t are log-probabilities too, and the terms are e^t·(t − y).

    A term is 0 where the probability of the target is 0, whatever y is; elsewhere y = −∞ costs ∞. The
    gradient is −t, or −e^t, divided as the loss is.
    Accuracy (see Loss): 1e-6.
    Source: S. Kullback, R. A. Leibler, "On information and sufficiency", Annals of Mathematical
    Statistics 22, 1951.
    """

    reductions = ("mean", "batchmean", "sum", "none")

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction, log_target=check_flag("log_target", log_target))

    @property
    def takes_minus_infinity(self) -> bool:  # type: ignore[override]
        """True for log-probabilities, where −∞ is the logarithm of 0."""
        log_target: bool = self.log_target
        return log_target

    @property
    def link(self) -> str | None:  # type: ignore[override]
        """Outputs are log-probabilities; metrics take no targets that are."""
        return None if self.log_target else links.EXP

    def _op(self) -> type[Pointwise]:
        return kl_div_of_logs if self.log_target else kl_div

    def accepted_targets(self) -> tuple[float, float] | None:
        """Probabilities; of logarithms only `target` knows."""
        return None if self.log_target else (0.0, 1.0)

    def target(self, y: Any, shape: Shape | None, name: str = "y") -> Array:
        """Probabilities (n, k), or with log_target their logarithms."""
        given = super().target(y, shape, name)
        return given if self.log_target else probabilities(given, name, type(self).__name__)
