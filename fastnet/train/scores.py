"""The scores of a model on a data set: its loss, and metrics by name."""

from __future__ import annotations

import copy
import difflib
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastnet.backends.executor import Executor
from fastnet.backends.steps import Steps
from fastnet.data.dataset import Dataset
from fastnet.data.minibatches import batch_offsets
from fastnet.errors import DataError, HyperparameterError, shown
from fastnet.losses.base import Loss
from fastnet.losses.function import FunctionLoss
from fastnet.losses.metrics import ClassAccuracy, Metric, accuracy, binary_accuracy
from fastnet.losses.named_metrics import KINDS, NamedMetric
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.parameter import check_array, check_count, check_names
from fastnet.plan.compiler import Plan
from fastnet.train.ready import Ready, Waiting

CHUNK_SECONDS = 0.05  # of one native call, between which Ctrl-C and the bar act
BLOCK_BYTES = 1 << 26  # of outputs that are kept for the metrics
FIRST_CHUNK = 8  # steps of the first native call of a validation
KNOWN = ("accuracy", *KINDS)  # metrics with names
RESERVED = ("epoch", "loss", "seconds", "samples_per_second")  # names of other logs


def metrics_of(loss: Loss, given: Any) -> dict[str, Metric]:
    """The given metrics by name, each told its loss; None: the loss's own."""
    own = loss.metrics
    if given is None:
        return dict(own)
    found = {}
    for name, metric in by_name(given).items():
        if isinstance(metric, str):
            metric = _named(
                f"metrics[{name!r}]" if isinstance(given, Mapping) else "metrics", metric
            )
        if not callable(metric) or name in RESERVED or str(name).startswith("val_"):
            raise HyperparameterError(
                f"metrics[{name!r}] is {shown(metric)}; expected a function (y, output) → float, or a name "
                f"as {KNOWN[0]!r}, under a name other than {', '.join(RESERVED)}, val_…"
            )
        if metric is accuracy:
            metric = own.get("accuracy", ClassAccuracy(loss.ignore_index))
        found[name] = metric.of(loss) if isinstance(metric, NamedMetric) else metric
    return found


def by_name(given: Any) -> dict[str, Any]:
    """Metrics by name from a mapping, or from a list of names and metrics that have one."""
    if isinstance(given, Mapping):
        return dict(given)
    wanted = (
        f"names out of {', '.join(KNOWN)}, or functions by name, such as "
        'metrics={"mean": lambda y, output: output.mean()}'
    )
    if not isinstance(given, (list, tuple)):
        raise HyperparameterError(f"metrics is {shown(given)}; expected {wanted}")
    found: dict[str, Any] = {}
    for metric in given:
        name = metric.name if isinstance(metric, NamedMetric) else metric
        if not isinstance(name, str):
            raise HyperparameterError(f"metrics holds {shown(metric)}; expected {wanted}")
        if name in found:
            raise HyperparameterError(
                f"metrics holds {name!r} twice; expected other names: metrics={{{name + '_a'!r}: ...}}"
            )
        found[name] = metric
    return found


def _named(what: str, name: str) -> Metric:
    """The metric of a name."""
    if name == "accuracy":
        return accuracy
    if name not in KINDS:
        near = difflib.get_close_matches(name, KNOWN, 1)
        remedy = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(KNOWN)}"
        raise HyperparameterError(f"{what} has {shown(name)}; {remedy}")
    return KINDS[name]()


def check_metrics(
    metrics: Mapping[str, Metric], row_shape: tuple[int, ...], target_shape: tuple[int, ...]
) -> None:
    """Raise HyperparameterError where a metric cannot score rows of outputs and targets of these shapes."""
    for function in metrics.values():
        if isinstance(function, ClassAccuracy):
            function.check((0, *row_shape))
        elif isinstance(function, NamedMetric):
            function.check(row_shape, target_shape)


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


def _nothing() -> None:
    pass


def evaluating(
    model: Sequential,
    loss: Loss,
    data: Dataset,
    batch_size: int | None,
    outputs: bool,
    wait: Callable[[Ready], Waiting[None]] | None = None,
    pause: Callable[[], None] = _nothing,
) -> Waiting[tuple[float, Array]]:
    """The loss of a data set in evaluation mode, and the outputs of its rows if `outputs` is true.

    wait: a function that lets somebody else run the steps; None: they run here. pause: called between
    native calls; it may raise.
    """
    if isinstance(loss, FunctionLoss):
        output = model.on_host("output", model.predict(data.x, batch_size=batch_size))
        return copy.copy(loss).forward(output, data.y, data.w), output
    rows = model.rows_at_once("X", data.rows, batch_size)
    executor = model.evaluator(data, rows, loss, outputs=outputs)
    shape = data.rows if outputs else 0, *executor.plan.output_shape
    output, losses = np.empty(shape, executor.plan.dtype), np.empty(data.rows)
    offsets, found = batch_offsets(data.rows, rows), (output if outputs else None, losses, None)
    yield from evaluation_steps(executor, data, offsets, found, wait, pause)
    return loss.of_rows(losses, data.y, data.w), output


def evaluation_steps(
    executor: Executor,
    data: Dataset,
    offsets: Array,
    found: tuple[Array | None, Array | None, Array | None],
    wait: Callable[[Ready], Waiting[None]] | None = None,
    pause: Callable[[], None] = _nothing,
) -> Waiting[None]:
    """Run the steps of an evaluation, see `evaluating`; found: out, the outputs, losses and decisions."""
    done, chunk = 0, FIRST_CHUNK if wait is None else len(offsets)
    while done < len(offsets) - 1:
        begin, done = done, min(done + chunk, len(offsets) - 1)
        part = offsets[begin : done + 1]
        steps = Steps(np.arange(part[0], part[-1]), part - part[0], 0, 0)
        steps.outputs, steps.row_losses, steps.decisions = (
            None if each is None else each[part[0] : part[-1]] for each in found
        )
        started = time.perf_counter()
        if wait is None:
            executor.train(data, steps, None)
            chunk = resized(chunk, done - begin, time.perf_counter() - started)
            pause()
            continue
        executor.load(data, steps, None)
        try:
            yield from wait(Ready(executor, done))
        finally:
            executor.unload()


def first_chunk(seconds: float) -> int:
    """The number of steps of the first native call, each of which takes at most so many seconds."""
    return max(1, int(CHUNK_SECONDS / seconds))


def resized(chunk: int, steps: int, seconds: float) -> int:
    """The number of steps of the next native call, so that it takes about CHUNK_SECONDS.

    `steps` steps took `seconds`. The number grows at most eightfold at a time.
    """
    wanted = int(CHUNK_SECONDS * steps / max(seconds, 1e-6))
    return max(1, min(wanted, 8 * chunk))


def epochs_at_once(before: int, epochs: int, seconds: float) -> int:
    """The same of whole epochs with their evaluations; 0: a single one takes longer."""
    return min(int(CHUNK_SECONDS * epochs / max(seconds, 1e-6)), 8 * max(1, before))


class Decided:
    """The metrics that the decisions of rows tell.

    They are those of `metrics` that take decisions at a threshold, of outputs with rows of this shape and
    targets y.
    """

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        y: Array,
        row_shape: tuple[int, ...],
        threshold: float | None,
    ) -> None:
        self._parts = {
            name: metric.labels(y)  # type: ignore[attr-defined]
            for name, metric in metrics.items()
            if threshold is not None and decides(metric, row_shape, threshold)
        }

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def __len__(self) -> int:
        return len(self._parts)

    def shares(self, decisions: Array, index: Array | None = None) -> dict[str, list[float]]:
        """Each metric for each of several epochs: decisions (epochs, rows), of the rows `index` or all."""
        found = {}
        rows = decisions.shape[1]
        for name, (labels, counts) in self._parts.items():
            of_rows = labels if index is None else labels.take(index)  # faster than labels[index]
            right = decisions == of_rows.reshape(-1, rows)
            if counts is None:
                found[name] = (count_true(right) / rows).tolist()
                continue
            counted = (counts if index is None else counts.take(index)).reshape(-1, rows)
            hits, all_counted = count_true(right & counted), count_true(counted)
            found[name] = (hits / np.maximum(all_counted, 1)).tolist()
        return found


def count_true(found: Array) -> Array:
    """How many are true in each row of a matrix of bools."""
    # Four times as fast as a sum of bools, which NumPy makes 64-bit integers first.
    short = found.shape[1] < 2**31
    counts: Array = np.add.reduce(
        found.view(np.int8), axis=1, dtype=np.int32 if short else np.int64
    )
    return counts


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
        self._made_of = metrics, data, plan
        row_shape, dtype = plan.output_shape, plan.dtype
        self.names, self.offsets, self.total = list(metrics), offsets, total
        self.steps, self.rows = len(offsets) - 1, int(offsets[-1])
        self._decided = Decided(metrics, data.y, row_shape, data.threshold)
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
        self._order: Array  # the epoch's rows
        self._forget()

    def like(self, offsets: Array) -> EpochScores:
        """The same for other minibatches."""
        metrics, data, plan = self._made_of
        return EpochScores(metrics, data, offsets, plan, total=self.total)

    def _forget(self) -> None:
        self._measured = dict.fromkeys(self.metrics, 0.0)
        self._counted = dict.fromkeys(self.metrics, 0)

    def state_dict(self, done: int) -> dict[str, Any]:
        """What the steps of an epoch before step `done` have left, for `load_state_dict`."""
        found = {
            "losses": self._losses[:done],
            "measured": self._measured,
            "counted": self._counted,
        }
        if self.metrics and done % self._block:
            found["outputs"] = self._outputs[: self._in_block(done)]
        if self._decisions is not None:
            found["decisions"] = self._decisions[: self.offsets[done]]
        return found

    def load_state_dict(self, done: int, state: Mapping[str, Any]) -> None:
        """Continue an epoch with step `done`, or raise StateDictError and change nothing."""
        expected = self.state_dict(done)
        check_names("scores", state, expected)
        for name in ("measured", "counted"):
            check_names(f"scores[{name!r}]", state[name], self.metrics)
        numbers = {
            n: check_array(f"scores[{n!r}]", state[n], expected[n].shape)
            for n in expected.keys() - {"measured", "counted"}
        }
        measured = {
            n: float(check_array(f"scores of {n}", v, ())) for n, v in state["measured"].items()
        }
        counted = {n: check_count(f"rows of {n}", v) for n, v in state["counted"].items()}
        for name, values in numbers.items():
            np.copyto(expected[name], values)
        self._measured, self._counted = measured, counted

    def _in_block(self, step: int) -> int:
        """The rows of a block of minibatches before a step within it."""
        return int(self.offsets[step] - self.offsets[step // self._block * self._block])

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
        self._losses[begin:end], self._order = losses, order
        if self.metrics and end == self.limit(begin):
            first, last = self.offsets[begin // self._block * self._block], self.offsets[end]
            y = y[order[first:last]]
            for name, value in measure(self.metrics, y, self._outputs[: last - first]).items():
                rows = rows_of(self.metrics[name], y)
                self._measured[name] += value * rows
                self._counted[name] += rows

    def shares(self, index: Array, decisions: Array | None) -> dict[str, list[float]]:
        """The metrics that decisions tell, for each epoch whose rows and decisions these are."""
        if decisions is None:
            return {}
        return self._decided.shares(decisions.reshape(-1, self.rows), index)

    def mean_loss(self, end: int | None = None) -> float:
        """Loss of the steps before `end` (default: all), mean over samples or sum, in float64."""
        end = self.steps if end is None else end
        if self.total:
            return math.fsum(self._losses[:end])
        return math.fsum(self._losses[:end] * self._sizes[:end]) / float(self.offsets[end])

    def mean_losses(self, losses: Array) -> list[float]:
        """The same for each of several epochs, whose steps' losses these are."""
        if len(losses) == self.steps == 1:  # a single epoch, in less than a microsecond
            loss = losses.item()
            return [loss if self.total else loss * self.rows / self.rows]
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

    def of_epoch(
        self, losses: Array, index: Array, decisions: Array | None, number: int
    ) -> dict[str, float]:
        """The same of a single epoch, that with this number of an index's."""
        found = {"loss": self.mean_losses(losses)[0]}
        if decisions is not None:
            rows = slice(number * self.rows, (number + 1) * self.rows)
            shares = self.shares(index[rows], decisions[rows])
            for name in self.names:
                found[name] = shares[name][0]
        return found

    def record(self) -> dict[str, float]:
        """The mean loss and the metrics of the epoch that has been added."""
        measured = {n: value / max(1, self._counted[n]) for n, value in self._measured.items()}
        measured |= {n: v for n, (v,) in self.shares(self._order, self._decisions).items()}
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


def decides(metric: Any, row: tuple[int, ...], threshold: float) -> bool:
    """Whether decisions at this threshold tell a metric of outputs with such rows."""
    return _threshold(metric, row) == threshold


def rows_of(metric: Any, y: Array) -> int:
    """The number of rows that a metric counts, of these targets."""
    return metric.counted(y) if isinstance(metric, ClassAccuracy) else len(y)


def threshold_for(metrics: Mapping[str, Metric], row: tuple[int, ...]) -> float | None:
    """The threshold of the decisions that steps record for metrics: that of the first which takes one."""
    found = (_threshold(metric, row) for metric in metrics.values())
    return next((threshold for threshold in found if threshold is not None), None)
