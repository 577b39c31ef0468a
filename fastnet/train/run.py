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
from fastnet.losses.metrics import ClassAccuracy, Metric
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.plan.compiler import Plan
from fastnet.train.scores import measure

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
    accumulation_steps: int = 1  # minibatches of each update
    chunk: int = 1  # steps of the next native call


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
        raise DivergenceError(
            f"the parameters are not finite after the last update of epoch {epoch}; a "
            "smaller learning rate usually helps (reset() or load_state_dict starts over)"
        )


class EpochScores:
    """Collects the losses and outputs of an epoch, and measures its metrics.

    Metrics see the outputs of the whole epoch at once if these fit into BLOCK_BYTES. Otherwise they see
    blocks of as many minibatches as fit, and a metric is the mean over the blocks, weighted by rows
    (`accuracy`: by the rows that it counts). A chunk of steps must end at `limit` or before. With `total`
    the losses of minibatches are sums, and so is the loss of the epoch.
    """

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        offsets: Array,
        plan: Plan,
        *,
        total: bool = False,
    ) -> None:
        row_shape, dtype = plan.output_shape, plan.dtype
        self.metrics, self.offsets = metrics, offsets
        self.total = total
        self.steps = len(offsets) - 1
        row_bytes = math.prod(row_shape) * np.dtype(dtype).itemsize
        batch = int(np.diff(offsets).max())
        self._block = max(1, BLOCK_BYTES // max(1, batch * row_bytes)) if metrics else self.steps
        rows = min(int(offsets[-1]), self._block * batch) if metrics else 0
        self._outputs = np.empty((rows, *row_shape), dtype)
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

    def mean_loss(self, end: int | None = None) -> float:
        """Loss of the steps before `end` (default: all), mean over samples or sum, in float64."""
        end = self.steps if end is None else end
        if self.total:
            return math.fsum(self._losses[:end])
        return math.fsum(self._losses[:end] * self._sizes[:end]) / float(self.offsets[end])

    def record(self) -> dict[str, float]:
        """The epoch's mean loss and metrics."""
        measured = {n: value / max(1, self._counted[n]) for n, value in self._measured.items()}
        return {"loss": self.mean_loss(), **measured}
