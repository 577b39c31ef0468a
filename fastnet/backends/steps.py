"""Training steps as an executor gets them: minibatches and updates; and the errors that end them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from fastnet.data.dataset import Dataset
from fastnet.errors import DataError, DivergenceError
from fastnet.op import Array, Op


class ParametersNotFinite(Exception):
    """A step at which the parameters were to be looked at has left them not finite."""


@dataclass(eq=False, repr=False)
class Update:
    """An optimizer's part of training steps: its program, a table of numbers, and its segments."""

    program: np.ndarray
    state: Array | None  # the optimizer's vectors
    table: Array  # float64 (steps, rows, numbers)
    training: Array | None = None  # a trainer's additions

    @classmethod
    def alone(
        cls,
        program: np.ndarray,
        ops: Sequence[type[Op]],
        state: Array | None = None,
        training: Array | None = None,
    ) -> Self:
        """An update outside a training step; its table has one step, with a row for each op."""
        width = max((len(op.hyper) for op in ops), default=0)
        return cls(program, state, np.zeros((1, len(ops), width)), training)

    @property
    def segments(self) -> dict[str, Array]:
        """The update's own segments by name."""
        both = {"state": self.state, "training": self.training}
        return {name: segment for name, segment in both.items() if segment is not None}


@dataclass(eq=False, repr=False)
class Evaluation:
    """What a chunk of whole epochs does after each of them: it measures the model, and keeps its values.

    executor: of the steps that measure, on the same backend and model; nobody else loads it meanwhile.
    data, steps: what it loads. The steps are those of one evaluation, and row_losses and decisions have
    room for all of them, one after the other. epoch: steps of the training's epochs.
    """

    executor: Any
    data: Dataset
    steps: Steps
    epoch: int
    kept: Array | None = None  # out: uint8 (epochs, bytes), the segments params and buffers
    _args: np.ndarray = field(init=False)

    def load(self, fields: Mapping[str, np.ndarray]) -> None:
        """Make the steps ready, and tell the training's TRAIN, whose fields these are, where they are."""
        self.executor.load(self.data, self.steps, None)
        self._args = self.executor.begin(len(self.steps.offsets) - 1)
        numbers = {
            "evaluation": self._args.ctypes.data,
            "epoch": self.epoch,
            "evaluated": 0,
            "kept": 0 if self.kept is None else self.kept.ctypes.data,
            "params_bytes": self._values[0].nbytes,
            "buffers_bytes": self._values[1].nbytes,
            "seconds": 0,
        }
        for name, number in numbers.items():
            fields[name][0] = number

    @property
    def _values(self) -> tuple[Array, Array]:
        segments = self.executor.storage.segments
        return segments["params"], segments["buffers"]

    def run(self, args: np.ndarray) -> None:
        """Train with these arguments, whole epochs each with its evaluation."""
        self.executor.backend.train_epochs(args, self._args, self._ended)

    def _ended(self, number: int) -> None:
        """Keep the values that an epoch has left, and let the next evaluation write behind this one."""
        if self.kept is not None:
            np.concatenate(self._values, out=self.kept[number])
        args, rows = self._args, len(self.steps.index)
        args["row_losses"] += 8 * rows
        if self.steps.decisions is not None:
            args["decisions"] += 8 * rows
        args["done"] = 0

    def check(self) -> None:
        """Raise where a step of the last evaluation was refused."""
        self.executor.ended()
        self.executor.outcome()


@dataclass(eq=False, repr=False)
class Steps:
    """A chunk of steps: the rows of each minibatch."""

    index: Array  # int64
    offsets: Array  # int64 (steps + 1,) into index
    seed: int
    first_step: int
    accumulate: bool = False
    outputs: Array | None = None  # out: the model's outputs, in the order of the index
    row_losses: Array | None = None  # out: float64, in the order of the index
    decisions: Array | None = None  # out: float64, in the order of the index
    evaluation: Evaluation | None = None  # after each epoch, where these are whole ones
    # Whether another chunk follows, and nobody reads gradients before.
    goes_on: bool = field(default=False, kw_only=True)

    @property
    def places(self) -> Array:
        """For each row of the index, its number within its minibatch."""
        sizes = np.diff(self.offsets)
        found: Array = np.arange(len(self.index)) - np.repeat(self.offsets[:-1], sizes)
        return found

    def one(self, step: int) -> Steps:
        """One of the steps, on a data set of its rows alone."""
        begin, end = (int(n) for n in self.offsets[step : step + 2])
        found = (
            None if each is None else each[begin:end]
            for each in (self.outputs, self.row_losses, self.decisions)
        )
        outputs, row_losses, decisions = found
        return Steps(
            np.arange(end - begin),
            np.array([0, end - begin]),
            self.seed,
            self.first_step + step,
            self.accumulate,
            outputs,
            row_losses,
            decisions,
        )

    def rows(self, step: int) -> Array:
        """The rows of a step's minibatch."""
        found: Array = self.index[self.offsets[step] : self.offsets[step + 1]]
        return found


def host_loss(data: Dataset, steps: Steps, step: int, output: Array) -> tuple[float, Array]:
    """The loss that Python computes for a step's output, and its gradient in the output's dtype.

    Raises DivergenceError if the gradient is not finite although the loss is.
    """
    assert data.host is not None
    rows = steps.rows(step)
    y, w = data.y[rows], None if data.w is None else data.w[rows]
    loss, gradient = data.host.call(output, y, w)
    with np.errstate(all="ignore"):  # an overflow becomes infinite
        gradient = gradient.astype(output.dtype, copy=False)
    if math.isfinite(loss) and not np.isfinite(gradient).all():
        raise DivergenceError(
            f"the gradient that {data.host.name} returned in step {steps.first_step + step} is not "
            "finite; the step's update was not applied"
        )
    return loss, gradient


def bad_label(classes: int, row: int) -> DataError:
    """The error for a label out of range."""
    return DataError(
        f"y holds a label outside [0, {classes}) at row {row}: it was changed during training"
    )


def diverged(step: int, loss: float, why: str | None = None) -> DivergenceError:
    """The error for a step whose loss is not finite; `why` is a sentence, if the cause is known."""
    why = why or "A smaller learning rate, or inputs scaled to about 1, usually help"
    return DivergenceError(f"the loss of step {step} is {loss}; its update was not applied. {why}")


def norm_diverged(step: int, norm: float) -> DivergenceError:
    """The error for a step whose gradients have a norm that is not finite."""
    return DivergenceError(
        f"the norm of the gradients of step {step} is {norm}; its update was not applied. A smaller "
        "learning rate usually helps"
    )
