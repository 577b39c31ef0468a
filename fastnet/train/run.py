"""Run: the state of one fit. EpochScores: losses and metrics of its epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.backends.executor import Executor
from fastnet.data.dataset import Dataset
from fastnet.errors import DataError, DivergenceError
from fastnet.losses.metrics import ClassAccuracy, Metric, binary_accuracy
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.optim.optimizer import OptimizerState
from fastnet.plan.compiler import Plan
from fastnet.train.chain import Span
from fastnet.train.scores import measure

MOST_ROWS = 1 << 20  # of the epochs in one native call
BLOCK_BYTES = 1 << 26  # of outputs that are kept for the metrics


@dataclass(eq=False, repr=False)
class Run:
    """The state of one fit."""

    data: Dataset
    offsets: Array
    validation: Dataset | None
    find: Callable[[], Executor]  # under the lock, since plans are shared
    executor: Executor
    scores: EpochScores
    after_epochs: bool  # whether the average takes the parameters after each epoch
    accumulation_steps: int = 1  # minibatches of each update
    shuffle: bool = True
    watched: bool = True  # whether somebody looks at each epoch's record as it comes
    chunk: int = 1  # steps of the next native call

    def whole_epochs(self, most: int) -> int:
        """How many epochs fit into the next native call; 0 where it has part of one."""
        able = self.executor.whole_epochs and self.data.host is None
        if not able or self.after_epochs or self.scores.metrics:
            return 0
        rows = int(self.offsets[-1])
        return min(most, self.chunk // self.scores.steps, max(1, MOST_ROWS // rows))

    def minibatches(self, seed: int, epoch: int, epochs: int) -> tuple[Array, Array]:
        """The rows of epochs epoch, epoch + 1, …, and where their minibatches begin and end."""
        rows, count = int(self.offsets[-1]), self.data.rows
        if self.shuffle:
            index = self.executor.orders(count, seed, epoch, epochs)[:, :rows]
        else:
            index = np.tile(np.arange(rows), (epochs, 1))
        begins = np.arange(epochs, dtype=np.int64)[:, None] * rows + self.offsets[:-1]
        return index.reshape(-1), np.append(begins, epochs * rows)


@dataclass(eq=False, repr=False)
class Loaded:
    """Steps that an executor has ready, and how far they are done."""

    state: OptimizerState
    changes: int  # of the optimizer's hyper-parameters, when the steps' numbers were made
    span: Span
    done: int = 0
    refused: int = 0  # 1: the last of these ends an epoch whose parameters are not finite

    def serves(self, state: OptimizerState) -> bool:
        """Whether something is left, and is still what is to be done."""
        left = self.done < len(self.span.ends)
        return left and state is self.state and state.changes == self.changes


def validation_parts(given: Any) -> tuple[Any, Any, Any]:
    """Inputs, targets and weights (or None) of `validation_data`."""
    try:
        x, y, *weights = given
        (w,) = weights or (None,)
    except (TypeError, ValueError):
        raise DataError("validation_data must be a pair (X, y), or (X, y, sample_weight)") from None
    return x, y, w


def check_parameters(model: Sequential, epoch: int) -> None:
    """Raise DivergenceError where the last update, which no later loss checks, is not finite."""
    flat = model.bind().flat("params")
    if flat.size and not (math.isfinite(flat.min()) and math.isfinite(flat.max())):
        raise parameters_diverged(epoch)


def parameters_diverged(epoch: int) -> DivergenceError:
    """The error of parameters that are not finite."""
    return DivergenceError(
        f"the parameters are not finite after the last update of epoch {epoch}; a "
        "smaller learning rate usually helps (reset() or load_state_dict starts over)"
    )


class EpochScores:
    """Collects what the steps of an epoch record, and measures its metrics.

    Accuracy needs the decisions of rows alone, which the steps record (the op `decision`). Other metrics
    see the outputs of the whole epoch at once if these fit into BLOCK_BYTES. Otherwise they see blocks of
    as many minibatches as fit, and a metric is the mean over the blocks, weighted by rows (`accuracy`: by
    the rows that it counts). A chunk of steps must end at `limit` or before. With `total` the losses of
    minibatches are sums, and so is the loss of the epoch.
    """

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        data: Dataset,
        offsets: Array,
        plan: Plan,
        *,
        total: bool = False,
    ) -> None:
        row_shape, dtype = plan.output_shape, plan.dtype
        self.names, self.offsets, self.total = list(metrics), offsets, total
        self.steps, self.rows = len(offsets) - 1, int(offsets[-1])
        self._decided = {
            name: metric.labels(data.y)  # type: ignore[attr-defined]
            for name, metric in metrics.items()
            if data.threshold is not None and _threshold(metric, row_shape) == data.threshold
        }
        self.metrics = {name: m for name, m in metrics.items() if name not in self._decided}
        row_bytes = math.prod(row_shape) * np.dtype(dtype).itemsize
        batch = int(np.diff(offsets).max())
        fit = max(1, BLOCK_BYTES // max(1, batch * row_bytes))
        self._block = fit if self.metrics else self.steps
        rows = min(self.rows, self._block * batch) if self.metrics else 0
        self._outputs = np.empty((rows, *row_shape), dtype)
        self._decisions = self.room_for_decisions(1)
        self._losses = np.empty(self.steps)
        self._sizes = np.diff(offsets).astype(np.float64)
        self._forget()

    def _forget(self) -> None:
        self._measured = dict.fromkeys(self.metrics, 0.0)
        self._counted = dict.fromkeys(self.metrics, 0)

    def limit(self, step: int) -> int:
        """The step that a chunk beginning with `step` must not pass."""
        return min(self.steps, (step // self._block + 1) * self._block)

    def outputs(self, begin: int, end: int) -> Array | None:
        """The array for the outputs of steps begin … end − 1; None where no metric needs them."""
        if not self.metrics:
            return None
        first = self.offsets[begin // self._block * self._block]
        return self._outputs[self.offsets[begin] - first : self.offsets[end] - first]

    def room_for_decisions(self, epochs: int) -> Array | None:
        """An array for the decisions of so many epochs; None where no metric needs them."""
        return np.empty(epochs * self.rows) if self._decided else None

    def decisions(self, begin: int) -> Array | None:
        """The array for the decisions of an epoch's steps from `begin` on; None where none are needed."""
        return None if self._decisions is None else self._decisions[self.offsets[begin] :]

    def add(self, begin: int, end: int, losses: Array, y: Array, order: Array) -> None:
        """Take the losses of steps begin … end − 1; measure a block of outputs once it is complete."""
        if begin == 0:
            self._forget()
        self._losses[begin:end] = losses
        if self.metrics and end == self.limit(begin):
            first, last = self.offsets[begin // self._block * self._block], self.offsets[end]
            y = y[order[first:last]]
            for name, value in measure(self.metrics, y, self._outputs[: last - first]).items():
                metric = self.metrics[name]
                rows = metric.counted(y) if isinstance(metric, ClassAccuracy) else len(y)
                self._measured[name] += value * rows
                self._counted[name] += rows

    def shares(self, index: Array, decisions: Array | None) -> dict[str, list[float]]:
        """The metrics that decisions tell, for each epoch whose rows and decisions these are."""
        found = {}
        for name, (labels, counts) in self._decided.items():
            right = (decisions == labels[index]).reshape(-1, self.rows)
            if counts is None:
                found[name] = (right.sum(axis=1) / self.rows).tolist()
                continue
            counted = counts[index].reshape(-1, self.rows)
            hits, all_counted = (right & counted).sum(axis=1), counted.sum(axis=1)
            found[name] = (hits / np.maximum(all_counted, 1)).tolist()
        return found

    def mean_loss(self, end: int | None = None) -> float:
        """Loss of the steps before `end` (default: all), mean over samples or sum, in float64."""
        end = self.steps if end is None else end
        if self.total:
            return math.fsum(self._losses[:end])
        return math.fsum(self._losses[:end] * self._sizes[:end]) / float(self.offsets[end])

    def mean_losses(self, losses: Array) -> list[float]:
        """The same for each of several epochs, whose steps' losses these are."""
        if len(losses) == self.steps:  # a single epoch, in a few microseconds
            values = losses if self.total else losses * self._sizes
            total = math.fsum(values.tolist())
            return [total if self.total else total / float(self.offsets[-1])]
        each = losses.reshape(-1, self.steps)
        weighted = each if self.total else each * self._sizes
        if self.steps == 1:
            sums = weighted[:, 0]
        else:
            sums = np.array([math.fsum(epoch) for epoch in weighted.tolist()])
        found: list[float] = (sums if self.total else sums / float(self.offsets[-1])).tolist()
        return found

    def found(
        self, losses: Array, index: Array, decisions: Array | None, first: int
    ) -> dict[str, list[float]]:
        """Loss and metrics of each of several epochs: those from `first` on of an index's.

        losses: of their steps. decisions: of all rows of the index.
        """
        rows = slice(first * self.rows, (first + len(losses) // self.steps) * self.rows)
        shares = {} if decisions is None else self.shares(index[rows], decisions[rows])
        return {"loss": self.mean_losses(losses), **{name: shares[name] for name in self.names}}

    def record(self, index: Array) -> dict[str, float]:
        """The mean loss and the metrics of an epoch with these rows."""
        measured = {n: value / max(1, self._counted[n]) for n, value in self._measured.items()}
        measured |= {n: v for n, (v,) in self.shares(index, self._decisions).items()}
        return {"loss": self.mean_loss(), **{name: measured[name] for name in self.names}}


def _threshold(metric: Any, row: tuple[int, ...]) -> float | None:
    """The threshold of the decisions that tell a metric of outputs with such rows; None: they do not."""
    if type(metric) not in (
        ClassAccuracy,
        binary_accuracy,
    ):  # a subclass may measure something else
        return None
    found: float | None = metric.threshold_of(row)
    return found


def threshold_for(metrics: Mapping[str, Metric], row: tuple[int, ...]) -> float | None:
    """The threshold of the decisions that steps record for metrics: that of the first which takes one."""
    found = (_threshold(metric, row) for metric in metrics.values())
    return next((threshold for threshold in found if threshold is not None), None)
