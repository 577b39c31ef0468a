"""Adagrad and Adadelta."""

from __future__ import annotations

from typing import Any, ClassVar

from fastnet.formulas.language import Numbers, Real, each, madd, sqrt
from fastnet.op import Array, Op
from fastnet.optim.numbers import Number
from fastnet.optim.optimizer import SMALLEST_EPS, Optimizer
from fastnet.optim.rules import Rule, mean_square, settled


class adagrad(Rule):
    """d = g + weight_decay·w; v ← v + d²; w ← shrink·w − step_size·d / (√v + eps).

    step_size = lr/(1 + t·lr_decay), t from 0.
    """

    state: ClassVar = {"w": "N", "v": "N"}
    hyper = ("weight_decay", "shrink", "step_size", "eps")

    @each
    def update(w: Real, v: Real, g: Real, n: Numbers) -> tuple[Real, Real]:
        """v never decreases."""
        d = madd(n.weight_decay, w, g)
        squares = madd(d, d, v)
        return madd(-n.step_size, d / (sqrt(squares) + n.eps), n.shrink * w), squares


class adadelta(Rule):
    """d = g + weight_decay·w; v ← ρv + (1 − ρ)d²; Δ = √(u + eps)/√(v + eps)·d; u ← ρu + (1 − ρ)Δ²;
    w ← shrink·w − lr·Δ.
    """

    state: ClassVar = {"w": "N", "v": "N", "u": "N"}
    hyper = ("lr", "weight_decay", "shrink", "rho", "eps")

    @each
    def update(w: Real, v: Real, u: Real, g: Real, n: Numbers) -> tuple[Real, Real, Real]:
        """Δ has the unit of w."""
        d = madd(n.weight_decay, w, g)
        squares = settled(mean_square(v, d, n.rho))
        delta = sqrt(u + n.eps) / sqrt(squares + n.eps) * d
        return madd(-n.lr, delta, n.shrink * w), squares, settled(mean_square(u, delta, n.rho))


class Adagrad(Optimizer):
    """Adagrad: v ← v + d², w ← w − lr/(1 + (t − 1)·lr_decay)·d / (√v + eps), t from 1.

    d = g + weight_decay·w.

    lr: number ≥ 0 (default 1e-2).
    lr_decay: number ≥ 0 (default 0).
    weight_decay: number ≥ 0 (default 0).
    initial_accumulator_value: number ≥ 0 (default 0). The initial v, the same for all groups.
    eps: number ≥ 1.2e-38 (default 1e-10).
    Source: J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and
    stochastic optimization", JMLR 12, 2011, with diagonal matrices and eps outside the root.
    """

    _ranges: ClassVar = {
        "lr": {"low": 0.0},
        "lr_decay": {"low": 0.0},
        "weight_decay": {"low": 0.0},
        "initial_accumulator_value": {"low": 0.0},
        "eps": {"low": SMALLEST_EPS},
    }

    def __init__(
        self,
        lr: Number = 1e-2,
        lr_decay: Number = 0.0,
        weight_decay: Number = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: Number = 1e-10,
        **shared: Any,
    ) -> None:
        self.lr, self.lr_decay, self.weight_decay = lr, lr_decay, weight_decay
        self.initial_accumulator_value, self.eps = initial_accumulator_value, eps
        super().__init__(**shared)

    @property
    def op(self) -> type[Op]:
        """`adagrad`."""
        return adagrad

    def initial(self) -> dict[str, float]:
        """v starts from initial_accumulator_value."""
        return {"v": self.initial_accumulator_value}

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        return {"step_size": at.lr / (1.0 + t * at.lr_decay), "eps": at.eps}


class Adadelta(Optimizer):
    """Adadelta: v ← ρv + (1 − ρ)d², Δ = √(u + eps)/√(v + eps)·d, u ← ρu + (1 − ρ)Δ², w ← w − lr·Δ.

    d = g + weight_decay·w.

    lr: number ≥ 0 (default 1).
    rho: number in [0, 1] (default 0.9).
    eps: number ≥ 1.2e-38 (default 1e-6).
    weight_decay: number ≥ 0 (default 0).
    Source: M. D. Zeiler, "ADADELTA: an adaptive learning rate method", arXiv:1212.5701, which has lr = 1.
    """

    _ranges: ClassVar = {
        "lr": {"low": 0.0},
        "rho": {"low": 0.0, "high": 1.0},
        "eps": {"low": SMALLEST_EPS},
        "weight_decay": {"low": 0.0},
    }

    def __init__(
        self,
        lr: Number = 1.0,
        rho: Number = 0.9,
        eps: Number = 1e-6,
        weight_decay: Number = 0.0,
        **shared: Any,
    ) -> None:
        self.lr, self.rho, self.eps, self.weight_decay = lr, rho, eps, weight_decay
        super().__init__(**shared)

    @property
    def op(self) -> type[Op]:
        """`adadelta`."""
        return adadelta

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        return {"rho": at.rho, "eps": at.eps}
