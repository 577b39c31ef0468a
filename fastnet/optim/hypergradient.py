"""Hypergradient descent: SGD and Adam whose rate descends along its own gradient."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.errors import HyperparameterError
from fastnet.formulas.language import Numbers, Real, each, formula, madd, sqrt
from fastnet.op import Array, Op
from fastnet.optim.adam import correction
from fastnet.optim.numbers import Number, is_on
from fastnet.optim.optimizer import SMALLEST_EPS
from fastnet.optim.rules import Rule, mean, mean_square, settled, settled_with
from fastnet.optim.tuned import (
    GIVEN,
    NORMS,
    PRODUCTS,
    RATE,
    SQUARES,
    STEPS,
    Tuned,
    past_products,
    tuned_step,
)
from fastnet.schedules.base import Schedule


@formula
def gradient(w: Real, g: Real, n: Numbers) -> Real:
    """d = g + weight_decay·w."""
    return madd(n.weight_decay, w, g)


class sgdhd(Rule):
    """past ← d = g + weight_decay·w, the direction in which `tuned_step` moves w."""

    state: ClassVar = {"past": "N"}
    inputs: ClassVar = {"w": "N", "g": "N"}
    hyper = ("weight_decay",)

    @each
    def update(w: Real, g: Real, n: Numbers) -> Real:
        """Gradient descent."""
        return gradient(w, g, n)


class sgdhd_momentum(Rule):
    """past ← momentum·past + d."""

    state: ClassVar = {"past": "N"}
    inputs: ClassVar = {"w": "N", "g": "N"}
    hyper = ("weight_decay", "momentum")

    @each
    def update(past: Real, w: Real, g: Real, n: Numbers) -> Real:
        """The velocity is the direction."""
        return settled(madd(n.momentum, past, gradient(w, g, n)))


class sgdhd_nesterov(Rule):
    """v ← momentum·v + d; past ← d + momentum·v."""

    state: ClassVar = {"v": "N", "past": "N"}
    inputs: ClassVar = {"w": "N", "g": "N"}
    hyper = ("weight_decay", "momentum")

    @each
    def update(v: Real, w: Real, g: Real, n: Numbers) -> tuple[Real, Real]:
        """The direction looks one velocity ahead."""
        d = gradient(w, g, n)
        velocity = settled(madd(n.momentum, v, d))
        return velocity, madd(n.momentum, velocity, d)


class adamhd(Rule):
    """m ← β₁m + (1 − β₁)d; v ← β₂v + (1 − β₂)d²; past ← size·m/(√v·root_scale + eps).

    size = 1/(1 − β₁ᵗ) and root_scale = 1/√(1 − β₂ᵗ) at step t ≥ 1.
    """

    state: ClassVar = {"m": "N", "v": "N", "past": "N"}
    inputs: ClassVar = {"w": "N", "g": "N"}
    hyper = ("weight_decay", "step_size", "root_scale", "beta1", "beta2", "eps")

    @each
    def update(m: Real, v: Real, w: Real, g: Real, n: Numbers) -> tuple[Real, Real, Real]:
        """Adam's direction."""
        d = gradient(w, g, n)
        first = mean(m, d, n.beta1)
        second = mean_square(v, d, n.beta2)
        moved = settled(first)
        direction = n.step_size * moved / madd(sqrt(second), n.root_scale, n.eps)
        return moved, settled_with(second, first), direction


def hypergradient_tune_update(
    tuning: Array, lr: float, hypergrad_lr: float, multiplicative: float
) -> None:
    """Numbers alone, so that Numba compiles this function for its backends.

    Before the first step `past` is 0.
    """
    t = tuning
    if t[STEPS] > 0.0 and t[GIVEN] == lr:
        lengths = np.sqrt(t[SQUARES]) * np.sqrt(t[NORMS])
        if not multiplicative > 0.0:
            t[RATE] += hypergrad_lr * t[PRODUCTS]
        elif lengths != 0.0:
            t[RATE] *= 1.0 + hypergrad_lr * (t[PRODUCTS] / lengths)
    else:
        t[RATE] = t[GIVEN] = lr
    t[STEPS] += 1.0
    t[SQUARES] = t[PRODUCTS] = t[NORMS] = 0.0


class hypergradient_tune(Op):
    """The rate of a step, from the sums of `past_products`.

    It starts at lr, and starts again where lr is another number than in the step before. Else it grows by
    hypergrad_lr·Σd·past, or with `multiplicative` by that share of itself, with past and d of length 1.
    """

    state: ClassVar = {"tuning": "float64 16"}
    hyper = ("lr", "hypergrad_lr", "multiplicative")
    once = True
    update = staticmethod(hypergradient_tune_update)


class _Hypergradient(Tuned, base=True):
    """What both have in common: the rate, and how it changes."""

    _not_in_groups = ("lr", "hypergrad_lr", "multiplicative")
    hypergrad_lr: Any
    multiplicative: bool

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "lr" and isinstance(value, Schedule):
            raise HyperparameterError(
                f"lr is {value!r}; {type(self).__name__} takes the rate of its first step, a number ≥ 0, "
                "because it changes the rate itself: give it a number, or the schedule to SGD or Adam"
            )
        super().__setattr__(name, value)

    def passes(self) -> list[type[Op]]:
        """The sums, the rate made of them, the direction, and the step."""
        found = super().passes()
        at = found.index(self.op)
        before, after = [past_products, hypergradient_tune], [tuned_step]
        return [*found[:at], *before, self.op, *after, *found[at + 1 :]]

    def tuned(self, model: Any) -> dict[str, float]:
        """The rate of a model's last step: {"lr": …}; 0 before the first."""
        return {"lr": self._number(model, RATE)}

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        return {
            "hypergrad_lr": at.hypergrad_lr,
            "multiplicative": float(self.multiplicative),
            "decay": self._decay(at),
        }


class SGDHD(_Hypergradient):
    """SGD with hypergradient descent of its rate α: α ← α + hypergrad_lr·(d·u'), then w ← w − α·u.

    d = g + weight_decay·w. u is the direction of this step, and u' that of the step before: without
    momentum u = d; with momentum μ, v ← μv + d and u = v, or with `nesterov` u = d + μv. d·u', the sum over
    all parameters, is the negative derivative of the loss with respect to the α of the step before. With
    `multiplicative` α ← α·(1 + hypergrad_lr·(d·u')/(‖d‖‖u'‖)), whose hypergrad_lr has no unit.

    α is the same for all groups. A group may have its own weight_decay, momentum, l1 and max_norm. lr is α
    in the first step; another number that is assigned later is α of the next step. A schedule is refused,
    and so is l1_proximal. `tuned` shows α. The authors' package hypergrad has this class under this name,
    with these defaults; `multiplicative` is in the paper alone.

    lr: number ≥ 0 (default 1e-3).
    momentum: number ≥ 0 (default 0).
    weight_decay: number ≥ 0 (default 0).
    nesterov: bool (default False). True needs momentum > 0.
    hypergrad_lr: number ≥ 0 (default 1e-6). The rate of the rate. 0.01 or so suits `multiplicative`.
    multiplicative: bool (default False).
    Source: A. G. Baydin et al., "Online learning rate adaptation with hypergradient descent", ICLR 2018,
    arXiv:1703.04782: algorithms 4 and 5, and the multiplicative rule of its section on these.
    """

    _ranges: ClassVar = {
        "lr": {"low": 0.0},
        "momentum": {"low": 0.0},
        "weight_decay": {"low": 0.0},
        "hypergrad_lr": {"low": 0.0},
    }

    def __init__(
        self,
        lr: float = 1e-3,
        momentum: Number = 0.0,
        weight_decay: Number = 0.0,
        nesterov: bool = False,
        hypergrad_lr: Number = 1e-6,
        multiplicative: bool = False,
        **shared: Any,
    ) -> None:
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.nesterov, self.hypergrad_lr = nesterov, hypergrad_lr
        self.multiplicative = multiplicative
        super().__init__(**shared)

    def __setattr__(self, name: str, value: Any) -> None:
        before = dict(self.__dict__)
        super().__setattr__(name, value)
        try:
            if "nesterov" in self.__dict__:
                self.op  # noqa: B018  (checks the combination)
        except HyperparameterError:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    @property
    def op(self) -> type[Op]:
        """`sgdhd`, or the rule of the form of momentum."""
        if self.nesterov and not is_on(self.momentum):
            raise HyperparameterError(
                f"nesterov=True with momentum={self.momentum}; expected momentum > 0"
            )
        if not is_on(self.momentum):
            return sgdhd
        return sgdhd_nesterov if self.nesterov else sgdhd_momentum

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        return super()._columns(at, t) | {"momentum": at.momentum}


class AdamHD(_Hypergradient):
    """Adam with hypergradient descent of its rate α: α ← α + hypergrad_lr·(d·u'), then w ← w − α·u.

    d = g + weight_decay·w; u is Adam's direction m̂/(√v̂ + eps) in this step and u' that of the step
    before. All else is as for SGDHD.

    lr: number ≥ 0 (default 1e-3).
    betas: two numbers in [0, 1) (default (0.9, 0.999)).
    eps: number ≥ 1.2e-38 (default 1e-8).
    weight_decay: number ≥ 0 (default 0).
    hypergrad_lr: number ≥ 0 (default 1e-8).
    multiplicative: bool (default False).
    Source: A. G. Baydin et al., "Online learning rate adaptation with hypergradient descent", ICLR 2018,
    arXiv:1703.04782, its form of Adam; the multiplicative rule as for SGDHD.
    """

    _ranges: ClassVar = {
        "lr": {"low": 0.0},
        "eps": {"low": SMALLEST_EPS},
        "weight_decay": {"low": 0.0},
        "hypergrad_lr": {"low": 0.0},
    }

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        hypergrad_lr: Number = 1e-8,
        multiplicative: bool = False,
        **shared: Any,
    ) -> None:
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.hypergrad_lr, self.multiplicative = hypergrad_lr, multiplicative
        super().__init__(**shared)

    @property
    def op(self) -> type[Op]:
        """`adamhd`."""
        return adamhd

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        beta1, beta2 = at.betas
        first, count = int(t[0]) + 1, len(t)
        return super()._columns(at, t) | {
            "step_size": 1.0 / correction(beta1, first, count),
            "root_scale": 1.0 / np.sqrt(correction(beta2, first, count)),
            "beta1": beta1,
            "beta2": beta2,
            "eps": at.eps,
        }
