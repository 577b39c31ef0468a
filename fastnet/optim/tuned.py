"""Optimizers that tune their own rate in each step, from sums over all parameters.

A step has three parts. `past_products` reads the gradients of all groups and adds up three sums. An op that
runs once makes the numbers of the step of them. A rule moves the parameters by these numbers. All three are
part of the backend's training steps.

The vector `past` is what the rule makes of earlier gradients. The tensor `tuning` has float64 numbers of
all parameters together, at the places below.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.errors import HyperparameterError
from fastnet.op import Array, Op
from fastnet.optim.optimizer import Optimizer

# Σd², Σd·past and Σpast² of this step, until the op that runs once sets them to 0.
SQUARES, PRODUCTS, NORMS = 0, 1, 2
STEPS = 3  # so far
WEIGHT = 4  # of YellowFin's averages: the sum of the weights of all terms so far
HIGHEST, LOWEST = 5, 6  # averages of the logarithms of the greatest and least curvature
MEAN_SQUARE, MEAN_NORM, DISTANCE = 7, 8, 9  # averages of ‖d‖², of ‖d‖, and of their ratio
RATE, MOMENTUM = 10, 11  # of this step
KEPT = 12  # what a long gradient is multiplied by before it enters averages
CLIPPED = 13  # what it is multiplied by in the step
MEASURED, MEASURES = 14, 15  # the measured momentum, and how many steps in a row have measured it
GIVEN = 4  # of hypergradient descent: the lr that the rate has started from


class past_products(Op):
    """tuning[:3] ← tuning[:3] + (Σd², Σd·past, Σpast²), with d = g + weight_decay·w.

    Sums in float64, over M blocks of ⌈N/M⌉ elements and then over the blocks. `sums` is memory.
    """

    state: ClassVar = {"tuning": "float64 16", "sums": "float64 M 3"}
    inputs: ClassVar = {"w": "N", "g": "N", "past": "N"}
    dims = ("N", "M")
    hyper = ("weight_decay",)

    @staticmethod
    def update(
        tuning: Array, sums: Array, w: Array, g: Array, past: Array, weight_decay: float
    ) -> None:
        """Each run of parameters of a group adds its own sums."""
        d, before = (weight_decay * w + g).astype(np.float64), past.astype(np.float64)
        size = -(-g.size // len(sums))
        for i in range(len(sums)):
            block = slice(i * size, (i + 1) * size)
            one, other = d[block], before[block]
            sums[i] = (one * one).sum(), (one * other).sum(), (other * other).sum()
        tuning[:3] += sums.sum(axis=0)


class tuned_step(Op):
    """w ← (1 − rate·decay)·w − rate·past, with the rate of `tuning`."""

    state: ClassVar = {"w": "N"}
    inputs: ClassVar = {"past": "N", "tuning": "float64 16"}
    dims = ("N",)
    hyper = ("decay",)

    @staticmethod
    def update(w: Array, past: Array, tuning: Array, decay: float) -> None:
        """`past` is this step's direction by now."""
        rate = float(tuning[RATE])
        w *= 1.0 - rate * decay
        w -= rate * past


class Tuned(Optimizer, base=True):
    """What optimizers have in common whose rate is in `tuning`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "l1_proximal" and value is not False:
            raise HyperparameterError(
                f"l1_proximal is {value!r}; {type(self).__name__} takes only False, because the proximal "
                "step would need the rate before it is known: use l1 alone, or another optimizer"
            )
        super().__setattr__(name, value)

    def _decay(self, at: Any) -> Any:
        """The weight decay that a rule applies by itself, with its rate."""
        return at.weight_decay if self.decoupled_weight_decay else 0.0

    def _number(self, model: Any, place: int) -> float:
        """A number of the last step, or 0 before the first."""
        return float(model.optimizer_state(self).vectors["tuning"][place])
