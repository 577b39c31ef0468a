"""Adam, AdamW and Adamax."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.formulas.language import Numbers, Real, each, formula, madd, sqrt
from fastnet.formulas.portable import powers
from fastnet.op import Array, Op
from fastnet.optim.numbers import Number
from fastnet.optim.optimizer import SMALLEST_EPS, Optimizer
from fastnet.optim.rules import Rule, larger, mean, mean_square, settled, settled_with


@formula
def moments(w: Real, m: Real, v: Real, g: Real, n: Numbers) -> tuple[Real, Real, Real, Real]:
    """d = g + weight_decay·w, the new m before and after `settled`, and the new v."""
    d = madd(n.weight_decay, w, g)
    first = mean(m, d, n.beta1)
    second = mean_square(v, d, n.beta2)
    return d, first, settled(first), second


class adam(Rule):
    """d = g + weight_decay·w; m ← β₁m + (1 − β₁)d; v ← β₂v + (1 − β₂)d²;
    w ← shrink·w − step_size·m / (√v·root_scale + eps).

    step_size = lr/(1 − β₁ᵗ) and root_scale = 1/√(1 − β₂ᵗ) carry the bias corrections of step t ≥ 1.
    """

    state: ClassVar = {"w": "N", "m": "N", "v": "N"}
    hyper = ("weight_decay", "shrink", "step_size", "root_scale", "beta1", "beta2", "eps")

    @each
    def update(w: Real, m: Real, v: Real, g: Real, n: Numbers) -> tuple[Real, Real, Real]:
        """The moments, then the step; eps is added outside the bias-corrected root."""
        _, first, moved, second = moments(w, m, v, g, n)
        step = moved / madd(sqrt(second), n.root_scale, n.eps)
        return madd(-n.step_size, step, n.shrink * w), moved, settled_with(second, first)


class adam_amsgrad(Rule):
    """Adam's step with `top`, the maximum of v over all steps so far, in place of v."""

    state: ClassVar = {"w": "N", "m": "N", "v": "N", "top": "N"}
    hyper = adam.hyper

    @each
    def update(
        w: Real, m: Real, v: Real, top: Real, g: Real, n: Numbers
    ) -> tuple[Real, Real, Real, Real]:
        """The maximum is taken before the bias correction, as PyTorch does."""
        _, first, moved, second = moments(w, m, v, g, n)
        highest = larger(top, second)
        step = moved / madd(sqrt(highest), n.root_scale, n.eps)
        return madd(-n.step_size, step, n.shrink * w), moved, settled_with(second, first), highest


class adamax(Rule):
    """d = g + weight_decay·w; m ← β₁m + (1 − β₁)d; u ← max(β₂u, |d| + eps);
    w ← shrink·w − step_size·m/u, with step_size = lr/(1 − β₁ᵗ).
    """

    state: ClassVar = {"w": "N", "m": "N", "u": "N"}
    hyper = ("weight_decay", "shrink", "step_size", "beta1", "beta2", "eps")

    @each
    def update(w: Real, m: Real, u: Real, g: Real, n: Numbers) -> tuple[Real, Real, Real]:
        """u is never below eps."""
        d = madd(n.weight_decay, w, g)
        moved = settled(mean(m, d, n.beta1))
        greatest = larger(n.beta2 * u, abs(d) + n.eps)
        return madd(-n.step_size, moved / greatest, n.shrink * w), moved, greatest


class Adam(Optimizer):
    """Adam: m ← β₁m + (1 − β₁)d, v ← β₂v + (1 − β₂)d², w ← w − lr·m̂ / (√v̂ + eps).

    d = g + weight_decay·w (L2; for decoupled decay use AdamW). At step t ≥ 1, m̂ = m/(1 − β₁ᵗ) and
    v̂ = v/(1 − β₂ᵗ). With `amsgrad` v̂ uses the maximum of v over all steps so far.

    lr: number ≥ 0 (default 1e-3).
    betas: two numbers in [0, 1) (default (0.9, 0.999)).
    eps: number ≥ 1.2e-38 (default 1e-8).
    weight_decay: number ≥ 0 (default 0).
    amsgrad: bool (default False).
    Sources: D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1;
    S. J. Reddi, S. Kale, S. Kumar, "On the convergence of Adam and beyond", ICLR 2018, algorithm 2, which
    has no bias correction; here it comes after the maximum, as in PyTorch.
    """

    _ranges: ClassVar = {
        "lr": {"low": 0.0},
        "eps": {"low": SMALLEST_EPS},
        "weight_decay": {"low": 0.0},
    }

    def __init__(
        self,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        amsgrad: bool = False,
        **shared: Any,
    ) -> None:
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.amsgrad = amsgrad
        super().__init__(**shared)

    @property
    def op(self) -> type[Op]:
        """`adam` or `adam_amsgrad`."""
        return adam_amsgrad if self.amsgrad else adam

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        return corrections(at, t)


class AdamW(Adam):
    """Adam with decoupled weight decay: w ← w·(1 − lr·weight_decay), then Adam's step with d = g.

    Arguments as for Adam; weight_decay: number ≥ 0 (default 1e-2).
    Source: I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2,
    with the decay scaled by lr as PyTorch does.
    """

    _decoupled = True

    def __init__(
        self,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 1e-2,
        amsgrad: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, amsgrad, **shared)


class Adamax(Optimizer):
    """Adamax: m ← β₁m + (1 − β₁)d, u ← max(β₂u, |d| + eps), w ← w − lr/(1 − β₁ᵗ)·m/u.

    d = g + weight_decay·w; t is the step, from 1.

    lr: number ≥ 0 (default 2e-3).
    betas: two numbers in [0, 1) (default (0.9, 0.999)).
    eps: number ≥ 1.2e-38 (default 1e-8).
    weight_decay: number ≥ 0 (default 0).
    Source: D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 2,
    which has no eps; that is PyTorch's.
    """

    _ranges: ClassVar = Adam._ranges

    def __init__(
        self,
        lr: Number = 2e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        **shared: Any,
    ) -> None:
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        super().__init__(**shared)

    @property
    def op(self) -> type[Op]:
        """`adamax`."""
        return adamax

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        return corrections(at, t)


def corrections(at: Any, t: Array) -> dict[str, Any]:
    """Adam's numbers at steps t (from 0), with the bias corrections."""
    beta1, beta2 = at.betas
    first, count = int(t[0]) + 1, len(t)
    return {
        "step_size": at.lr / correction(beta1, first, count),
        "root_scale": 1.0 / np.sqrt(correction(beta2, first, count)),
        "beta1": beta1,
        "beta2": beta2,
        "eps": at.eps,
    }


def correction(beta: Any, first: int, count: int) -> Any:
    """1 − βᵗ at steps first ≥ 1, first + 1, …; the number 1 if it rounds to 1 at all of them."""
    if np.ndim(beta) == 0 and powers(beta, first, 1)[0] < 2.0**-54:
        return 1.0
    return 1.0 - powers(beta, first, count)
