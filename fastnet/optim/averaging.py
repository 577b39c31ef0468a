"""Averages of the parameters over the steps or the epochs of a fit."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastnet.configured import Configured
from fastnet.errors import check_int, check_real
from fastnet.formulas.language import Real, each, madd, where
from fastnet.op import Array, Op


class average(Op):
    """average ← average + rate·(w − average); w itself where rate is 1."""

    state: ClassVar = {"average": "N"}
    inputs: ClassVar = {"w": "N"}
    dims = ("N",)
    hyper = ("rate",)

    @each
    def update(average: Real, w: Real, rate: float) -> Real:
        """A step towards w."""
        return where(rate < 1, madd(rate, w - average, average), w)


class Averaging(Configured, base=True):
    """Base of EMA and SWA: how much each set of parameters counts in the average."""

    each_step: ClassVar[bool]  # or each epoch

    def rates(self, first: int, count: int) -> Array:
        """The rates of the averages first, first + 1, … (from 0): float64 (count,)."""
        raise NotImplementedError

    def takes(self, epoch: int) -> bool:
        """Whether the parameters at the end of an epoch, from 1, are taken."""
        return False

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]


class EMA(Averaging):
    """Exponential moving average: after each step a ← a + (1 − decay)·(w − a); a = w after the first.

    decay: in [0, 1), 0.999 by default.
    Source: B. T. Polyak, A. B. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J.
    Control Optim. 30, 1992, of which it is the variant with a decaying weight.
    """

    each_step = True
    decay: float

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = check_real("decay", decay, low=0.0, high=1.0, open_high=True)

    def rates(self, first: int, count: int) -> Array:
        """1, then always 1 − decay."""
        return np.where(np.arange(first, first + count) == 0, 1.0, 1.0 - self.decay)


class SWA(Averaging):
    """Stochastic weight averaging: after an epoch a ← a + (w − a)/n, the mean of the n sets so far.

    start_epoch: the first epoch, counted from 1, whose end counts. Take a constant or cyclic learning rate
        from there on.
    every: count only each so many epochs from there on; 1 by default.
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
        """From start_epoch on, every so many epochs."""
        return epoch >= self.start_epoch and (epoch - self.start_epoch) % self.every == 0

    def rates(self, first: int, count: int) -> Array:
        """1, then ½, then ⅓: all count the same."""
        return 1.0 / np.arange(first + 1.0, first + 1.0 + count)
