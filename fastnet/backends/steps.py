"""Training steps as an executor gets them: data, minibatches, updates; and how they may end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastnet.errors import DataError, DivergenceError
from fastnet.op import Array


@dataclass(eq=False, repr=False)
class Data:
    """A data set as native code reads it: contiguous rows x, targets y, weights w; bounds of labels."""

    x: Array
    y: Array
    classes: int = 0  # > 0: y are labels in [0, classes)
    ignored: int = 0  # or this label
    w: Array | None = None  # the samples' weights, of the plan's dtype
    by_rows: bool = False  # a minibatch's mean divides by its rows, and not by its weights


@dataclass(eq=False, repr=False)
class Update:
    """An optimizer's part in training steps: its program, its state and a row of numbers a step."""

    program: np.ndarray
    state: Array
    hyper: Array  # float64 (steps, passes, numbers)
    training: Array | None = None  # the segment of what a trainer adds
    collect_count: int = 0  # instructions of the program that run in every step; the others run
    updates: Array | None = None  # int64 (steps,): where this is not 0 (None: everywhere),
    guard_count: int = 0  # and after so many of them
    norm: Array | None = None  # float64 (1,): this must be finite


@dataclass(eq=False, repr=False)
class Steps:
    """A chunk of training steps: which rows make up each minibatch."""

    index: Array  # int64
    offsets: Array  # int64 (steps + 1,) into index
    seed: int
    first_step: int
    accumulate: bool = False
    outputs: Array | None = None  # out: rows of the model's output, in the order of the index


def bad_label(classes: int, row: int) -> DataError:
    """The error of a label that is out of range."""
    return DataError(
        f"y holds a label outside [0, {classes}) at row {row}: it was changed during training"
    )


def diverged(step: int, loss: float, why: str | None = None) -> DivergenceError:
    """The error of a step whose loss is not finite; `why` is a sentence where that is known."""
    why = why or "A smaller learning rate, or inputs scaled to about 1, usually help"
    return DivergenceError(f"the loss of step {step} is {loss}; its update was not applied. {why}")


def norm_diverged(step: int, norm: float) -> DivergenceError:
    """The error of a step whose gradients have a norm that is not finite."""
    return DivergenceError(
        f"the norm of the gradients of step {step} is {norm}; its update was not applied. A smaller "
        "learning rate usually helps"
    )
