"""Validation: the evaluation of a fit's validation data within the native call that trains whole epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastnet.backends.executor import Executor
from fastnet.backends.steps import Evaluation, Steps
from fastnet.data.dataset import Dataset
from fastnet.data.lazy import LazyRows
from fastnet.data.minibatches import batch_offsets
from fastnet.losses.base import Loss
from fastnet.losses.metrics import Metric
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.train.callbacks.base import Callback, is_patient
from fastnet.train.callbacks.monitors import KeepBest
from fastnet.train.ready import Ready, Waiting
from fastnet.train.scores import Decided, epochs_at_once, evaluation_steps, threshold_for

MOST_BYTES = 1 << 23  # of values that epochs of one native call leave


@dataclass(eq=False, repr=False)
class Validation:
    """The validation data of a fit, and what looks at their scores.

    It has the bits of `evaluating` and `measure`. epochs: how many the next native call may have; 0: a
    single one takes too long for Ctrl-C to wait for its end.
    """

    model: Sequential
    loss: Loss
    data: Dataset
    executor: Executor
    decided: Decided
    names: Sequence[str]  # of the metrics
    keeper: KeepBest | None
    epochs: int = 0
    _losses: Array = field(init=False)
    _decisions: Array | None = field(init=False)
    _values: Array | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        rows = self.model.rows_at_once("the validation data", self.data.rows, None)
        self.offsets = batch_offsets(self.data.rows, rows)
        segments = self.executor.storage.segments
        self._sizes = segments["params"].nbytes, segments["buffers"].nbytes
        self._room(1)

    def _room(self, epochs: int) -> None:
        """Make room for what so many epochs leave; that for their values is kept from call to call."""
        rows = self.data.rows
        self._losses = np.empty((epochs, rows))
        self._decisions = np.empty((epochs, rows)) if self.decided else None
        if self.keeper is not None and (self._values is None or len(self._values) < epochs):
            self._values = np.empty((epochs, sum(self._sizes)), np.uint8)

    def most(self, rows: int, share: float) -> int:
        """The most epochs of one native call that is to evaluate so many rows.

        share: of the memory for the values that they leave.
        """
        fit = rows // self.data.rows
        if self.keeper is not None:
            fit = min(fit, int(share * MOST_BYTES) // max(1, sum(self._sizes)))
        return max(1, fit)

    def took(self, epochs: int, seconds: float) -> None:
        """Take into account how long epochs took, with their evaluations."""
        self.epochs = epochs_at_once(self.epochs, epochs, seconds)

    def within(self, epochs: int, steps: int) -> Evaluation:
        """What a chunk of so many epochs of so many steps does after each of them."""
        self._room(epochs)
        made = Steps(np.arange(self.data.rows), self.offsets, 0, 0)
        made.row_losses, made.decisions = self._losses, self._decisions
        kept = None if self._values is None else self._values[:epochs]
        return Evaluation(self.executor, self.data, made, steps, kept)

    def evaluating(
        self, _: Dataset, wait: Callable[[Ready], Waiting[None]] | None, pause: Callable[[], None]
    ) -> Waiting[dict[str, float]]:
        """The scores of the model as it is; see `scores.evaluating`."""
        self._room(1)
        decisions = None if self._decisions is None else self._decisions[0]
        found = None, self._losses[0], decisions
        yield from evaluation_steps(self.executor, self.data, self.offsets, found, wait, pause)
        return {name.removeprefix("val_"): values[0] for name, values in self.found(0, 1).items()}

    def found(self, begin: int, end: int) -> dict[str, list[float]]:
        """The scores of epochs begin … end − 1 of the last call, named as in the history."""
        data, losses = self.data, self._losses[begin:end]
        shares = {} if self._decisions is None else self.decided.shares(self._decisions[begin:end])
        scores = {"loss": self.loss.of_each(losses, data.y, data.w)}
        scores |= {name: shares[name] for name in self.names}
        return {f"val_{name}": values for name, values in scores.items()}

    def keep(self, columns: Mapping[str, Sequence[Any]], begin: int) -> None:
        """Show who keeps the best epoch the records of epochs from `begin` on of the last call."""
        if self.keeper is not None:
            scores = columns[self.keeper.monitor]
            self.keeper.see(columns["epoch"][0], scores, lambda i: self._state(begin + i))

    def _state(self, epoch: int) -> dict[str, Array]:
        """The model's state dict after an epoch of the last call."""
        assert self._values is not None
        params = self._sizes[0]
        values = {"params": self._values[epoch, :params], "buffers": self._values[epoch, params:]}
        storage = self.model.bind()
        return {
            name: p.shown(storage.view(p, values)).copy() for name, p in self.model._named().items()
        }


def with_decisions(
    metrics: Mapping[str, Metric], data: Dataset, row: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[Dataset, Decided] | None:
    """The data set with the threshold of the decisions that tell all metrics; None: these need outputs.

    row, dtype: of the outputs.
    """
    threshold = threshold_for(metrics, row)
    decided = Decided(metrics, data.y, row, threshold)
    # NumPy compares outputs with a threshold of their dtype, and a kernel with one of float64.
    exact = threshold is None or dtype.type(threshold) == threshold
    if len(decided) < len(metrics) or not exact:
        return None
    return replace(data, threshold=threshold), decided


def validation_within(run: Any, callbacks: Sequence[Callback]) -> Validation | None:
    """The validation of a run within its native calls, or None where Python has to look at each epoch.

    It has to where callbacks do, where the scores are not those that decisions of rows tell, where the
    model is evaluated at averages, and where weights are derived from parameters, as with batchnorm folded
    in.
    """
    trainer, data, executor = run.trainer, run.validation, run.executor
    model, loss = trainer.model, trainer.loss
    if data is None or not isinstance(run.data, Dataset) or not executor.whole_epochs:
        return None
    keepers = [callback for callback in callbacks if type(callback) is KeepBest]
    if len(keepers) > 1 or any(not is_patient(c) for c in callbacks if c not in keepers):
        return None
    if trainer._has_points() or trainer._chain.after_epochs or run.data.host is not None:
        return None
    if type(loss).of_rows is not Loss.of_rows or run.scores.metrics:
        return None
    if not executor.backend.reads_rows and any(isinstance(d.x, LazyRows) for d in (run.data, data)):
        return None
    metrics: dict[str, Metric] = trainer.metrics
    both = with_decisions(metrics, data, executor.plan.output_shape, executor.plan.dtype)
    if both is None:
        return None
    data, decided = both
    rows = model.rows_at_once("the validation data", data.rows, None)
    found = model.evaluator(data, rows, loss, outputs=False, within=True)
    if found.derives or not found.whole_epochs:
        return None
    keeper = keepers[0] if keepers else None
    if keeper is not None and model.bind().segments["params"].nbytes > MOST_BYTES // 4:
        return None  # copies cost more than Python, which copies only what is better
    return Validation(model, loss, data, found, decided, list(metrics), keeper)
