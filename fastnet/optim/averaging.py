"""Averages of the parameters over steps or epochs of a fit."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastnet.configured import Configured
from fastnet.errors import check_flag, check_int, check_real
from fastnet.formulas.language import Real, each, madd, where
from fastnet.op import Array, Op


class average(Op):
    """average ← average + rate·(w − average), or w if rate is 1."""

    state: ClassVar = {"average": "N"}
    inputs: ClassVar = {"w": "N"}
    dims = ("N",)
    hyper = ("rate",)

    @each
    def update(average: Real, w: Real, rate: float) -> Real:
        """Move the average towards w."""
        return where(rate < 1, madd(rate, w - average, average), w)


class show_average(Op):
    """trained ← w; w ← average."""

    state: ClassVar = {"trained": "N", "w": "N"}  # the reference writes them in this order
    inputs: ClassVar = {"average": "N"}
    dims = ("N",)

    @each
    def update(trained: Real, w: Real, average: Real) -> tuple[Real, Real]:
        """From the parameters of the training to the average."""
        return w, average


class hide_average(Op):
    """w ← trained where w is still the average."""

    state: ClassVar = {"w": "N"}
    inputs: ClassVar = {"trained": "N", "average": "N"}
    dims = ("N",)

    @each
    def update(w: Real, trained: Real, average: Real) -> Real:
        """Back to the parameters of the training, or to those that somebody has changed."""
        return where(w == average, trained, w)


class Averaging(Configured, base=True):
    """Base of EMA and SWA: the weight of each set of parameters in the average."""

    each_step: ClassVar[bool]  # whether it averages after each step, else after an epoch
    evaluate: bool = False  # whether a trainer's model has the average wherever it does not train

    def rates(self, first: int, count: int) -> Array:
        """The rates of the averaging steps first, first + 1, … (from 0): float64 (count,)."""
        raise NotImplementedError

    def takes(self, epoch: int) -> bool:
        """Whether the average takes the parameters at the end of an epoch (from 1)."""
        return False

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]


class EMA(Averaging):
    """Exponential moving average: after each step a ← a + (1 − decay)·(w − a), with a = w after the first.

    decay: number in [0, 1) (default 0.999).
    evaluate: bool (default False). True: the average is what is evaluated. The model's parameters are the
        average wherever it does not train: whenever a validation or callback sees it, and after `fit` and
        `train_on_batch`. So `evaluate`, `restore_best`, `predict`, saving and export use the average. A
        `fit` sets batchnorm's running statistics to means for it, over at most 50 minibatches of the
        training data. The next training goes on, to the bit, with the parameters of the last step; where
        the average has been changed since, with the changed ones. It takes two vectors of memory, not one.
    Source: B. T. Polyak, A. B. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J.
    Control Optim. 30, 1992, in the variant with exponentially decaying weights.
    """

    each_step = True
    decay: float

    def __init__(self, decay: float = 0.999, evaluate: bool = False) -> None:
        self.decay = check_real("decay", decay, low=0.0, high=1.0, open_high=True)
        self.evaluate = check_flag("evaluate", evaluate)

    def rates(self, first: int, count: int) -> Array:
        """1 for the first step, then 1 − decay."""
        return np.where(np.arange(first, first + count) == 0, 1.0, 1.0 - self.decay)


class SWA(Averaging):
    """Stochastic weight averaging: after an epoch a ← a + (w − a)/n, the mean of the n sets so far.

    start_epoch: integer ≥ 1. The first averaged epoch. Use a constant or cyclic learning rate from there.
    every: integer ≥ 1 (default 1). The average takes every so many epochs.
    Source: P. Izmailov et al., "Averaging weights leads to wider optima and better generalization",
    UAI 2018, algorithm 1.
    """

    each_step = False
    start_epoch: int
    every: int

    def __init__(self, start_epoch: int, every: int = 1) -> None:
        self.start_epoch = check_int("start_epoch", start_epoch, low=1)
        self.every = check_int("every", every, low=1)

    def takes(self, epoch: int) -> bool:
        """Every so many epochs from start_epoch on."""
        return epoch >= self.start_epoch and (epoch - self.start_epoch) % self.every == 0

    def rates(self, first: int, count: int) -> Array:
        """1, ½, ⅓, …, so that all sets count equally."""
        return 1.0 / np.arange(first + 1.0, first + 1.0 + count)
