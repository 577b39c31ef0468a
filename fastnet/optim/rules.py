"""The reference updates: one pass over the flat vectors of all parameters, in place.

w are the parameters, g their gradients, the other state vectors start at zero. Hyper-parameters may
change from step to step; all but their products with bias corrections are the optimizer's own.

What decays would end at a denormal number that rounding keeps where it is, and each step with it is
slow on most processors. So a velocity or first moment below the smallest normal number ε₀ becomes 0,
and with it a second moment below ε₀. That alters a step by less than ε₀·lr (of Adam, ε₀·lr/eps).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastnet.op import Array, Op


def is_tiny(a: Array) -> Array:
    """Where a is denormal or zero."""
    return np.asarray(np.abs(a) < np.finfo(a.dtype).smallest_normal)


def set_velocity(v: Array, value: Array) -> None:
    """v ← value, or 0 where that is tiny."""
    np.copyto(v, np.where(is_tiny(value), 0, value))


def set_moments(m: Array, v: Array, first: Array, second: Array) -> None:
    """m ← first and v ← second, or 0 where first is tiny, and second as well."""
    set_velocity(m, first)
    np.copyto(v, np.where(is_tiny(first) & is_tiny(second), 0, second))


class sgd(Op):
    """w ← w − lr·(g + weight_decay·w)."""

    state: ClassVar = {"w": "N"}
    inputs: ClassVar = {"g": "N"}
    dims = ("N",)
    hyper = ("lr", "weight_decay")

    @staticmethod
    def update(w: Array, g: Array, lr: float, weight_decay: float) -> None:
        """Plain gradient descent."""
        w -= lr * (g + weight_decay * w)


class sgd_momentum(Op):
    """v ← momentum·v + damping·(g + weight_decay·w); w ← w − lr·v. damping is 1 − dampening."""

    state: ClassVar = {"w": "N", "v": "N"}
    inputs: ClassVar = {"g": "N"}
    dims = ("N",)
    hyper = ("lr", "weight_decay", "momentum", "damping")

    @staticmethod
    def update(
        w: Array,
        v: Array,
        g: Array,
        lr: float,
        weight_decay: float,
        momentum: float,
        damping: float,
    ) -> None:
        """The velocity, then the step along it."""
        set_velocity(v, momentum * v + damping * (g + weight_decay * w))
        w -= lr * v


class sgd_nesterov(Op):
    """d = g + weight_decay·w; v ← momentum·v + d; w ← w − lr·(d + momentum·v)."""

    state: ClassVar = {"w": "N", "v": "N"}
    inputs: ClassVar = {"g": "N"}
    dims = ("N",)
    hyper = ("lr", "weight_decay", "momentum")

    @staticmethod
    def update(
        w: Array, v: Array, g: Array, lr: float, weight_decay: float, momentum: float
    ) -> None:
        """The velocity, then the step that looks one velocity ahead."""
        d = g + weight_decay * w
        set_velocity(v, momentum * v + d)
        w -= lr * (d + momentum * v)


class adam(Op):
    """d = g + weight_decay·w; m ← β₁m + (1 − β₁)d; v ← β₂v + (1 − β₂)d²;
    w ← w − step_size·m / (√v·root_scale + eps).

    step_size = lr/(1 − β₁ᵗ) and root_scale = 1/√(1 − β₂ᵗ) carry the bias corrections of step t ≥ 1.
    """

    state: ClassVar = {"w": "N", "m": "N", "v": "N"}
    inputs: ClassVar = {"g": "N"}
    dims = ("N",)
    hyper = ("step_size", "root_scale", "beta1", "beta2", "eps", "weight_decay")

    @staticmethod
    def update(
        w: Array,
        m: Array,
        v: Array,
        g: Array,
        step_size: float,
        root_scale: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
    ) -> None:
        """The moments, then the step; eps is added outside the bias-corrected root."""
        d = g + weight_decay * w
        set_moments(m, v, beta1 * m + (1.0 - beta1) * d, beta2 * v + (1.0 - beta2) * (d * d))
        w -= step_size * (m / (np.sqrt(v) * root_scale + eps))


class adamw(Op):
    """w ← shrink·w with shrink = 1 − lr·weight_decay, then Adam's step with d = g."""

    state: ClassVar = {"w": "N", "m": "N", "v": "N"}
    inputs: ClassVar = {"g": "N"}
    dims = ("N",)
    hyper = ("step_size", "root_scale", "beta1", "beta2", "eps", "shrink")

    @staticmethod
    def update(
        w: Array,
        m: Array,
        v: Array,
        g: Array,
        step_size: float,
        root_scale: float,
        beta1: float,
        beta2: float,
        eps: float,
        shrink: float,
    ) -> None:
        """The decay never enters the moments."""
        set_moments(m, v, beta1 * m + (1.0 - beta1) * g, beta2 * v + (1.0 - beta2) * (g * g))
        np.copyto(w, shrink * w - step_size * (m / (np.sqrt(v) * root_scale + eps)))
