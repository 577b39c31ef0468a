"""What scikit-learn's MLP minimises, and how its solvers step, in fastnet's terms.

The objective of a minibatch of B rows is the mean over rows of their losses, each the sum over outputs,
plus alpha/(2·B) times the squares of all weights.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.formulas import portable
from fastnet.losses import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HalfMSELoss,
    HuberLoss,
    PinballLoss,
    PoissonNLLLoss,
)
from fastnet.losses.base import Loss
from fastnet.losses.penalty import penalized
from fastnet.op import Array
from fastnet.optim import SGD, Adam
from fastnet.schedules.base import Schedule


class Penalized(Loss, base=True):
    """Base of losses with alpha/(2·B) times the squares of the model's weights, a number ≥ 0."""

    by_rows = True  # a pointwise loss is the mean over rows of sums over outputs

    def __init__(self, alpha: float, *given: Any) -> None:
        super().__init__(*given)
        self._config["alpha"] = alpha

    def emit(
        self, g: Builder, output: Any, target: Any, weight: Any = None, *, by_rows: bool = False
    ) -> Any:
        """The loss's own ops, then the penalty of each matrix."""
        loss = super().emit(g, output, target, weight, by_rows=by_rows)
        return penalized(g, loss, self.alpha)


class _CrossEntropy(Penalized, CrossEntropyLoss, base=True):
    """Cross-entropy with the penalty."""


class _Bernoulli(Penalized, BCEWithLogitsLoss, base=True):
    """The log-loss of outputs that are true or not, summed over outputs, with the penalty."""


class _SquaredError(Penalized, HalfMSELoss, base=True):
    """Half the squared error, summed over outputs, with the penalty."""


class _Poisson(Penalized, PoissonNLLLoss, base=True):
    """e^y − t·y, summed over outputs, with the penalty."""


class _Huber(Penalized, HuberLoss, base=True):
    """Huber's loss, summed over outputs, with the penalty."""


class _Pinball(Penalized, PinballLoss, base=True):
    """The pinball loss, summed over outputs, with the penalty."""


def of_classes(alpha: float, link: str) -> Loss:
    """The loss of a classifier whose outputs are a softmax, or each a logistic function."""
    return _CrossEntropy(alpha) if link == "softmax" else _Bernoulli(alpha)


def of_numbers(alpha: float, loss: str, quantile: float, delta: float) -> Loss:
    """The loss of a regressor by its name."""
    if loss == "quantile":
        return _Pinball(alpha, quantile)
    if loss == "huber":
        return _Huber(alpha, delta)
    return _Poisson(alpha) if loss == "poisson" else _SquaredError(alpha)


def poisson_constant(y: Array, weight: Array | None) -> float:
    """The mean over rows of Σ (t·ln t − t), which scikit-learn adds to its Poisson loss."""
    t = y.astype(np.float64)
    terms = np.where(t > 0, t * np.log(np.where(t > 0, t, 1.0)), 0.0) - t
    return float(np.average(terms.sum(axis=1), weights=weight))


class RawEpsilon(Schedule, base=True):
    """s(t) = epsilon/√(1 − beta_2^(t + 1)), Adam's epsilon added to a root without bias correction.

    So lr·m̂/(√v̂ + s) is the step of scikit-learn, lr·√(1 − β₂ᵗ)/(1 − β₁ᵗ)·m/(√v + epsilon).
    """

    _ranges: ClassVar = {"epsilon": {"low": 0.0}, "beta_2": {"low": 0.0}}

    def __init__(self, epsilon: float, beta_2: float) -> None:
        super().__init__(epsilon=epsilon, beta_2=beta_2)

    def values(self, t: Array) -> Any:
        """The number for each step."""
        return self.epsilon / np.sqrt(1.0 - portable.integer_power(self.beta_2, t + 1))


class InverseScaling(Schedule, base=True):
    """s(t) = lr in the first epoch, then lr/(seen + e·rows + 1)^power_t in epoch e, counted from 0.

    steps: of an epoch, of so many rows. seen: rows that earlier fits have trained on.
    """

    _ranges: ClassVar = {"lr": {"low": 0.0}, "power_t": {"low": 0.0}}

    def __init__(self, lr: float, power_t: float, rows: int, steps: int, seen: int = 0) -> None:
        super().__init__(lr=lr, power_t=power_t, rows=rows, steps=steps, seen=seen)

    def values(self, t: Array) -> Any:
        """The rate of each step's epoch."""
        epoch = t // self.steps
        samples = (self.seen + epoch * self.rows + 1).astype(np.float64)
        falling = self.lr * portable.exp(-self.power_t * portable.log(samples))
        return np.where(epoch == 0, self.lr, falling)


def adam(lr: float, beta_1: float, beta_2: float, epsilon: float) -> Adam:
    """scikit-learn's Adam."""
    return Adam(lr=lr, betas=(beta_1, beta_2), eps=RawEpsilon(epsilon, beta_2))


def sgd(lr: Any, momentum: float, nesterov: bool) -> SGD:
    """scikit-learn's SGD, whose velocity contains the rate."""
    return SGD(lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, form="textbook")
