"""Schedules one after the other: sequences with milestones, and warm-up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastnet.errors import HyperparameterError, check_real, shown
from fastnet.schedules.base import Array, Schedule, check_steps
from fastnet.schedules.decays import ConstantLR, check_milestones


class SequentialLR(Schedule):
    """One schedule after the other: s(t) = sᵢ(t − mᵢ) for mᵢ ≤ t < mᵢ₊₁, with m₀ = 0.

    schedules: sequence of schedules, or numbers for constant parts.
    milestones: integers ≥ 0 in ascending order, one fewer than schedules: the steps m₁, m₂, … at which
        the second schedule, the third, … begins with its own step 0.
    Source: PyTorch's scheduler of this name.
    """

    def __init__(self, schedules: Iterable[Schedule | float], milestones: Iterable[int]) -> None:
        try:
            given = list(schedules)
        except TypeError:
            raise HyperparameterError(
                f"schedules is {shown(schedules)}; expected schedules in a list"
            ) from None
        parts = tuple(as_schedule(f"schedules[{i}]", s) for i, s in enumerate(given))
        steps = check_milestones(milestones)
        if len(parts) != len(steps) + 1:
            raise HyperparameterError(
                f"milestones has {len(steps)} steps for {len(parts)} schedules; expected one fewer "
                "than there are schedules"
            )
        super().__init__(schedules=parts, milestones=steps)

    @property
    def length(self) -> int | None:
        """The number of steps until the last schedule ends."""
        last = self.schedules[-1].length
        return None if last is None else last + int(self.milestones[-1] if self.milestones else 0)

    def values(self, t: Array) -> Any:
        """The numbers of each schedule at its own steps."""
        starts = np.array((0, *self.milestones), np.int64)
        part = np.searchsorted(starts[1:], t, side="right")
        found = np.empty(len(t))
        for i in np.unique(part):
            here = part == i
            found[here] = self.schedules[i].values(t[here] - starts[i])
        return found


class WarmupLR(Schedule):
    """Linear warm-up, then a schedule from its own step 0.

    s(t) = schedule(0)·(a + (1 − a)·t / warmup_steps) for t < warmup_steps, then
    schedule(t − warmup_steps); a = start_factor.

    schedule: a schedule, or a number for a constant rate.
    warmup_steps: integer ≥ 1.
    start_factor: number in [0, 1] (default None: 1 / (warmup_steps + 1), so that the first steps have
        1, 2, 3, … times that part of the rate).
    Source: P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour",
    arXiv:1706.02677, section 2.2.
    """

    def __init__(
        self, schedule: Schedule | float, warmup_steps: int, start_factor: float | None = None
    ) -> None:
        if start_factor is not None:
            start_factor = check_real("start_factor", start_factor, low=0.0, high=1.0)
        super().__init__(
            schedule=as_schedule("schedule", schedule),
            warmup_steps=check_steps("warmup_steps", warmup_steps),
            start_factor=start_factor,
        )

    @property
    def length(self) -> int | None:
        """The number of steps until the schedule ends."""
        last = self.schedule.length
        return None if last is None else int(last + self.warmup_steps)

    def values(self, t: Array) -> Any:
        """The line, then the schedule."""
        a = 1.0 / (self.warmup_steps + 1) if self.start_factor is None else self.start_factor
        line = self.schedule(0) * (a + (1.0 - a) * (t / self.warmup_steps))
        after = self.schedule.values(np.maximum(t - self.warmup_steps, 0))
        return np.where(t < self.warmup_steps, line, after)


def as_schedule(name: str, value: Any) -> Schedule:
    """Return a schedule, made from a number if necessary, or raise HyperparameterError."""
    if isinstance(value, Schedule):
        return value
    return ConstantLR(check_real(name, value, low=0.0), 1.0, 0)
