"""What one fit works with, and what an epoch of it found, however its steps are cut into chunks."""

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

BLOCK_BYTES = 1 << 26  # outputs that are kept until the metrics see them


@dataclass(eq=False, repr=False)
class Run:
    """What one fit works with."""

    data: Dataset
    offsets: Array
    validation: Dataset | None
    find: Callable[[], Executor]  # under the lock: another loss's numbers may be in its plan now
    executor: Executor
    scores: EpochScores
    several: int = 1  # minibatches of one update
    chunk: int = 1  # steps of the next native call


def validation_parts(given: Any) -> tuple[Any, Any, Any]:
    """The inputs, targets and weights (None) of `validation_data`."""
    try:
        x, y, *weights = given
        (w,) = weights or (None,)
    except (TypeError, ValueError):
        raise DataError("validation_data must be a pair (X, y), or (X, y, sample_weight)") from None
    return x, y, w


def check_parameters(model: Sequential, epoch: int) -> None:
    """Raise DivergenceError where the last update, which no loss has seen, was not finite."""
    flat = model.bind().flat("params")
    if flat.size and not (math.isfinite(flat.min()) and math.isfinite(flat.max())):
        raise DivergenceError(
            f"the parameters are not finite after the last update of epoch {epoch}; a "
            "smaller learning rate usually helps (reset() or load_state_dict starts over)"
        )


class EpochScores:
    """Collects losses and outputs of one epoch after the other.

    Metrics see the outputs of the whole epoch at once where these fit into BLOCK_BYTES, otherwise
    blocks of as many minibatches as fit; then a metric is the mean over the blocks, by rows, of which
    `accuracy` counts those that count for it. Chunks of steps must not go beyond `limit`. total: the
    losses of minibatches are sums, and so is that of the epoch.
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
        """The step at which a chunk that begins with `step` must have ended."""
        return min(self.steps, (step // self._block + 1) * self._block)

    def outputs(self, begin: int, end: int) -> Array | None:
        """Where the outputs of steps begin … end − 1 go; None where no metric asks for them."""
        if not self.metrics:
            return None
        first = self.offsets[begin // self._block * self._block]
        return self._outputs[self.offsets[begin] - first : self.offsets[end] - first]

    def add(self, begin: int, end: int, losses: Array, y: Array, order: Array) -> None:
        """Take the losses of steps begin … end − 1; with a block complete, measure its outputs."""
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
        """The mean over the samples of the steps before `end` (all), or sum; in float64, exactly."""
        end = self.steps if end is None else end
        if self.total:
            return math.fsum(self._losses[:end])
        return math.fsum(self._losses[:end] * self._sizes[:end]) / float(self.offsets[end])

    def record(self) -> dict[str, float]:
        """The epoch's mean loss and metrics."""
        measured = {n: value / max(1, self._counted[n]) for n, value in self._measured.items()}
        return {"loss": self.mean_loss(), **measured}
