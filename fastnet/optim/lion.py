"""Lion."""

from __future__ import annotations

from typing import Any, ClassVar

from fastnet.formulas.language import Numbers, Real, each, madd, sign
from fastnet.op import Array, Op
from fastnet.optim.numbers import Number
from fastnet.optim.optimizer import Optimizer
from fastnet.optim.rules import Rule, mean, settled


class lion(Rule):
    """d = g + weight_decay·w; w ← shrink·w − lr·sign(β₁m + (1 − β₁)d); m ← β₂m + (1 − β₂)d."""

    state: ClassVar = {"w": "N", "m": "N"}
    hyper = ("lr", "weight_decay", "shrink", "beta1", "beta2")

    @each
    def update(w: Real, m: Real, g: Real, n: Numbers) -> tuple[Real, Real]:
        """Every coordinate moves by lr."""
        d = madd(n.weight_decay, w, g)
        direction = sign(mean(m, d, n.beta1))
        return madd(-n.lr, direction, n.shrink * w), settled(mean(m, d, n.beta2))


class Lion(Optimizer):
    """Lion: w ← w·(1 − lr·weight_decay) − lr·sign(β₁m + (1 − β₁)g), then m ← β₂m + (1 − β₂)g.

    Every coordinate moves by lr, so lr should be three to ten times smaller than Adam's, and weight_decay
    larger by the same factor. With decoupled_weight_decay=False the decay is added to g.

    lr: number ≥ 0 (default 1e-4).
    betas: two numbers in [0, 1) (default (0.9, 0.99)).
    weight_decay: number ≥ 0 (default 0).
    Source: X. Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023, algorithm 2.
    """

    _ranges: ClassVar = {"lr": {"low": 0.0}, "weight_decay": {"low": 0.0}}
    _decoupled = True

    def __init__(
        self,
        lr: Number = 1e-4,
        betas: tuple[Number, Number] = (0.9, 0.99),
        weight_decay: Number = 0.0,
        **shared: Any,
    ) -> None:
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay
        super().__init__(**shared)

    @property
    def op(self) -> type[Op]:
        """`lion`."""
        return lion

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        return {"beta1": at.betas[0], "beta2": at.betas[1]}
