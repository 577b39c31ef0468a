"""Schedules that rise again, or fall by a cosine: warm restarts, one cycle, many cycles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastnet.errors import (
    HyperparameterError,
    check_choice,
    check_flag,
    check_int,
    check_real,
    shown,
)
from fastnet.formulas import portable
from fastnet.schedules.base import NOT_NEGATIVE, Array, Schedule, check_steps

POSITIVE: dict[str, Any] = {"low": 0.0, "open_low": True}


class CosineAnnealingLR(Schedule):
    """s(t) = eta_min + (lr − eta_min)·(1 + cos(π·t / T_max))/2.

    It falls from lr to eta_min at t = T_max and then rises again, as in PyTorch, with period 2·T_max.

    lr: number ≥ 0.
    T_max: integer ≥ 1.
    eta_min: number ≥ 0 (default 0).
    Source: I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017,
    equation 5, without the restarts.
    """

    _ranges: ClassVar = {"lr": NOT_NEGATIVE, "eta_min": NOT_NEGATIVE}

    def __init__(self, lr: float, T_max: int, eta_min: float = 0.0) -> None:
        super().__init__(lr=lr, T_max=check_steps("T_max", T_max), eta_min=eta_min)

    def values(self, t: Array) -> Any:
        """A cosine from lr to eta_min and back."""
        left = np.abs(t % (2 * self.T_max) - self.T_max)
        return between(self.lr, self.eta_min, self.T_max - left, left, portable.cosine_ramp)


class CosineAnnealingWarmRestarts(Schedule):
    """SGDR: s(t) = eta_min + (lr − eta_min)·(1 + cos(π·τ / Tᵢ))/2, τ steps after the last restart.

    lr: number ≥ 0. The rate after a restart.
    T_0: integer ≥ 1. The steps before the first restart. The paper's T are epochs.
    T_mult: integer ≥ 1 (default 1). Each period is so many times as long as the previous one.
    eta_min: number ≥ 0 (default 0).
    Source: I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017,
    equation 5.
    """

    _ranges: ClassVar = {"lr": NOT_NEGATIVE, "eta_min": NOT_NEGATIVE}

    def __init__(self, lr: float, T_0: int, T_mult: int = 1, eta_min: float = 0.0) -> None:
        super().__init__(
            lr=lr,
            T_0=check_steps("T_0", T_0),
            T_mult=check_steps("T_mult", T_mult),
            eta_min=eta_min,
        )

    def values(self, t: Array) -> Any:
        """Half a cosine wave in each period."""
        if self.T_mult == 1:
            since, period = t % self.T_0, np.full(len(t), self.T_0)
        else:
            starts, periods = [0], [self.T_0]
            while starts[-1] + periods[-1] <= t.max(initial=0):
                starts.append(starts[-1] + periods[-1])
                periods.append(periods[-1] * self.T_mult)
            number = np.searchsorted(np.array(starts), t, side="right") - 1
            since, period = t - np.array(starts)[number], np.array(periods, np.float64)[number]
        return between(self.lr, self.eta_min, since, period - since, portable.cosine_ramp)


class CyclicLR(Schedule):
    """s(t) = base_lr + (max_lr − base_lr)·h(t)·a(t), where h has triangles from 0 to 1 and back to 0.

    h rises for step_size_up steps and falls for step_size_down. a(t) is, by `mode`, 1 ("triangular"),
    2⁻ᵏ in cycle k, counted from 0 ("triangular2"), or gammaᵗ ("exp_range").

    base_lr, max_lr: numbers ≥ 0.
    step_size_up: integer ≥ 1 (default 2000).
    step_size_down: integer ≥ 1 (default None: step_size_up).
    mode: "triangular" (default), "triangular2" or "exp_range".
    gamma: number ≥ 0 (default 1).
    base_momentum, max_momentum: numbers ≥ 0 (default 0.8 and 0.9), for `momentum`, the schedule that is
        lowest where this one is highest: `fn.SGD(lr=s, momentum=s.momentum)`.
    PyTorch's scale_fn does not exist here.
    Source: L. N. Smith, "Cyclical learning rates for training neural networks", WACV 2017.
    """

    _ranges: ClassVar = dict.fromkeys(
        ("base_lr", "max_lr", "gamma", "base_momentum", "max_momentum"), NOT_NEGATIVE
    )

    def __init__(
        self,
        base_lr: float,
        max_lr: float,
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
    ) -> None:
        if step_size_down is not None:
            step_size_down = check_steps("step_size_down", step_size_down)
        super().__init__(
            base_lr=base_lr,
            max_lr=max_lr,
            step_size_up=check_steps("step_size_up", step_size_up),
            step_size_down=step_size_down,
            mode=check_choice("mode", mode, ("triangular", "triangular2", "exp_range")),
            gamma=gamma,
            base_momentum=base_momentum,
            max_momentum=max_momentum,
        )

    @property
    def momentum(self) -> CyclicLR:
        """The momentum's schedule, from max_momentum to base_momentum and back."""
        ends = {"base_lr": self.max_momentum, "max_lr": self.base_momentum}
        return CyclicLR(**{**self.__dict__, **ends})

    def values(self, t: Array) -> Any:
        """Triangles whose heights depend on the mode."""
        up = self.step_size_up
        down = up if self.step_size_down is None else self.step_size_down
        number, place = np.divmod(t, up + down)
        height = np.where(place <= up, place / up, (up + down - place) / down)
        if self.mode == "triangular2":
            height = height * portable.integer_power(0.5, number)
        elif self.mode == "exp_range":
            height = height * portable.integer_power(self.gamma, t)
        return self.base_lr + (self.max_lr - self.base_lr) * height


class CosLogLR(Schedule):
    """s(t) = lr·(1 − cos(2π·u))/2, u = log₂(1 + (2^cycles − 1)·t/total_steps): cycles that grow longer.

    Each cycle rises from 0 to lr and falls to 0, and is twice as long as the one before it. The first
    number is 0, and so are all after total_steps.

    lr: number ≥ 0. The highest rate.
    total_steps: integer ≥ 1.
    cycles: integer in [1, 32] (default 4).
    Source: D. Holzmüller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and
    boosted trees on tabular data", NeurIPS 2024 (arXiv 2407.04491), section 3, as coslog₄.
    """

    _ranges: ClassVar = {"lr": NOT_NEGATIVE}

    def __init__(self, lr: float, total_steps: int, cycles: int = 4) -> None:
        super().__init__(
            lr=lr,
            total_steps=check_steps("total_steps", total_steps),
            cycles=check_int("cycles", cycles, low=1, high=32),
        )

    @property
    def length(self) -> int:
        """total_steps."""
        return int(self.total_steps)

    def values(self, t: Array) -> Any:
        """A cosine wave of the logarithm."""
        share = np.minimum(t, self.total_steps) / self.total_steps
        place = portable.log2(1.0 + (2**self.cycles - 1) * share)
        done = place - np.floor(place)  # of a cycle
        low = 2.0 * np.minimum(done, 1.0 - done)  # its nearer end is 0, its middle is 1
        return between(0.0, self.lr, low, 1.0 - low, portable.cosine_ramp)


class FlatCosLR(Schedule):
    """s(t) = lr until step flat·total_steps, then half a cosine wave from lr to 0 at total_steps.

    lr: number ≥ 0.
    total_steps: integer ≥ 1. After it the number stays 0.
    flat: number in [0, 1) (default 0.5). The share of the steps with the number lr.
    Source: D. Holzmüller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and
    boosted trees on tabular data", NeurIPS 2024 (arXiv 2407.04491), section 3, for dropout and weight
    decay; the name is fastai's.
    """

    _ranges: ClassVar = {
        "lr": NOT_NEGATIVE,
        "flat": {"low": 0.0, "high": 1.0, "open_high": True},
    }

    def __init__(self, lr: float, total_steps: int, flat: float = 0.5) -> None:
        super().__init__(lr=lr, total_steps=check_steps("total_steps", total_steps), flat=flat)

    @property
    def length(self) -> int:
        """total_steps."""
        return int(self.total_steps)

    def values(self, t: Array) -> Any:
        """The constant, then the cosine."""
        begin = self.flat * self.total_steps
        done = np.clip(t, begin, self.total_steps) - begin
        left = self.total_steps - begin - done
        return between(self.lr, 0.0, done, left, portable.cosine_ramp)


class _OneCycle(Schedule):
    """A sequence of levels, with a curve from each to the next."""

    @property
    def length(self) -> int:
        """total_steps."""
        return int(self.total_steps)

    def levels(self) -> tuple[float, ...]:
        """The values at the ends of the phases, in order."""
        raise NotImplementedError

    def values(self, t: Array) -> Any:
        """A line or half a cosine wave in each phase, then the last level."""
        rise = self.pct_start * self.total_steps - 1.0  # the step at which the first phase ends
        ends = [rise, 2.0 * rise, self.total_steps - 1.0]
        if not self.three_phase:
            del ends[1]
        levels, ramp = self.levels(), _RAMPS[self.anneal_strategy]
        t = np.minimum(t, self.total_steps - 1)
        found, begin = np.full(len(t), levels[-1]), 0.0
        undone = np.ones(len(t), bool)
        for first, last, end in zip(levels, levels[1:], ends, strict=False):
            here = undone & (t <= end)
            if end > begin:
                found[here] = between(first, last, t[here] - begin, end - t[here], ramp)
            else:
                found[here] = last
            undone, begin = undone & ~here, end
        return found


class OneCycleLR(_OneCycle):
    """s(t) = one cycle: from max_lr/div_factor to max_lr, then to max_lr/(div_factor·final_div_factor).

    The rate rises until step pct_start·total_steps − 1 and falls until total_steps − 1. With `three_phase`
    it falls to its initial value as fast as it rose, and then to the end. After the last step it stays
    constant.

    max_lr: number ≥ 0.
    total_steps: integer ≥ 1; or give epochs and steps_per_epoch, integers ≥ 1, whose product it is.
    pct_start: number in [0, 1], at most 1/2 with three_phase (default 0.3).
    anneal_strategy: "cos" (default) or "linear". The shape of a phase: half a cosine wave, or a line.
    base_momentum, max_momentum: numbers ≥ 0 (default 0.85 and 0.95), for `momentum`, the schedule that is
        lowest where this one is highest: `fn.SGD(lr=s, momentum=s.momentum)`,
        `fn.Adam(lr=s, betas=(s.momentum, 0.999))`.
    div_factor, final_div_factor: numbers > 0 (default 25 and 1e4).
    three_phase: bool (default False).
    Source: L. N. Smith, N. Topin, "Super-convergence: very fast training of neural networks using large
    learning rates", arXiv:1708.07120 (2017). Shape and defaults are PyTorch's (and fastai's); the paper's
    cycle is linear and has three phases.
    """

    _ranges: ClassVar = {
        "max_lr": NOT_NEGATIVE,
        "base_momentum": NOT_NEGATIVE,
        "max_momentum": NOT_NEGATIVE,
        "div_factor": POSITIVE,
        "final_div_factor": POSITIVE,
    }

    def __init__(
        self,
        max_lr: float,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        if total_steps is None and epochs is not None and steps_per_epoch is not None:
            total_steps = check_steps("epochs", epochs)
            total_steps *= check_steps("steps_per_epoch", steps_per_epoch)
        elif total_steps is None or epochs is not None or steps_per_epoch is not None:
            raise HyperparameterError(
                f"total_steps is {shown(total_steps)}, epochs {shown(epochs)} and steps_per_epoch "
                f"{shown(steps_per_epoch)}; expected total_steps alone, or the other two"
            )
        super().__init__(
            max_lr=max_lr,
            epochs=None,
            steps_per_epoch=None,
            **_check_cycle(total_steps, pct_start, anneal_strategy, three_phase),
            base_momentum=base_momentum,
            max_momentum=max_momentum,
            div_factor=div_factor,
            final_div_factor=final_div_factor,
        )

    @property
    def momentum(self) -> OneCycleMomentum:
        """The momentum's schedule, from max_momentum to base_momentum and back."""
        names = ("total_steps", "base_momentum", "max_momentum", "pct_start", "anneal_strategy")
        chosen = {name: getattr(self, name) for name in names}
        return OneCycleMomentum(**chosen, three_phase=self.three_phase)

    def levels(self) -> tuple[float, ...]:
        """Start, maximum, (start,) end."""
        start = self.max_lr / self.div_factor
        back = (start,) if self.three_phase else ()
        return (start, self.max_lr, *back, start / self.final_div_factor)


class OneCycleMomentum(_OneCycle):
    """s(t) = max_momentum down to base_momentum and back: the momentum for `OneCycleLR`.

    total_steps: integer ≥ 1.
    base_momentum, max_momentum: numbers ≥ 0 (default 0.85 and 0.95).
    pct_start, anneal_strategy, three_phase: as in OneCycleLR. In a third phase it stays at max_momentum.
    Source: as for OneCycleLR.
    """

    _ranges: ClassVar = {"base_momentum": NOT_NEGATIVE, "max_momentum": NOT_NEGATIVE}

    def __init__(
        self,
        total_steps: int,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        three_phase: bool = False,
    ) -> None:
        super().__init__(
            **_check_cycle(total_steps, pct_start, anneal_strategy, three_phase),
            base_momentum=base_momentum,
            max_momentum=max_momentum,
        )

    def levels(self) -> tuple[float, ...]:
        """Maximum, base, maximum (, maximum)."""
        high = self.max_momentum
        return (high, self.base_momentum, high, high)[: 4 if self.three_phase else 3]


def _check_cycle(
    total_steps: int, pct_start: float, anneal_strategy: str, three_phase: bool
) -> dict[str, Any]:
    three_phase = check_flag("three_phase", three_phase)
    return {
        "total_steps": check_steps("total_steps", total_steps),
        "pct_start": check_real("pct_start", pct_start, low=0.0, high=0.5 if three_phase else 1.0),
        "anneal_strategy": check_choice("anneal_strategy", anneal_strategy, tuple(_RAMPS)),
        "three_phase": three_phase,
    }


# The fraction of the way after the first half of a phase; the second half is the same in reverse.
_RAMPS: dict[str, Callable[[Array], Array]] = {"cos": portable.cosine_ramp, "linear": np.asarray}


def between(
    first: float, last: float, done: Array, left: Array, ramp: Callable[[Array], Array]
) -> Array:
    """The value between first and last after `done` steps with `left` to go, exact at both ends."""
    low = ramp(np.minimum(done, left) / (done + left))
    high = 1.0 - low
    return np.where(done <= left, first * high + last * low, first * low + last * high)
