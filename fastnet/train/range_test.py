"""The learning-rate range test: losses at growing rates, and the rate that they suggest."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.errors import DivergenceError, HyperparameterError, check_int, check_real
from fastnet.formulas import portable
from fastnet.op import Array
from fastnet.optim.optimizer import Optimizer
from fastnet.plot.figures import figure_of
from fastnet.schedules import ExponentialLR, Schedule
from fastnet.train.scores import resized

FIRST = 10  # steps whose mean loss is the loss at the start
SLOW, FAST = 0.9, 0.8  # factors of moving averages over about ten and five steps


class Snapshot:
    """Copies of a model's segments, for `restore` to write back."""

    def __init__(self, model: Any, names: Iterable[str]) -> None:
        self.model = model
        segments = model.bind().segments
        self.values = {name: segments[name].copy() for name in names}

    def restore(self) -> None:
        """Write the copies back into the model."""
        segments = self.model.bind().segments
        for name, value in self.values.items():
            np.copyto(segments[name], value)
        self.model.touch()


@dataclass(frozen=True, repr=False, eq=False)
class RangeTest:
    """The result of `trainer.find_lr`.

    rates: the learning rate of each step, float64 (steps,). The steps end where the loss is too high.
    losses: the loss of each step before its update, float64 (steps,).
    smoothed: moving average of the losses, float64 (steps,), taken forwards and then backwards so that it
        has no lag. Losses far above the first ones are lowered before.
    suggestion: the rate where the smoothed loss falls most steeply over the logarithm of the rate,
        before its minimum; None where it falls by no more than its noise.
    lowest: the rate at the minimum of the smoothed loss: too high already, as the loss rises from there.
    """

    rates: Array
    losses: Array
    smoothed: Array
    suggestion: float | None
    lowest: float

    def plot(self, figure: Any = None) -> Any:
        """Draw the curve with matplotlib (the extra `plot`), in `figure` or a new one; returns it."""
        made = figure_of(figure, 6.4, 4.8)
        ax = made.add_subplot()
        ax.plot(self.rates, self.losses, color="0.75", linewidth=1, label="each step")
        ax.plot(self.rates, self.smoothed, color="tab:blue", label="smoothed")
        if self.suggestion is not None:
            at = int(np.searchsorted(self.rates, self.suggestion))
            point = self.suggestion, self.smoothed[at]
            label = f"steepest: {self.suggestion:.2g}"
            ax.plot(*point, "o", color="tab:red", label=label)
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss")
        low, high = self.smoothed.min(), max(self.smoothed[0], np.median(self.losses))
        ax.set_ylim(low - 0.15 * (high - low), high + 0.35 * (high - low))
        ax.legend()
        return made

    def __repr__(self) -> str:
        found = "none" if self.suggestion is None else f"{self.suggestion:.3g}"
        return f"<RangeTest of {len(self.rates)} steps, suggestion {found}>"


@dataclass(frozen=True, repr=False, eq=False)
class Trial:
    """The settings of a range test."""

    rates: Schedule
    steps: int
    stop_factor: float

    @classmethod
    def checked(cls, min_lr: Any, max_lr: Any, steps: Any, stop_factor: Any) -> Trial:
        """A trial with rates that grow from min_lr to max_lr, or HyperparameterError."""
        min_lr = check_real("min_lr", min_lr, low=0.0, open_low=True)
        max_lr = check_real("max_lr", max_lr, low=0.0, open_low=True)
        steps = check_int("steps", steps, low=2)
        stop_factor = check_real("stop_factor", stop_factor, low=0.0)
        if not min_lr < max_lr:
            raise HyperparameterError(f"max_lr is {max_lr}; expected more than min_lr = {min_lr}")
        if max_lr > 1e200 * min_lr:
            raise HyperparameterError(
                f"max_lr is {max_lr}; expected at most 1e200·min_lr = {1e200 * min_lr}"
            )
        ends = portable.log(np.array([min_lr, max_lr]))
        gamma = portable.exp((ends[1:] - ends[:1]) / (steps - 1))
        return cls(ExponentialLR(min_lr, float(gamma[0])), steps, stop_factor)

    def optimizer(self, given: Optimizer, step: int) -> Optimizer:
        """A copy of an optimizer with these rates; groups keep the ratio to its rate at this step."""

        def now(rate: Any) -> float:
            return float(rate(step) if isinstance(rate, Schedule) else rate)

        trial: Any = copy.deepcopy(given)
        own = now(trial.lr)
        groups = []
        for group in trial.groups:
            ratio = now(group["lr"]) / own if "lr" in group and own > 0.0 else 1.0
            groups.append({**group, "lr": ratio * self.rates} if "lr" in group else group)
        trial.lr, trial.groups = self.rates, groups
        return trial  # type: ignore[no-any-return]

    def run(
        self, train: Callable[[Array, Array], Array], run: Any, index: Array, offsets: Array
    ) -> RangeTest:
        """Train in chunks of the run's size until the loss is too high or not finite."""
        losses = np.empty(0)
        while len(losses) < self.steps and end_of(losses, self.stop_factor) == len(losses):
            part = offsets[len(losses) : len(losses) + run.chunk + 1]
            started = time.perf_counter()
            try:
                found = train(index[part[0] : part[-1]], part - part[0])
            except DivergenceError:
                losses = np.append(losses, run.executor.losses[: run.executor.steps_done])
                if not len(losses):
                    raise
                break
            losses = np.append(losses, found)
            run.chunk = resized(run.chunk, len(found), time.perf_counter() - started)
        return evaluate(self.rates(np.arange(len(losses))), losses, self.stop_factor)


def end_of(losses: Array, stop_factor: float) -> int:
    """The number of steps before the averaged loss has risen too far, or all."""
    if len(losses) < FIRST:
        return len(losses)
    averaged = _average(losses, SLOW)[FIRST - 1 :]
    limit = np.minimum.accumulate(averaged) + stop_factor * np.abs(losses[:FIRST]).mean()
    high = np.flatnonzero(averaged > limit)
    return FIRST + int(high[0]) if high.size else len(losses)


def evaluate(rates: Array, losses: Array, stop_factor: float) -> RangeTest:
    """Cut the curve where the loss is too high, smooth it, and find its steepest descent."""
    count = end_of(losses, stop_factor)
    rates, losses = rates[:count], losses[:count]
    # Losses after the minimum are huge; averaged backwards, they would hide the minimum.
    averaged = _average(losses, SLOW)
    fall = averaged[: averaged.argmin() + 1]
    bounded = np.minimum(losses, fall.max() + 0.25 * (fall.max() - fall.min()))
    smoothed = _average(_average(bounded, FAST)[::-1], FAST)[::-1]
    lowest = int(smoothed.argmin())
    suggestion, down = None, smoothed[: lowest + 1]
    if down.max() - down.min() > 3.0 * np.median(np.abs(losses - smoothed)[: lowest + 1]):
        # The logarithms of the rates are equally spaced; slopes need more smoothing than the curve.
        slope = np.gradient(_average(_average(bounded, SLOW)[::-1], SLOW)[::-1])
        suggestion = float(rates[slope[: lowest + 1].argmin()])
    return RangeTest(rates, losses, smoothed, suggestion, float(rates[lowest]))


def _average(values: Array, keep: float) -> Array:
    """The exponentially weighted mean of the values so far, with bias correction."""
    total = weight = 0.0
    found = np.empty(len(values))
    for i, value in enumerate(values.tolist()):
        total = keep * total + (1.0 - keep) * value
        weight = keep * weight + (1.0 - keep)
        found[i] = total / weight
    return found
