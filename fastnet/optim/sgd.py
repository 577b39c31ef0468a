"""Stochastic gradient descent, with momentum in its several forms."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.errors import HyperparameterError, check_choice
from fastnet.formulas.language import Numbers, Real, each, madd
from fastnet.op import Array, Op
from fastnet.optim.numbers import Number, is_on
from fastnet.optim.optimizer import Optimizer, OptimizerState
from fastnet.optim.rules import Rule, settled


class sgd(Rule):
    """w ← shrink·w − lr·(g + weight_decay·w)."""

    state: ClassVar = {"w": "N"}
    hyper = ("lr", "weight_decay", "shrink")

    @each
    def update(w: Real, g: Real, n: Numbers) -> Real:
        """Gradient descent without momentum."""
        return madd(-n.lr, madd(n.weight_decay, w, g), n.shrink * w)


class sgd_momentum(Rule):
    """d = g + weight_decay·w; v ← momentum·v + damping·d; w ← shrink·w − lr·v.

    damping is 1 − dampening.
    """

    state: ClassVar = {"w": "N", "v": "N"}
    hyper = ("lr", "weight_decay", "shrink", "momentum", "damping")

    @each
    def update(w: Real, v: Real, g: Real, n: Numbers) -> tuple[Real, Real]:
        """The velocity, then the step along it."""
        d = madd(n.weight_decay, w, g)
        velocity = settled(madd(n.damping, d, n.momentum * v))
        return madd(-n.lr, velocity, n.shrink * w), velocity


class sgd_nesterov(Rule):
    """d = g + weight_decay·w; v ← momentum·v + d; w ← shrink·w − lr·(d + momentum·v)."""

    state: ClassVar = {"w": "N", "v": "N"}
    hyper = ("lr", "weight_decay", "shrink", "momentum")

    @each
    def update(w: Real, v: Real, g: Real, n: Numbers) -> tuple[Real, Real]:
        """The velocity, then a step that looks one velocity ahead."""
        d = madd(n.weight_decay, w, g)
        velocity = settled(madd(n.momentum, v, d))
        return madd(-n.lr, madd(n.momentum, velocity, d), n.shrink * w), velocity


class sgd_textbook(Rule):
    """v ← momentum·v − lr·(g + weight_decay·w); w ← shrink·w + v."""

    state: ClassVar = {"w": "N", "v": "N"}
    hyper = ("lr", "weight_decay", "shrink", "momentum")

    @each
    def update(w: Real, v: Real, g: Real, n: Numbers) -> tuple[Real, Real]:
        """The velocity contains the learning rate."""
        velocity = settled(madd(-n.lr, madd(n.weight_decay, w, g), n.momentum * v))
        return madd(n.shrink, w, velocity), velocity


class sgd_textbook_nesterov(Rule):
    """d = g + weight_decay·w; v ← momentum·v − lr·d; w ← shrink·w + ahead·v − lr·d.

    w is the point one velocity ahead; `ahead` is the momentum of the next step.
    """

    state: ClassVar = {"w": "N", "v": "N"}
    hyper = ("lr", "weight_decay", "shrink", "momentum", "ahead")

    @each
    def update(w: Real, v: Real, g: Real, n: Numbers) -> tuple[Real, Real]:
        """From one point ahead to the next."""
        d = madd(n.weight_decay, w, g)
        velocity = settled(madd(-n.lr, d, n.momentum * v))
        return madd(n.ahead, velocity, madd(-n.lr, d, n.shrink * w)), velocity


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum μ in PyTorch's form or that of textbooks.

    d = g + weight_decay·w; without momentum w ← w − lr·d. With momentum, by `form`:
    "torch": v ← μv + (1 − dampening)·d (v = d at the first step with momentum) and w ← w − lr·v, or with
        `nesterov` w ← w − lr·(d + μv).
    "textbook": v ← μv − lr·d and w ← w + v, or with `nesterov` Sutskever's form: the parameters hold the
        point w + μv, at which the gradient is taken, and a step moves them to w' + μ'v'.

    Assigning `form` between steps converts the velocity, so that the next step is the same. Momentum that
    is switched on between steps starts v as at a first step, or with its value when it was switched off.

    With constant lr and μ both forms make the same steps. After a change of lr the velocity of "torch"
    follows at once, that of "textbook" gradually.

    lr: number ≥ 0 (default 1e-3). The learning rate.
    momentum: number ≥ 0 (default 0).
    dampening: number (default 0), for form "torch".
    weight_decay: number ≥ 0 (default 0).
    nesterov: bool (default False). True needs momentum > 0 and dampening = 0.
    form: "torch" (default) or "textbook".
    Sources: B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964;
    I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013;
    the parameters as the point ahead: Y. Bengio et al., "Advances in optimizing recurrent networks", 2013.
    """

    _ranges: ClassVar = {
        "lr": {"low": 0.0},
        "momentum": {"low": 0.0},
        "dampening": {},
        "weight_decay": {"low": 0.0},
    }

    def __init__(
        self,
        lr: Number = 1e-3,
        momentum: Number = 0.0,
        dampening: Number = 0.0,
        weight_decay: Number = 0.0,
        nesterov: bool = False,
        form: str = "torch",
        **shared: Any,
    ) -> None:
        self.lr, self.momentum, self.dampening = lr, momentum, dampening
        self.weight_decay, self.nesterov, self.form = weight_decay, nesterov, form
        super().__init__(**shared)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "form":
            check_choice(name, value, ("torch", "textbook"))
        before = dict(self.__dict__)
        super().__setattr__(name, value)
        try:
            if "form" in self.__dict__:
                self.op  # noqa: B018  (checks the combination)
        except HyperparameterError:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    @property
    def op(self) -> type[Op]:
        """`sgd`, or the rule of the form of momentum."""
        if self.nesterov and (not is_on(self.momentum) or self.dampening != 0.0):
            raise HyperparameterError(
                f"nesterov=True with momentum={self.momentum} and dampening={self.dampening}; "
                "expected momentum > 0 and dampening = 0"
            )
        if self.form == "textbook" and self.dampening != 0.0:
            raise HyperparameterError(
                f"form='textbook' with dampening={self.dampening}; expected dampening = 0"
            )
        if not is_on(self.momentum):
            return sgd
        if self.form == "textbook":
            return sgd_textbook_nesterov if self.nesterov else sgd_textbook
        return sgd_nesterov if self.nesterov else sgd_momentum

    def _carried(self, old: OptimizerState, new: OptimizerState, model: Any) -> dict[str, Array]:
        """Convert the velocity between the forms: the textbook's is −lr times PyTorch's."""
        if "v" not in old.vectors or old.options["form"] == self.form:
            return old.vectors
        storage, t = model.bind(), np.array([old.steps])
        velocity = old.vectors["v"].copy()
        for part, group in zip(storage.parts(velocity), new.group_of, strict=True):
            lr = float(np.ravel(new.settings[group]._at(t).lr)[0])
            factor = -lr if self.form == "textbook" else -1 / lr if lr else 0.0
            part *= factor
        return {**old.vectors, "v": velocity}

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        ahead = self.op is sgd_textbook_nesterov
        return {
            "momentum": at.momentum,
            "ahead": self._at(t + 1).momentum if ahead else None,
            "damping": np.where(t == self._since, 1.0, 1.0 - at.dampening),
        }
