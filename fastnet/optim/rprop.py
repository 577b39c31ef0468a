"""Rprop."""

from __future__ import annotations

from typing import Any, ClassVar

from fastnet.errors import HyperparameterError
from fastnet.formulas.language import Numbers, Real, each, madd, maximum, minimum, sign, where
from fastnet.op import Array, Op
from fastnet.optim.numbers import Number, check_numbers, holds_schedule
from fastnet.optim.optimizer import SMALLEST_EPS, Optimizer
from fastnet.optim.rules import Rule


class rprop(Rule):
    """d = g + weight_decay·w; where d·last > 0 grow = eta_plus, where d·last < 0 grow = eta_minus and
    d = 0, else grow = 1; size ← min(max(grow·size, least), most); w ← shrink·w − size·sign(d); last ← d.

    A size of 0 has not begun, and is `lr` first. Where lr is 0, w and size stay.
    """

    state: ClassVar = {"w": "N", "last": "N", "size": "N"}
    hyper = ("lr", "weight_decay", "shrink", "eta_minus", "eta_plus", "least", "most")

    @each
    def update(w: Real, last: Real, size: Real, g: Real, n: Numbers) -> tuple[Real, Real, Real]:
        """The size of the step, then the step; NaN stays NaN."""
        d = madd(n.weight_decay, w, g)
        turn = d * last
        grow = where(turn > 0, n.eta_plus, where(turn < 0, n.eta_minus, where(turn == 0, 1, turn)))
        begun = where(size == 0, n.lr, size)
        moved = minimum(maximum(grow * begun, n.least), n.most)
        kept = where(turn < 0, 0, d)
        step = where(n.lr > 0, moved, 0)
        return madd(-sign(kept), step, n.shrink * w), kept, where(n.lr > 0, moved, size)


class Rprop(Optimizer):
    """iRprop⁻: Δ ← Δ·η₊ where d and the last d have one sign, Δ·η₋ where their signs differ, and there
    d = 0; then Δ is bounded by step_sizes, and w ← w − Δ·sign(d).

    d = g + weight_decay·w; Δ is a step size of each element, at first lr. Only the sign of a gradient
    counts, so this is a rule for gradients of all samples: with minibatches, noise in the signs makes steps
    shrink.

    lr: number ≥ 0 (default 1e-2). The first Δ. Later steps do not use it, except that 0 stops them (in
        PyTorch it does not).
    etas: η₋ in (0, 1) and η₊ > 1 (default (0.5, 1.2)).
    step_sizes: two numbers ≥ 1.2e-38 (default (1e-6, 50)). The least and the greatest Δ.
    weight_decay: number ≥ 0 (default 0).
    Source: C. Igel, M. Hüsken, "Improving the Rprop learning algorithm", NC 2000, as PyTorch has it; the
    rule without d = 0: M. Riedmiller, H. Braun, "A direct adaptive method for faster backpropagation
    learning: the RPROP algorithm", ICNN 1993.
    """

    _ranges: ClassVar = {"lr": {"low": 0.0}, "weight_decay": {"low": 0.0}}
    _several: ClassVar = {
        "etas": (
            {"low": 0.0, "high": 1.0, "open_low": True, "open_high": True},
            {"low": 1.0, "open_low": True},
        ),
        "step_sizes": ({"low": SMALLEST_EPS}, {"low": SMALLEST_EPS}),
    }

    def __init__(
        self,
        lr: Number = 1e-2,
        etas: tuple[Number, Number] = (0.5, 1.2),
        step_sizes: tuple[Number, Number] = (1e-6, 50.0),
        weight_decay: Number = 0.0,
        **shared: Any,
    ) -> None:
        self.lr, self.etas, self.step_sizes = lr, etas, step_sizes
        self.weight_decay = weight_decay
        super().__init__(**shared)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "step_sizes":
            value = check_numbers(name, value, self._several[name])
            if not holds_schedule(value) and value[0] > value[1]:
                raise HyperparameterError(f"step_sizes is {value}; expected the least one first")
        super().__setattr__(name, value)

    @property
    def op(self) -> type[Op]:
        """`rprop`."""
        return rprop

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        (eta_minus, eta_plus), (least, most) = at.etas, at.step_sizes
        return {"eta_minus": eta_minus, "eta_plus": eta_plus, "least": least, "most": most}
