"""Hinge losses for integer labels: a correct output costs something if its margin is too small."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import check_int, check_real
from fastnet.losses.labels import LabelLoss, constant
from fastnet.op import Array, Op


class Hinge(Op):
    """Base of the ops row_loss = v_t·Σ_j max(0, short_j)^power / divisor, for labels t.

    A subclass defines how far output j is short of its margin, and Σ_j d_j·dshort_j/dy.
    """

    outputs: ClassVar = {"row_loss": "float64 B"}
    inputs: ClassVar = {"y": "B C", "t": "int64 B", "v": "C"}
    optional = ("v",)
    dims = ("C",)
    scalars = ("power", "margin", "divisor")

    @staticmethod
    def costs(
        row_loss: Array, short: Array, t: Array, v: Array, power: float, divisor: float
    ) -> None:
        """The losses of rows."""
        lack = np.maximum(short, 0)
        total = np.sum(lack * lack if power == 2 else lack, axis=1, dtype=np.float64)
        weighed = np.where((v[t] == 0) & ~np.isnan(total), 0, v[t] * total) if v.size else total
        row_loss[...] = weighed / divisor

    @staticmethod
    def slopes(
        drow_loss: Array, short: Array, t: Array, v: Array, power: float, divisor: float
    ) -> Array:
        """drow_loss·v_t·power·max(0, short)^(power − 1) / divisor, 0 where an output is not short."""
        share = drow_loss * (v[t] if v.size else 1) / divisor
        share = (power * share)[:, None].astype(short.dtype)
        slope = short * share if power == 2 else np.broadcast_to(share, short.shape)
        return np.where(short > 0, slope, 0).astype(short.dtype)


class multi_margin(Hinge):
    """short_j = (y_j − y_t) + margin for j ≠ t: the label's output must beat the others by the margin."""

    @staticmethod
    def short(y: Array, t: Array, margin: float) -> Array:
        """How far each output is short of the margin; 0 for the label's own."""
        rows = np.arange(t.size)
        short: Array = (y - y[rows, t][:, None]) + margin
        short[rows, t] = 0
        return short

    @staticmethod
    def forward(
        row_loss: Array, y: Array, t: Array, v: Array, power: float, margin: float, divisor: float
    ) -> None:
        """The losses of rows."""
        Hinge.costs(row_loss, multi_margin.short(y, t, margin), t, v, power, divisor)

    @staticmethod
    def vjp(
        dy: Array,
        drow_loss: Array,
        y: Array,
        t: Array,
        v: Array,
        power: float,
        margin: float,
        divisor: float,
    ) -> None:
        """The slopes, and at the label the negative of their sum."""
        short = multi_margin.short(y, t, margin)
        dy[...] = Hinge.slopes(drow_loss, short, t, v, power, divisor)
        dy[np.arange(t.size), t] = -dy.sum(axis=1)


class one_vs_rest(Hinge):
    """short_j = margin − s_j·y_j with s_j = 1 at the label and −1 elsewhere."""

    @staticmethod
    def signs(y: Array, t: Array) -> Array:
        """1 at the label, −1 elsewhere."""
        signs = np.full_like(y, -1)
        signs[np.arange(t.size), t] = 1
        return signs

    @staticmethod
    def forward(
        row_loss: Array, y: Array, t: Array, v: Array, power: float, margin: float, divisor: float
    ) -> None:
        """The losses of rows."""
        short = margin - one_vs_rest.signs(y, t) * y
        Hinge.costs(row_loss, short, t, v, power, divisor)

    @staticmethod
    def vjp(
        dy: Array,
        drow_loss: Array,
        y: Array,
        t: Array,
        v: Array,
        power: float,
        margin: float,
        divisor: float,
    ) -> None:
        """The slopes with the signs of the classes."""
        signs = one_vs_rest.signs(y, t)
        dy[...] = -signs * Hinge.slopes(drow_loss, margin - signs * y, t, v, power, divisor)


class _HingeLoss(LabelLoss):
    op: ClassVar[type[Hinge]]

    def __init__(self, p: float, margin: float, weight: Any, reduction: str) -> None:
        if isinstance(p, float) and p.is_integer():  # PyTorch also takes 1.0
            p = int(p)
        p, margin = check_int("p", p, low=1, high=2), check_real("margin", margin)
        super().__init__(reduction, weight, p=p, margin=margin)

    def divisor(self, classes: int) -> float:
        """The divisor of the sum over a row."""
        return 1.0

    def counts(self, target: Array) -> Array | None:
        """None: each row counts 1 in a mean."""
        return None

    def rows(self, g: Builder, output: Any, target: Any) -> tuple[Any, Any]:
        """Apply the op."""
        numbers = {"power": float(self.p), "margin": self.margin}
        numbers["divisor"] = self.divisor(output.shape[1])
        return g.apply(self.op, y=output, t=target, v=constant(self.weight), **numbers), None


class MultiMarginLoss(_HingeLoss):
    """L = (1/n)·Σ_rows (v_t/C)·Σ_(j≠t) max(0, margin − y_t + y_j)^p for outputs y (n, C), labels t (n,).

    p: 1 (default) or 2.
    margin: number (default 1).
    weight: v (C,), finite and ≥ 0 (default None: all are 1). The mean still divides by n.
    reduction: "mean" (default, over the rows), "sum" or "none" (a loss for each row).

    At 0 the derivative of max(0, ·) is 0, as in PyTorch. Training reports accuracy.
    Accuracy (see Loss): 1e-6; terms are the margin and the difference y_j − y_t.
    Source: K. Crammer, Y. Singer, "On the algorithmic implementation of multiclass kernel-based vector
    machines", JMLR 2, 2001, which takes the maximum of the terms; the sum is that of J. Weston,
    C. Watkins, "Support vector machines for multi-class pattern recognition", ESANN 1999.
    """

    op = multi_margin

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: str = "mean"
    ) -> None:
        super().__init__(p, margin, weight, reduction)

    def divisor(self, classes: int) -> float:
        """C, as in PyTorch."""
        return float(classes)


class OneVsRestHingeLoss(_HingeLoss):
    """L = (1/n)·Σ_rows v_t·Σ_j max(0, margin − s_j·y_j)^p, s_j = 1 for the label's output, else −1.

    Takes outputs y (n, C) and integer labels t (n,): C binary machines, each for a class against the rest.
    p: 1 (default), or 2 for the squared hinge.
    margin: number (default 1).
    weight: v (C,), finite and ≥ 0 (default None: all are 1). The mean still divides by n.
    reduction: "mean" (default, over the rows), "sum" or "none" (a loss for each row).

    At 0 the derivative of max(0, ·) is 0. Training reports accuracy.
    Accuracy (see Loss): 1e-6; terms are the margin and y_j.
    Source: R. Rifkin, A. Klautau, "In defense of one-vs-all classification", JMLR 5, 2004.
    """

    op = one_vs_rest

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: str = "mean"
    ) -> None:
        super().__init__(p, margin, weight, reduction)
