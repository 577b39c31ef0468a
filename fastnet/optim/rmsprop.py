"""RMSprop."""

from __future__ import annotations

from typing import Any, ClassVar

from fastnet.formulas.language import Numbers, Real, each, formula, madd, maximum, sqrt
from fastnet.op import Array, Op
from fastnet.optim.numbers import Number, is_on
from fastnet.optim.optimizer import SMALLEST_EPS, Optimizer
from fastnet.optim.rules import Rule, mean, mean_square, settled, settled_with


@formula
def scaled(w: Real, v: Real, g: Real, n: Numbers) -> tuple[Real, Real, Real]:
    """d = g + weight_decay·w, the new v, and d / (√v + eps)."""
    d = madd(n.weight_decay, w, g)
    squares = mean_square(v, d, n.alpha)
    return d, squares, d / (sqrt(squares) + n.eps)


@formula
def centred(w: Real, v: Real, a: Real, g: Real, n: Numbers) -> tuple[Real, Real, Real, Real]:
    """The new v, the new a before and after `settled`, and d / (√max(v − a², 0) + eps)."""
    d = madd(n.weight_decay, w, g)
    squares = mean_square(v, d, n.alpha)
    first = mean(a, d, n.alpha)
    centre = settled(first)
    root = sqrt(maximum(madd(-centre, centre, squares), 0)) + n.eps
    return squares, first, centre, d / root


class rmsprop(Rule):
    """d = g + weight_decay·w; v ← αv + (1 − α)d²; w ← shrink·w − lr·d / (√v + eps)."""

    state: ClassVar = {"w": "N", "v": "N"}
    hyper = ("lr", "weight_decay", "shrink", "alpha", "eps")

    @each
    def update(w: Real, v: Real, g: Real, n: Numbers) -> tuple[Real, Real]:
        """Divides the gradient by the root of its mean square."""
        d, squares, step = scaled(w, v, g, n)
        return madd(-n.lr, step, n.shrink * w), settled_with(squares, d)


class rmsprop_momentum(Rule):
    """RMSprop with b ← momentum·b + d / (√v + eps); w ← shrink·w − lr·b."""

    state: ClassVar = {"w": "N", "v": "N", "b": "N"}
    hyper = ("lr", "weight_decay", "shrink", "alpha", "eps", "momentum")

    @each
    def update(w: Real, v: Real, b: Real, g: Real, n: Numbers) -> tuple[Real, Real, Real]:
        """The velocity contains scaled gradients."""
        d, squares, step = scaled(w, v, g, n)
        velocity = settled(madd(n.momentum, b, step))
        return madd(-n.lr, velocity, n.shrink * w), settled_with(squares, d), velocity


class rmsprop_centered(Rule):
    """RMSprop with a ← αa + (1 − α)d and √max(v − a², 0) in place of √v."""

    state: ClassVar = {"w": "N", "v": "N", "a": "N"}
    hyper = ("lr", "weight_decay", "shrink", "alpha", "eps")

    @each
    def update(w: Real, v: Real, a: Real, g: Real, n: Numbers) -> tuple[Real, Real, Real]:
        """The root is the gradient's standard deviation."""
        squares, first, centre, step = centred(w, v, a, g, n)
        return madd(-n.lr, step, n.shrink * w), settled_with(squares, first), centre


class rmsprop_centered_momentum(Rule):
    """RMSprop, centred and with momentum."""

    state: ClassVar = {"w": "N", "v": "N", "a": "N", "b": "N"}
    hyper = ("lr", "weight_decay", "shrink", "alpha", "eps", "momentum")

    @each
    def update(
        w: Real, v: Real, a: Real, b: Real, g: Real, n: Numbers
    ) -> tuple[Real, Real, Real, Real]:
        """First `rmsprop_centered`, then `rmsprop_momentum`."""
        squares, first, centre, step = centred(w, v, a, g, n)
        velocity = settled(madd(n.momentum, b, step))
        return madd(-n.lr, velocity, n.shrink * w), settled_with(squares, first), centre, velocity


class RMSprop(Optimizer):
    """RMSprop: v ← αv + (1 − α)d², w ← w − lr·d / (√v + eps).

    d = g + weight_decay·w. With `centered`, a ← αa + (1 − α)d, and √(v − a²) replaces √v (0 if rounding
    makes the difference negative; PyTorch gives NaN there). With momentum, b ← momentum·b + d / (√v + eps)
    and w ← w − lr·b.

    lr: number ≥ 0 (default 1e-2).
    alpha: number in [0, 1] (default 0.99).
    eps: number ≥ 1.2e-38 (default 1e-8).
    weight_decay: number ≥ 0 (default 0).
    momentum: number ≥ 0 (default 0).
    centered: bool (default False).
    Sources: G. Hinton, "Neural networks for machine learning", lecture 6e, 2012; centered: A. Graves,
    "Generating sequences with recurrent neural networks", arXiv:1308.0850, which has eps in the root.
    """

    _ranges: ClassVar = {
        "lr": {"low": 0.0},
        "alpha": {"low": 0.0, "high": 1.0},
        "eps": {"low": SMALLEST_EPS},
        "weight_decay": {"low": 0.0},
        "momentum": {"low": 0.0},
    }

    def __init__(
        self,
        lr: Number = 1e-2,
        alpha: Number = 0.99,
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        momentum: Number = 0.0,
        centered: bool = False,
        **shared: Any,
    ) -> None:
        self.lr, self.alpha, self.eps, self.weight_decay = lr, alpha, eps, weight_decay
        self.momentum, self.centered = momentum, centered
        super().__init__(**shared)

    @property
    def op(self) -> type[Op]:
        """`rmsprop`, centered or not, with momentum or without."""
        if is_on(self.momentum):
            return rmsprop_centered_momentum if self.centered else rmsprop_momentum
        return rmsprop_centered if self.centered else rmsprop

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        return {"alpha": at.alpha, "eps": at.eps, "momentum": at.momentum}
