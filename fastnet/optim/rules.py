"""The reference updates: one pass over the flat vectors of all parameters, in place.

w are the parameters, g their gradients, the other state vectors start at zero. Hyper-parameters may
change from step to step; all but their products with bias corrections are the optimizer's own.

What decays would end at a denormal number that rounding keeps where it is, and each step with it is
slow on most processors. So a velocity or first moment below the smallest normal number ε₀ becomes 0,
and with it a second moment below ε₀. That alters a step by less than ε₀·lr (of Adam, ε₀·lr/eps).
"""

from __future__ import annotations

from typing import ClassVar

from fastnet.formula import Real, each, formula, is_tiny, madd, sqrt, where
from fastnet.op import Op


@formula
def settled(v: Real) -> Real:
    """What has decayed: v, or 0 where that is tiny."""
    return where(is_tiny(v), 0, v)


class Rule(Op):
    """Base of all rules: an update of w and of vectors as long as it, from the gradient g."""

    inputs: ClassVar = {"g": "N"}
    dims = ("N",)


class sgd(Rule):
    """w ← w − lr·(g + weight_decay·w)."""

    state: ClassVar = {"w": "N"}
    hyper = ("lr", "weight_decay")

    @each
    def update(w: Real, g: Real, lr: float, weight_decay: float) -> Real:
        """Plain gradient descent."""
        return madd(-lr, madd(weight_decay, w, g), w)


class sgd_momentum(Rule):
    """v ← momentum·v + damping·(g + weight_decay·w); w ← w − lr·v. damping is 1 − dampening."""

    state: ClassVar = {"w": "N", "v": "N"}
    hyper = ("lr", "weight_decay", "momentum", "damping")

    @each
    def update(
        w: Real, v: Real, g: Real, lr: float, weight_decay: float, momentum: float, damping: float
    ) -> tuple[Real, Real]:
        """The velocity, then the step along it."""
        d = madd(weight_decay, w, g)
        velocity = settled(madd(damping, d, momentum * v))
        return madd(-lr, velocity, w), velocity


class sgd_nesterov(Rule):
    """d = g + weight_decay·w; v ← momentum·v + d; w ← w − lr·(d + momentum·v)."""

    state: ClassVar = {"w": "N", "v": "N"}
    hyper = ("lr", "weight_decay", "momentum")

    @each
    def update(
        w: Real, v: Real, g: Real, lr: float, weight_decay: float, momentum: float
    ) -> tuple[Real, Real]:
        """The velocity, then the step that looks one velocity ahead."""
        d = madd(weight_decay, w, g)
        velocity = settled(madd(momentum, v, d))
        return madd(-lr, madd(momentum, velocity, d), w), velocity


class adam(Rule):
    """w ← shrink·w; d = g + weight_decay·w; m ← β₁m + (1 − β₁)d; v ← β₂v + (1 − β₂)d²;
    w ← w − step_size·m / (√v·root_scale + eps).

    step_size = lr/(1 − β₁ᵗ) and root_scale = 1/√(1 − β₂ᵗ) carry the bias corrections of step t ≥ 1.
    """

    state: ClassVar = {"w": "N", "m": "N", "v": "N"}
    hyper = ("step_size", "root_scale", "beta1", "beta2", "eps", "weight_decay", "shrink")

    @each
    def update(
        w: Real,
        m: Real,
        v: Real,
        g: Real,
        step_size: float,
        root_scale: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        shrink: float,
    ) -> tuple[Real, Real, Real]:
        """The moments, then the step; eps is added outside the bias-corrected root."""
        d = madd(weight_decay, w, g)
        first = madd(1.0 - beta1, d, beta1 * m)
        second = madd((1.0 - beta2) * d, d, beta2 * v)
        moved = settled(first)
        kept = where(is_tiny(first) & is_tiny(second), 0, second)
        step = moved / madd(sqrt(second), root_scale, eps)
        return madd(-step_size, step, shrink * w), moved, kept
