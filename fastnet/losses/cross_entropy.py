"""Softmax and negative log-likelihood with class weights, label smoothing or probability targets."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import HyperparameterError, ShapeError, check_real
from fastnet.layers.base import Shape
from fastnet.losses import links
from fastnet.losses.base import probabilities
from fastnet.losses.labels import LabelLoss, constant
from fastnet.losses.softmax_nll import below_top, softmax_nll
from fastnet.op import Array, Op

NO_LABEL = -100  # the default ignore_index; no class has this label


def _log_softmax(z: Array) -> Array:
    shifted, _, rest = below_top(z)
    log_p: Array = shifted - np.log1p(rest)
    return log_p


def seen(q: Array, x: Array) -> Array:
    """Where q·x counts: nowhere that q is 0, even if x is infinite, but wherever x is NaN."""
    counts: Array = (q != 0) | np.isnan(x)
    return counts


def _row_loss(q: Array, log_p: Array) -> Array:
    """−Σ_c q_c·log p_c, where terms with q_c = 0 are 0; NaN for a row with a NaN, whatever q is."""
    terms = np.where(seen(q, log_p), q * log_p, 0)
    return np.asarray(-np.sum(terms, axis=1, dtype=np.float64))


def _slopes(p: Array, q: Array) -> Array:
    """p·Σq − q as p_c·Σ_(j≠c) q_j − q_c·(1 − p_c), which keeps small differences, in float64."""
    large = p > 0.5
    rest = np.sum(np.where(large, 0, p), axis=1, keepdims=True, dtype=np.float64)
    others = q.sum(axis=1, keepdims=True) - q
    return np.asarray(p * others - q * np.where(large, rest, 1 - p.astype(np.float64)))


def _smoothed(t: Array, v: Array, columns: int, smoothing: float, ignored: float) -> Array:
    """q_c = v_c·((1 − s)·[c = t] + s/C), 0 for ignored rows."""
    kept = t != ignored
    q = np.full((t.size, columns), smoothing / columns)
    q[kept, t[kept]] += 1 - smoothing
    return np.where(kept[:, None], q * v if v.size else q, 0)


class cross_entropy(Op):
    """row_loss = −Σ_c q_c·log p_c with p = softmax(z), q_c = v_c·((1 − smoothing)·[c = t] + smoothing/C).

    count = v_t. Rows of the label `ignored` have loss and count 0. dz = drow_loss·(p·Σq − q).
    """

    outputs: ClassVar = {"row_loss": "float64 B", "count": "B", "p": "B C"}
    inputs: ClassVar = {"z": "B C", "t": "int64 B", "v": "C"}
    optional = ("v",)
    dims = ("C",)
    scalars = ("smoothing", "ignored")

    @staticmethod
    def forward(
        row_loss: Array,
        count: Array,
        p: Array,
        z: Array,
        t: Array,
        v: Array,
        smoothing: float,
        ignored: float,
    ) -> None:
        """The losses and counts of rows, and p, which the gradient needs."""
        log_p, kept = _log_softmax(z), t != ignored
        np.exp(log_p, out=p)
        q = _smoothed(t, v, z.shape[1], smoothing, ignored)
        row_loss[...] = np.where(kept, _row_loss(q, log_p), 0)
        count[...] = np.where(kept, v[np.where(kept, t, 0)] if v.size else 1, 0)

    @staticmethod
    def vjp(
        dz: Array,
        drow_loss: Array,
        p: Array,
        t: Array,
        v: Array,
        smoothing: float,
        ignored: float,
    ) -> None:
        """drow_loss·(p·Σq − q)."""
        q = _smoothed(t, v, p.shape[1], smoothing, ignored)
        dz[...] = drow_loss[:, None] * _slopes(p, q)
        dz[t == ignored] = 0  # also where it is NaN


class soft_cross_entropy(Op):
    """row_loss = −Σ_c q_c·log p_c with p = softmax(z), q_c = v_c·((1 − smoothing)·t_c + smoothing/C).

    dz = drow_loss·(p·Σq − q).
    """

    outputs: ClassVar = {"row_loss": "float64 B", "p": "B C"}
    inputs: ClassVar = {"z": "B C", "t": "B C", "v": "C"}
    optional = ("v",)
    dims = ("C",)
    scalars = ("smoothing",)

    @staticmethod
    def forward(row_loss: Array, p: Array, z: Array, t: Array, v: Array, smoothing: float) -> None:
        """The losses of rows, and p, which the gradient needs."""
        log_p = _log_softmax(z)
        np.exp(log_p, out=p)
        q = (t * (1 - smoothing) + smoothing / t.shape[1]) * (v if v.size else 1)
        row_loss[...] = _row_loss(q, log_p)

    @staticmethod
    def vjp(dz: Array, drow_loss: Array, p: Array, t: Array, v: Array, smoothing: float) -> None:
        """drow_loss·(p·Σq − q)."""
        q = (t.astype(np.float64) * (1 - smoothing) + smoothing / t.shape[1]) * (v if v.size else 1)
        dz[...] = drow_loss[:, None] * _slopes(p, q)


class nll(Op):
    """row_loss = −v_t·y_t for log-probabilities y; count = v_t. Both are 0 for the label `ignored`."""

    outputs: ClassVar = {"row_loss": "float64 B", "count": "B"}
    inputs: ClassVar = {"y": "B C", "t": "int64 B", "v": "C"}
    optional = ("v",)
    dims = ("C",)
    scalars = ("ignored",)

    @staticmethod
    def forward(
        row_loss: Array, count: Array, y: Array, t: Array, v: Array, ignored: float
    ) -> None:
        """The losses and counts of rows."""
        kept = t != ignored
        label = np.where(kept, t, 0)
        count[...] = np.where(kept, v[label] if v.size else 1, 0)
        chosen = y[np.arange(t.size), label]
        row_loss[...] = np.where(seen(count, chosen) & kept, -count * chosen, 0)

    @staticmethod
    def vjp(dy: Array, drow_loss: Array, t: Array, v: Array, ignored: float) -> None:
        """−drow_loss·v_t at the label, 0 elsewhere."""
        dy.fill(0)
        (rows,) = np.nonzero(t != ignored)
        dy[rows, t[rows]] = -drow_loss[rows] * (v[t[rows]] if v.size else 1)


class CrossEntropyLoss(LabelLoss):
    """L = −(1/n)·Σ_rows log p_t with p = softmax(z): softmax and negative log-likelihood, fused and stable.

    Takes logits z (n, C) and integer labels t (n,) in [0, C) of any integer dtype, or probabilities
    t (n, C). With labels a row's loss is −Σ_c v_c·((1 − s)·[c = t] + s/C)·log p_c, and the mean divides
    by Σ v_t; with probabilities it is −Σ_c v_c·((1 − s)·t_c + s/C)·log p_c, and the mean divides by n.

    weight: v (C,), finite and ≥ 0 (default None: all are 1). A weight for each class.
    ignore_index: integer (default −100). Rows with this label add nothing to loss, gradient and mean. If
        all rows have it, loss and gradient are 0 (PyTorch: NaN). Probability targets need the default.
    label_smoothing: s, a number in [0, 1] (default 0).
    reduction: "mean" (default), "sum" or "none" (a loss for each row).

    The gradient is (p·Σq − q) times the row's share, where q_c is the factor of log p_c; without options
    it is (p − onehot(t))/n. Rows are summed in float64. Training reports accuracy.
    Logits may be −∞, which gives a class probability 0, unless all of a row are. Such a class costs ∞ if
    its q_c is above 0, else nothing.
    Accuracy (see Loss): 2e-6. The loss has no terms that cancel, nor has the gradient for labels without
    smoothing: both keep their digits where p_t is 1 in float32.
    Sources: J. S. Bridle, "Training stochastic model recognition algorithms as networks can lead to
    maximum mutual information estimation of parameters", NIPS 1989; for the smoothing C. Szegedy et al.,
    "Rethinking the Inception architecture for computer vision", CVPR 2016, section 7.
    """

    link = links.SOFTMAX

    def __init__(
        self,
        weight: Any = None,
        ignore_index: int = NO_LABEL,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            reduction,
            weight,
            ignore_index=ignore_index,
            label_smoothing=check_real("label_smoothing", label_smoothing, low=0, high=1),
        )

    def target(self, y: Any, shape: Shape | None, name: str = "y") -> Array:
        """Labels (see LabelLoss), or probabilities (n, C) as floats in [0, 1]."""
        array = np.asarray(y)
        if array.ndim < 2 or array.dtype.kind != "f":
            return super().target(y, shape, name)
        if shape is not None:
            self._check_classes(shape)
        if shape is not None and array.shape[1:] != shape:
            raise ShapeError(
                f"{name} has shape {array.shape}; CrossEntropyLoss takes integer labels (n,) or "
                f"probabilities (n, {shape[0]})"
            )
        if self.ignore_index != NO_LABEL:
            raise HyperparameterError(
                f"ignore_index is {self.ignore_index} and {name} holds probabilities, in which no row "
                "has a label to be ignored; leave ignore_index out, and give such rows the "
                "sample_weight 0"
            )
        return probabilities(array, name, type(self).__name__)

    def emit(
        self, g: Builder, output: Any, target: Any, weight: Any = None, *, by_rows: bool = False
    ) -> Any:
        """Apply `softmax_nll` without options, else `rows` and `weighted_loss`."""
        options = self.weight is not None or self.label_smoothing or self.reduction != "mean"
        if options or weight is not None or len(target.shape) > 1:
            return super().emit(g, output, target, weight, by_rows=by_rows)
        return g.apply(softmax_nll, z=output, t=target)

    def rows(self, g: Builder, output: Any, target: Any) -> tuple[Any, Any]:
        """Apply `cross_entropy`, or `soft_cross_entropy` for probabilities."""
        given = {"z": output, "t": target, "v": constant(self.weight)}
        given["smoothing"] = self.label_smoothing
        if len(target.shape) > 1:
            return g.apply(soft_cross_entropy, **given), None
        losses = g.apply(cross_entropy, **given, ignored=float(self.ignore_index or 0))
        return losses, g.output("count")


class NLLLoss(LabelLoss):
    """L = −Σ_rows v_t·y_t / Σ_rows v_t for log-probabilities y (n, C), such as LogSoftmax's.

    Takes integer labels t (n,) in [0, C).
    weight: v (C,), finite and ≥ 0 (default None: all are 1). A weight for each class.
    ignore_index: integer (default −100). Rows with this label add nothing. If all rows have it, loss and
        gradient are 0 (PyTorch: NaN).
    reduction: "mean" (default), "sum" (not divided) or "none" (−v_t·y_t for each row).

    The gradient is −v_t/Σ v at the label, 0 elsewhere. Training reports accuracy.
    y may be −∞: it costs ∞ at the label, unless v_t is 0, and nothing elsewhere.
    Accuracy (see Loss): 1e-6.
    Source: R. A. Fisher's maximum likelihood (1922), with PyTorch's means.
    """

    link = links.EXP

    def __init__(
        self, weight: Any = None, ignore_index: int = NO_LABEL, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction, weight, ignore_index=ignore_index)

    def rows(self, g: Builder, output: Any, target: Any) -> tuple[Any, Any]:
        """Apply `nll`."""
        losses = g.apply(
            nll, y=output, t=target, v=constant(self.weight), ignored=float(self.ignore_index or 0)
        )
        return losses, g.output("count")
