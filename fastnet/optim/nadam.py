"""NAdam and RAdam."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.formulas.language import Numbers, Real, each, madd, sqrt, where
from fastnet.formulas.portable import exp, powers
from fastnet.op import Array, Op
from fastnet.optim.adam import Adam, adam, corrections, moments
from fastnet.optim.numbers import Number
from fastnet.optim.optimizer import Optimizer
from fastnet.optim.rules import Rule, settled_with

LOG_096 = -0.0408219945202551295
BLOCK = 4096  # steps whose momenta are multiplied together


class nadam(Rule):
    """Adam's moments; w ← shrink·w − (gradient_size·d + step_size·m) / (√v·root_scale + eps).

    gradient_size = lr·(1 − μₜ)/(1 − μ₁…μₜ) and step_size = lr·μₜ₊₁/(1 − μ₁…μₜ₊₁).
    """

    state: ClassVar = {"w": "N", "m": "N", "v": "N"}
    hyper = (*adam.hyper, "gradient_size")

    @each
    def update(w: Real, m: Real, v: Real, g: Real, n: Numbers) -> tuple[Real, Real, Real]:
        """The moments, then the step, to which the gradient also contributes directly."""
        d, first, moved, second = moments(w, m, v, g, n)
        root = madd(sqrt(second), n.root_scale, n.eps)
        step = madd(n.gradient_size, d, n.step_size * moved) / root
        return n.shrink * w - step, moved, settled_with(second, first)


class radam(Rule):
    """Adam's moments; w ← shrink·w − step_size·m / (√v + eps) where adaptive is 1, else − step_size·m.

    step_size contains the bias corrections, and the rectification if adaptive is 1.
    """

    state: ClassVar = {"w": "N", "m": "N", "v": "N"}
    hyper = ("weight_decay", "shrink", "step_size", "adaptive", "beta1", "beta2", "eps")

    @each
    def update(w: Real, m: Real, v: Real, g: Real, n: Numbers) -> tuple[Real, Real, Real]:
        """As in PyTorch, eps is added to the root without bias correction."""
        _, first, moved, second = moments(w, m, v, g, n)
        root = where(n.adaptive > 0, sqrt(second) + n.eps, 1)
        return madd(-n.step_size, moved / root, n.shrink * w), moved, settled_with(second, first)


class NAdam(Optimizer):
    """Adam with Nesterov's momentum.

    d = g + weight_decay·w; m and v as in Adam; μₜ = β₁·(1 − ½·0.96^(t·momentum_decay));
    w ← w − lr·((1 − μₜ)/(1 − μ₁…μₜ)·d + μₜ₊₁/(1 − μ₁…μₜ₊₁)·m) / (√v̂ + eps), t from 1.

    lr: number ≥ 0 (default 2e-3).
    betas: two numbers in [0, 1) (default (0.9, 0.999)).
    eps: number ≥ 1.2e-38 (default 1e-8).
    weight_decay: number ≥ 0 (default 0).
    momentum_decay: number ≥ 0 (default 4e-3).
    The products of μ use the present β₁ and momentum_decay, or their schedules, for all steps. PyTorch's
    products keep the numbers that were assigned at earlier steps.
    Source: T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR 2016 workshop, with the
    schedule of μ that it recommends.
    """

    _ranges: ClassVar = {**Adam._ranges, "momentum_decay": {"low": 0.0}}

    def __init__(
        self,
        lr: Number = 2e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        momentum_decay: float = 4e-3,
        **shared: Any,
    ) -> None:
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.momentum_decay = momentum_decay
        super().__init__(**shared)

    @property
    def op(self) -> type[Op]:
        """`nadam`."""
        return nadam

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        first, count = int(t[0]), len(t)
        mu, product = self._momenta(first, count + 1), self._products(first, count + 1)
        return corrections(at, t) | {
            "gradient_size": at.lr * (1.0 - mu[:-1]) / (1.0 - product[:-1]),
            "step_size": at.lr * mu[1:] / (1.0 - product[1:]),
        }

    def _momenta(self, first: int, count: int) -> Array:
        """μ of steps first, first + 1, … (from 0)."""
        at = self._at(np.arange(first, first + count))
        decay = exp(np.asarray(at.momentum_decay * LOG_096))
        power = powers(decay if decay.ndim else float(decay), first + 1, count)
        return np.asarray(at.betas[0] * (1.0 - 0.5 * power))

    def _products(self, first: int, count: int) -> Array:
        """μ₁…μₙ up to steps first, first + 1, …; 0 where it is negligible beside 1.

        Always multiplied from left to right, so that the bits do not depend on which steps are requested.
        """
        found, before, end = np.zeros(count), 1.0, first + count
        for begin in range(0, end, BLOCK):
            if before < 1e-20:
                break
            mu = self._momenta(begin, min(BLOCK, end - begin))
            mu[0] *= before
            product = np.cumprod(mu)
            before = product[-1]
            skip = max(0, first - begin)
            found[max(0, begin - first) :][: len(product[skip:])] = product[skip:]
        return found


class RAdam(Optimizer):
    """Rectified Adam: w ← w − lr·r·m̂·√(1 − β₂ᵗ) / (√v + eps) once ρ > 5, before that w ← w − lr·m̂.

    d = g + weight_decay·w; m, v and m̂ as in Adam; ρ∞ = 2/(1 − β₂) − 1, ρ = ρ∞ − 2t·β₂ᵗ/(1 − β₂ᵗ) and
    r² = (ρ − 4)(ρ − 2)ρ∞ / ((ρ∞ − 4)(ρ∞ − 2)ρ), t from 1.

    lr: number ≥ 0 (default 1e-3).
    betas: two numbers in [0, 1) (default (0.9, 0.999)).
    eps: number ≥ 1.2e-38 (default 1e-8).
    weight_decay: number ≥ 0 (default 0).
    Source: L. Liu et al., "On the variance of the adaptive learning rate and beyond", ICLR 2020, which
    begins at ρ > 4 and has no eps; both are PyTorch's.
    """

    _ranges: ClassVar = Adam._ranges

    def __init__(
        self,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        **shared: Any,
    ) -> None:
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        super().__init__(**shared)

    @property
    def op(self) -> type[Op]:
        """`radam`."""
        return radam

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        beta2 = at.betas[1]
        power = powers(beta2, int(t[0]) + 1, len(t))
        limit = 2.0 / (1.0 - beta2) - 1.0
        rho = limit - 2.0 * (t + 1) * power / (1.0 - power)
        known = corrections(at, t)
        with np.errstate(all="ignore"):  # where rho ≤ 5, whose results are unused
            square = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
            size = np.where(rho > 5.0, np.sqrt(square * (1.0 - power)), 1.0)
        return known | {"step_size": known["step_size"] * size, "adaptive": rho > 5.0}
