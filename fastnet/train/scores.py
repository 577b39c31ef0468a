"""Loss and metrics of an epoch, the same to the last bit however its steps are cut into chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet.errors import DataError, HyperparameterError, shown
from fastnet.losses.base import Loss
from fastnet.losses.metrics import ClassAccuracy, Metric, accuracy
from fastnet.op import Array
from fastnet.plan.compiler import Plan

BLOCK_BYTES = 1 << 26  # outputs that are kept until the metrics see them


RESERVED = ("epoch", "loss", "seconds", "samples_per_second")  # other names of the logs


def metrics_of(loss: Loss, given: Any) -> dict[str, Metric]:
    """The metrics of a trainer by name, `fn.accuracy` as the loss means it; None: the loss's own."""
    own = loss.metrics
    if given is None:
        return dict(own)
    wanted = (
        'functions by name, such as metrics={"mae": lambda y, output: np.abs(y - output).mean()}'
    )
    if not isinstance(given, Mapping):
        raise HyperparameterError(f"metrics is {shown(given)}; expected {wanted}")
    for name, function in given.items():
        if not callable(function) or name in RESERVED or str(name).startswith("val_"):
            raise HyperparameterError(
                f"metrics[{name!r}] is {shown(function)}; expected a function (y, output) → float "
                f"under a name other than {', '.join(RESERVED)}, val_…"
            )
    mine = own.get("accuracy", ClassAccuracy())
    return {name: mine if function is accuracy else function for name, function in given.items()}


def check_metrics(metrics: Mapping[str, Metric], row_shape: tuple[int, ...]) -> None:
    """Raise HyperparameterError where a metric tells nothing of outputs with rows of this shape."""
    for function in metrics.values():
        if isinstance(function, ClassAccuracy):
            function.check((0, *row_shape))


def measure(metrics: Mapping[str, Metric], y: Array, output: Array) -> dict[str, float]:
    """The value of each metric, which sees y and output read-only."""
    values = {}
    y, output = y.view(), output.view()
    y.flags.writeable = output.flags.writeable = False
    for name, function in metrics.items():
        value = function(y, output)
        try:
            values[name] = float(value)
        except (TypeError, ValueError):
            raise DataError(
                f"metrics[{name!r}] returned {shown(value)}; expected a number"
            ) from None
    return values


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
