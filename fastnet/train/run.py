"""What one fit works with, and its minibatches."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fastnet.backends.executor import Executor
from fastnet.backends.steps import Steps
from fastnet.data.dataset import Dataset
from fastnet.data.minibatches import batch_offsets
from fastnet.errors import DataError, DivergenceError, check_int
from fastnet.layers import BatchNorm1d
from fastnet.losses.base import Loss
from fastnet.losses.function import FunctionLoss
from fastnet.model import Sequential
from fastnet.model.runtime import PREDICT_ROWS
from fastnet.op import Array
from fastnet.train.scores import EpochScores

CHUNK_SECONDS = 0.05  # so that Ctrl-C and the bar stay lively
FIRST_CHUNK = 8  # steps of the first native call of a validation


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

    def resize(self, steps: int, seconds: float) -> None:
        """Aim at CHUNK_SECONDS, growing no more than eightfold at a time."""
        self.chunk = _resized(self.chunk, steps, seconds)


def _resized(chunk: int, steps: int, seconds: float) -> int:
    """The steps of the next native call, where so many took so long."""
    wanted = int(CHUNK_SECONDS * steps / max(seconds, 1e-6))
    return max(1, min(wanted, 8 * chunk))


def validation_parts(given: Any) -> tuple[Any, Any, Any]:
    """The inputs, targets and weights (None) of `validation_data`."""
    try:
        x, y, *weights = given
        (w,) = weights or (None,)
    except (TypeError, ValueError):
        raise DataError("validation_data must be a pair (X, y), or (X, y, sample_weight)") from None
    return x, y, w


def evaluate(
    model: Sequential, loss: Loss, data: Dataset, batch_size: int | None, outputs: bool
) -> tuple[float, Array]:
    """The loss of a data set in evaluation mode, and the outputs of its rows if they are wanted."""
    if isinstance(loss, FunctionLoss):
        output = model.on_host("output", model.predict(data.x, batch_size=batch_size))
        return copy.copy(loss).forward(output, data.y, data.w), output
    rows = PREDICT_ROWS if batch_size is None else check_int("batch_size", batch_size, low=1)
    rows = max(1, min(rows, data.rows))
    executor = model.evaluator(data, rows, loss)
    shape = data.rows if outputs else 0, *executor.plan.output_shape
    output, losses = np.empty(shape, executor.plan.dtype), np.empty(data.rows)
    offsets = batch_offsets(data.rows, rows)
    done, chunk = 0, FIRST_CHUNK
    while done < len(offsets) - 1:
        begin, done = done, min(done + chunk, len(offsets) - 1)
        part = offsets[begin : done + 1]
        these = slice(part[0], part[-1])
        steps = Steps(np.arange(part[0], part[-1]), part - part[0], 0, 0)
        steps.outputs, steps.row_losses = output[these] if outputs else None, losses[these]
        started = time.perf_counter()
        executor.train(data, steps, None)
        chunk = _resized(chunk, done - begin, time.perf_counter() - started)
    return loss.of_rows(losses, data.y, data.w), output


def check_parameters(model: Sequential, epoch: int) -> None:
    """Raise DivergenceError where the last update, which no loss has seen, was not finite."""
    flat = model.bind().flat("params")
    if flat.size and not (math.isfinite(flat.min()) and math.isfinite(flat.max())):
        raise DivergenceError(
            f"the parameters are not finite after the last update of epoch {epoch}; a "
            "smaller learning rate usually helps (reset() or load_state_dict starts over)"
        )


def recompute_statistics(model: Sequential, X: Any, batch_size: int) -> None:
    """Batchnorm's running statistics anew: their means over the minibatches of X, all layers training."""
    x = model.features("X", X)
    norms = [(path, la) for path, la in model.layers if isinstance(la, BatchNorm1d) and la.momentum]
    if not norms:
        return
    names = [f"{path}.running_{what}" for path, _ in norms for what in ("mean", "var")]
    momenta = [layer.momentum for _, layer in norms for _ in range(2)]
    sums: list[Any] = [0.0] * len(names)
    offsets = batch_offsets(len(x), batch_size)
    if len(offsets) > 2 and offsets[-1] - offsets[-2] < model.min_training_rows():
        offsets = offsets[:-1]
    with model.edit() as values:
        for path, _ in norms:
            values[f"{path}.num_batches_tracked"][...] = 0
    modes = [layer.training for _, layer in model.layers]
    model.train()
    for begin, end in pairwise(offsets):
        with model.edit() as values:
            for name in names:
                values[name][...] = 0
        model.forward(x[begin:end])  # running ← momentum·minibatch's
        found = [value for _, la in norms for value in (la.running_mean, la.running_var)]
        sums = [
            total + value.astype(np.float64) / momentum
            for total, value, momentum in zip(sums, found, momenta, strict=True)
        ]
    with model.edit() as values:
        for name, total in zip(names, sums, strict=True):
            values[name][...] = total / (len(offsets) - 1)
    for (_, layer), mode in zip(model.layers, modes, strict=True):
        layer.train(mode)
