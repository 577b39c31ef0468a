"""The scores of a model on a data set: its loss, and metrics by name."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet.backends.steps import Steps
from fastnet.data.dataset import Dataset
from fastnet.data.minibatches import batch_offsets
from fastnet.errors import DataError, HyperparameterError, check_int, shown
from fastnet.losses.base import Loss
from fastnet.losses.function import FunctionLoss
from fastnet.losses.metrics import ClassAccuracy, Metric, accuracy
from fastnet.model import Sequential
from fastnet.model.runtime import PREDICT_ROWS
from fastnet.op import Array

CHUNK_SECONDS = 0.05  # of one native call, between which Ctrl-C and the bar act
FIRST_CHUNK = 8  # steps of the first native call of a validation
RESERVED = ("epoch", "loss", "seconds", "samples_per_second")  # names of other logs


def metrics_of(loss: Loss, given: Any) -> dict[str, Metric]:
    """The given metrics by name, `fn.accuracy` replaced by the loss's accuracy; None: the loss's own."""
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
    """Raise HyperparameterError where a metric cannot score outputs with rows of this shape."""
    for function in metrics.values():
        if isinstance(function, ClassAccuracy):
            function.check((0, *row_shape))


def measure(metrics: Mapping[str, Metric], y: Array, output: Array) -> dict[str, float]:
    """The value of each metric; the arrays that it sees are read-only."""
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


def evaluate(
    model: Sequential, loss: Loss, data: Dataset, batch_size: int | None, outputs: bool
) -> tuple[float, Array]:
    """The loss of a data set in evaluation mode, and the outputs of its rows if `outputs` is true."""
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
        chunk = resized(chunk, done - begin, time.perf_counter() - started)
    return loss.of_rows(losses, data.y, data.w), output


def resized(chunk: int, steps: int, seconds: float) -> int:
    """The number of steps of the next native call, so that it takes about CHUNK_SECONDS.

    `steps` steps took `seconds`. The number grows at most eightfold at a time.
    """
    wanted = int(CHUNK_SECONDS * steps / max(seconds, 1e-6))
    return max(1, min(wanted, 8 * chunk))
