"""Monotonic schedules: steps, exponentials, powers of 1/t, polynomials, lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np

from fastnet.errors import HyperparameterError, check_real, shown
from fastnet.formulas import portable
from fastnet.schedules.base import FRACTION, NOT_NEGATIVE, Array, Schedule, check_steps


class ConstantLR(Schedule):
    """s(t) = lr·factor for t < total_iters, then lr.

    lr: number ≥ 0.
    factor: number in [0, 1] (default 1/3).
    total_iters: integer ≥ 0 (default 5).
    The defaults are PyTorch's. A rate that never changes is a plain number.
    Source: PyTorch's scheduler of this name.
    """

    _ranges: ClassVar = {"lr": NOT_NEGATIVE, "factor": FRACTION}

    def __init__(self, lr: float, factor: float = 1.0 / 3.0, total_iters: int = 5) -> None:
        super().__init__(
            lr=lr, factor=factor, total_iters=check_steps("total_iters", total_iters, 0)
        )

    def values(self, t: Array) -> Any:
        """Two levels."""
        return np.where(t < self.total_iters, self.lr * self.factor, self.lr)


class StepLR(Schedule):
    """s(t) = lr·gamma^⌊t / step_size⌋.

    lr: number ≥ 0.
    step_size: integer ≥ 1. The steps between two changes.
    gamma: number ≥ 0 (default 0.1).
    Source: PyTorch's scheduler of this name.
    """

    _ranges: ClassVar = {"lr": NOT_NEGATIVE, "gamma": NOT_NEGATIVE}

    def __init__(self, lr: float, step_size: int, gamma: float = 0.1) -> None:
        super().__init__(lr=lr, step_size=check_steps("step_size", step_size), gamma=gamma)

    def values(self, t: Array) -> Any:
        """A staircase."""
        return self.lr * portable.integer_power(self.gamma, t // self.step_size)


class MultiStepLR(Schedule):
    """s(t) = lr·gammaᵏ, where k is the number of milestones ≤ t.

    lr: number ≥ 0.
    milestones: integers ≥ 0 in ascending order; equal ones count separately.
    gamma: number ≥ 0 (default 0.1).
    Source: PyTorch's scheduler of this name.
    """

    _ranges: ClassVar = {"lr": NOT_NEGATIVE, "gamma": NOT_NEGATIVE}

    def __init__(self, lr: float, milestones: Iterable[int], gamma: float = 0.1) -> None:
        super().__init__(lr=lr, milestones=check_milestones(milestones), gamma=gamma)

    def values(self, t: Array) -> Any:
        """A staircase."""
        passed = np.searchsorted(np.array(self.milestones, np.int64), t, side="right")
        return self.lr * portable.integer_power(self.gamma, passed)


class ExponentialLR(Schedule):
    """s(t) = lr·gammaᵗ.

    lr, gamma: numbers ≥ 0.
    Source: PyTorch's scheduler of this name.
    """

    _ranges: ClassVar = {"lr": NOT_NEGATIVE, "gamma": NOT_NEGATIVE}

    def __init__(self, lr: float, gamma: float) -> None:
        super().__init__(lr=lr, gamma=gamma)

    def values(self, t: Array) -> Any:
        """A power of gamma."""
        return self.lr * portable.integer_power(self.gamma, t)


class InverseTimeLR(Schedule):
    """s(t) = lr / (1 + decay·t): the 1/t of stochastic approximation.

    lr: number ≥ 0.
    decay: number ≥ 0 (default 1). At t = 1/decay the rate is half of lr.
    Source: H. Robbins, S. Monro, "A stochastic approximation method", Annals of Mathematical
    Statistics 22 (1951) 400-407, whose steps fall as 1/t.
    """

    _ranges: ClassVar = {"lr": NOT_NEGATIVE, "decay": NOT_NEGATIVE}

    def __init__(self, lr: float, decay: float = 1.0) -> None:
        super().__init__(lr=lr, decay=decay)

    def values(self, t: Array) -> Any:
        """A hyperbola."""
        return self.lr / (1.0 + self.decay * t)


class InverseSqrtLR(Schedule):
    """s(t) = lr·min(n / w, √(w / n)) with n = t + 1, w = warmup_steps: a line, then 1/√n.

    lr: number ≥ 0. The highest rate, at the w-th step.
    warmup_steps: integer ≥ 1 (default 1: no warm-up).
    Source: A. Vaswani et al., "Attention is all you need", NeurIPS 2017, equation 3, which is this with
    lr = 1/√(d·w) for a model of width d.
    """

    _ranges: ClassVar = {"lr": NOT_NEGATIVE}

    def __init__(self, lr: float, warmup_steps: int = 1) -> None:
        super().__init__(lr=lr, warmup_steps=check_steps("warmup_steps", warmup_steps))

    def values(self, t: Array) -> Any:
        """The lower of the line and the root."""
        n = t + 1.0
        return self.lr * np.minimum(n / self.warmup_steps, np.sqrt(self.warmup_steps / n))


class PolynomialLR(Schedule):
    """s(t) = lr·(1 − t / total_iters)^power, and 0 from t = total_iters on.

    lr: number ≥ 0.
    total_iters: integer ≥ 1 (default 5).
    power: number ≥ 0 (default 1).
    Source: PyTorch's scheduler of this name, which is Caffe's policy "poly".
    """

    _ranges: ClassVar = {"lr": NOT_NEGATIVE, "power": NOT_NEGATIVE}

    def __init__(self, lr: float, total_iters: int = 5, power: float = 1.0) -> None:
        total_iters = check_steps("total_iters", total_iters)
        super().__init__(lr=lr, total_iters=total_iters, power=power)

    @property
    def length(self) -> int:
        """total_iters, where the rate becomes 0."""
        return int(self.total_iters)

    def values(self, t: Array) -> Any:
        """A power of the remaining fraction."""
        left = np.maximum(self.total_iters - t, 0) / self.total_iters
        return np.where(left > 0.0, self.lr * portable.power(left, self.power), 0.0)


class LinearLR(Schedule):
    """s(t) = lr·(start_factor + (end_factor − start_factor)·min(t, total_iters) / total_iters).

    lr: number ≥ 0.
    start_factor: number in (0, 1] (default 1/3).
    end_factor: number in [0, 1] (default 1).
    total_iters: integer ≥ 1 (default 5).
    Source: PyTorch's scheduler of this name.
    """

    _ranges: ClassVar = {
        "lr": NOT_NEGATIVE,
        "start_factor": {**FRACTION, "open_low": True},
        "end_factor": FRACTION,
    }

    def __init__(
        self,
        lr: float,
        start_factor: float = 1.0 / 3.0,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        super().__init__(
            lr=lr,
            start_factor=start_factor,
            end_factor=end_factor,
            total_iters=check_steps("total_iters", total_iters),
        )

    def values(self, t: Array) -> Any:
        """A line, then its last value."""
        part = np.minimum(t, self.total_iters) / self.total_iters
        return self.lr * (self.start_factor * (1.0 - part) + self.end_factor * part)


class LambdaLR(Schedule):
    """s(t) = lr·lr_lambda(t), for a function of your own.

    lr: number ≥ 0.
    lr_lambda: function(step) → number ≥ 0, a function of the step alone, because it is called for later
        steps too. A schedule can be pickled if it is a function of a module. A subclass of `Schedule`
        computes many steps at once.
    Source: PyTorch's scheduler of this name.
    """

    _ranges: ClassVar = {"lr": NOT_NEGATIVE}

    def __init__(self, lr: float, lr_lambda: Callable[[int], float]) -> None:
        if not callable(lr_lambda):
            raise HyperparameterError(
                f"lr_lambda is {shown(lr_lambda)}; expected a function of the step"
            )
        super().__init__(lr=lr, lr_lambda=lr_lambda)

    def values(self, t: Array) -> Any:
        """The function's results."""
        found: list[Any] = [
            check_real(f"lr_lambda({step})", self.lr_lambda(step)) for step in t.tolist()
        ]
        return self.lr * np.array(found)


def check_milestones(value: Any) -> tuple[int, ...]:
    """Return steps in ascending order as a tuple, or raise HyperparameterError."""
    try:
        given = list(value)
    except TypeError:
        raise HyperparameterError(
            f"milestones is {shown(value)}; expected steps in a list"
        ) from None
    found = tuple(check_steps(f"milestones[{i}]", v, 0) for i, v in enumerate(given))
    if list(found) != sorted(found):
        raise HyperparameterError(
            f"milestones is {shown(value)}; expected steps in ascending order"
        )
    return found
