"""Fits on streams: a run whose minibatches come one after the other, and what it scores."""

from __future__ import annotations

import math
import time
import warnings
from array import array
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastnet.backends.executor import Executor
from fastnet.data.dataset import Dataset
from fastnet.data.lazy import LazyRows
from fastnet.data.streams import Parts, Source, in_minibatch
from fastnet.errors import ShapeError, StateDictError, outside
from fastnet.losses.metrics import Metric
from fastnet.op import Array
from fastnet.plan.compiler import Plan
from fastnet.train.run import Part, Run
from fastnet.train.scores import (
    BLOCK_BYTES,
    CHUNK_SECONDS,
    check_metrics,
    decides,
    measure,
    rows_of,
    threshold_for,
)

UNKNOWN = 2**62  # the steps of an epoch that has not ended
MOST_BYTES = 1 << 22  # of several minibatches that are joined for one native call


class StreamScores:
    """Collects what the steps of an epoch record, as EpochScores, where nobody knows how many come.

    Metrics that need outputs see blocks of minibatches, as many as fit into BLOCK_BYTES.
    """

    def __init__(self, metrics: Mapping[str, Metric], *, total: bool = False) -> None:
        self.names, self.total = list(metrics), total
        self.metrics = self._all = dict(metrics)
        self._decided: dict[str, Any] = {}
        self._forget()

    def _forget(self) -> None:
        self.steps, self.rows = UNKNOWN, 0
        self._losses = array("d")  # of the steps, each times the rows of its minibatch
        self._sizes: list[int] = []  # of the minibatches of the next native call
        self._largest = 0
        self._measured = dict.fromkeys(self._all, 0.0)
        self._counted = dict.fromkeys(self._all, 0)
        self._block: list[tuple[Array, Array]] = []  # targets and outputs
        self._block_rows = 0

    def start(self, threshold: float | None, plan: Plan) -> None:
        """Learn what the outputs of the steps are, and the threshold of the decisions they record."""
        self._row, self._dtype = plan.output_shape, plan.dtype
        self._row_bytes = math.prod(self._row) * np.dtype(self._dtype).itemsize
        self._decided = {
            name: metric
            for name, metric in self._all.items()
            if threshold is not None and decides(metric, self._row, threshold)
        }
        self.metrics = {n: metric for n, metric in self._all.items() if n not in self._decided}

    def begin(self) -> None:
        """Begin an epoch."""
        self._forget()

    def fits(self, before: int, largest: int) -> bool:
        """Whether a minibatch may follow others of so many rows in one native call.

        largest: the most rows of one of them.
        """
        if not self.metrics:
            return True
        rows = self._block_rows + before + max(self._largest, largest)
        return rows * self._row_bytes <= BLOCK_BYTES

    def expect(self, sizes: list[int]) -> None:
        """The rows of the minibatches of the next native call."""
        self._sizes = sizes
        rows = sum(sizes)
        self._outputs = np.empty((rows, *self._row), self._dtype) if self.metrics else None
        self._decisions = np.empty(rows) if self._decided else None

    def outputs(self, begin: int, end: int) -> Array | None:
        """The array for the outputs of the expected steps; None where no metric needs them."""
        return self._outputs

    def decisions(self, begin: int) -> Array | None:
        """The array for their decisions; None where none are needed."""
        return self._decisions

    def add(self, begin: int, end: int, losses: Array, y: Array, index: Array) -> None:
        """Take what the expected steps have recorded; measure a block of outputs once it is complete."""
        sizes = np.array(self._sizes, np.float64)
        self._losses.extend((losses if self.total else losses * sizes).tolist())
        rows = sum(self._sizes)
        self.rows += rows
        self._largest = max(self._largest, *self._sizes)
        self._sizes = []
        for name, metric in self._decided.items():
            labels, counts = metric.labels(y)
            right = self._decisions == labels
            self._measured[name] += float((right if counts is None else right & counts).sum())
            self._counted[name] += rows if counts is None else int(counts.sum())
        if self._outputs is not None:
            self._block.append((np.array(y), self._outputs))
            self._block_rows += rows
            if (self._block_rows + self._largest) * self._row_bytes > BLOCK_BYTES:
                self._measure()

    def _measure(self) -> None:
        """Measure the block of outputs."""
        if not self._block:
            return
        y, outputs = (
            parts[0] if len(parts) == 1 else np.concatenate(parts)
            for parts in zip(*self._block, strict=True)
        )
        self._block, self._block_rows = [], 0
        for name, value in measure(self.metrics, y, outputs).items():
            rows = rows_of(self.metrics[name], y)
            self._measured[name] += value * rows
            self._counted[name] += rows

    def mean_loss(self, end: int | None = None) -> float:
        """Loss of the steps so far, mean over samples or sum, in float64."""
        found = math.fsum(self._losses)
        return found if self.total else found / float(self.rows)

    def end(self) -> None:
        """The epoch has ended."""
        self.steps = len(self._losses)

    def record(self) -> dict[str, float]:
        """The mean loss and the metrics of the epoch."""
        self._measure()
        each = {n: self._measured[n] / max(1, self._counted[n]) for n in self.names}
        return {"loss": self.mean_loss(), **each}

    def state_dict(self, done: int) -> dict[str, Any]:
        """Nothing: no fit on a stream goes on within an epoch."""
        return {}

    def load_state_dict(self, done: int, state: Mapping[str, Any]) -> None:
        """Raise StateDictError."""
        raise StateDictError(
            f"the fit stands after {done} minibatches of an epoch; one on a stream goes on at the begin of "
            "an epoch"
        )


class _Feed:
    """The checked minibatches of an epoch, as they come.

    number: how many have come.
    """

    def __init__(self, run: StreamRun, epoch: int) -> None:
        self._run, self._epoch = run, epoch
        self._came: Iterator[Parts] = run.source.open(epoch, run.trainer.seed)
        self.number = 0
        self._held: Dataset | None = None  # asked for and not yet given
        self._error: Exception | None = None  # that came with the next one
        self._over = False

    def close(self) -> None:
        """Ask for no more."""
        close = getattr(self._came, "close", None)
        if close is not None:
            close()

    def next(self) -> Dataset | None:
        """The next minibatch; None: the epoch is over."""
        error, self._error = self._error, None
        if error is not None:
            raise error
        found, self._held = self._held, None
        return found if found is not None else self._ask()

    def is_over(self) -> bool:
        """Ask for one more minibatch, and tell whether there is none; an error waits for `next`."""
        if self._held is None and self._error is None:
            try:
                self._held = self._ask()
            except Exception as error:
                self._error = error
        return self._held is None and self._error is None

    def _ask(self) -> Dataset | None:
        if self._over:
            return None
        parts = next(self._came, None)
        if parts is None:
            self._over = True
            return None
        number, self.number = self.number, self.number + 1
        with in_minibatch(number, self._epoch):
            found = self._run.checked(*parts)
        if found.rows >= self._run.least:
            return found
        if number and next(self._came, None) is None:
            self._over = True
            self._run.leaves_out(found.rows)
            return None
        with in_minibatch(number, self._epoch):
            raise ShapeError(
                f"X has {found.rows} row; this model has batchnorm and needs minibatches of at least "
                f"{self._run.least} rows in training"
            )

    def take(self, most: int) -> list[Dataset]:
        """At most so many minibatches of one kind, to be joined; none: the epoch is over."""
        found, begun = list[Dataset](), time.perf_counter()
        nbytes = rows = largest = 0  # of those found
        while len(found) < most and time.perf_counter() - begun < CHUNK_SECONDS:
            try:
                data = self.next()
            except Exception as error:
                if not found:
                    raise
                self._error = error
                break
            if data is None:
                break
            nbytes += data.rows * data.width * data.x.dtype.itemsize
            largest = max(largest, data.rows)
            if found and not (
                nbytes <= MOST_BYTES
                and _alike(found[0], data)
                and self._run.scores.fits(rows, largest)
            ):
                self._held = data
                break
            found.append(data)
            rows += data.rows
        return found


def _alike(a: Dataset, b: Dataset) -> bool:
    """Whether two minibatches may be joined."""
    kinds = [
        [
            None if part is None else (type(part), part.dtype, part.shape[1:])
            for part in (data.x, data.y, data.w)
        ]
        for data in (a, b)
    ]
    return type(a.x) is np.ndarray and a.by_rows == b.by_rows and kinds[0] == kinds[1]


def _joined(group: list[Dataset]) -> Dataset:
    """One data set of the rows of all."""
    first = group[0]
    if len(group) == 1:
        return first
    x, y = (np.concatenate([getattr(each, name) for each in group]) for name in ("x", "y"))
    w = (
        None
        if first.w is None
        else np.concatenate([each.w for each in group if each.w is not None])
    )
    return replace(first, x=x, y=y, w=w)


def _copied(data: Dataset) -> Dataset:
    """A copy, for who gave it may write to its arrays when the next one is asked for."""
    w = None if data.w is None else data.w.copy()
    return replace(data, x=_copy(data.x), y=data.y.copy(), w=w)


def _copy(x: Any) -> Any:
    """A copy of inputs in the host's memory; those on a device are kept as they are."""
    return x.copy() if type(x) is np.ndarray else x


@dataclass(eq=False, repr=False)
class StreamRun(Run):
    """A fit whose minibatches come from a source, an epoch after the other.

    least: the fewest rows of a minibatch. keeps: of how many minibatches the inputs are kept, from which
    batchnorm's statistics at averages are computed.
    """

    source: Source = field(kw_only=True)
    scores: StreamScores  # type: ignore[assignment]
    least: int = field(kw_only=True)
    keeps: int = field(kw_only=True)
    goes_on_within = False

    def __post_init__(self) -> None:
        self._row: tuple[int, ...] | None = None  # the shape of an input row
        self._threshold: float | None = None
        self._most = 0  # rows of a minibatch for which there are plans
        self._executors: dict[Any, Executor] = {}
        self._open: list[int] = []  # rows of the minibatches since the last update
        self._kept: list[Array] = []
        self._keeping = not self.source.replays  # during the first epoch
        self._warned = False
        self.source.prepare(self.least)

    def begin(self) -> None:
        """Nothing: the first minibatch tells which executor there must be."""

    def unload(self) -> None:
        """Let go of the data."""
        self.data = None  # type: ignore[assignment]
        for executor in self._executors.values():
            executor.unload()

    def resident(self) -> AbstractContextManager[None]:
        """Values do not stay in a device's memory: the code that makes minibatches may read them."""
        return nullcontext()

    def whole_epochs(self, most: int) -> int:
        """None."""
        return 0

    @property
    def epoch_rows(self) -> int | None:
        """The rows of an epoch, where the source knows them."""
        return self.source.rows

    def checked(self, x: Any, y: Any, w: Any) -> Dataset:
        """What came as a data set, checked as arrays are."""
        trainer, model = self.trainer, self.trainer.model
        x, y, _ = trainer._named(x, y, learn=False)
        if self._row is not None and tuple(x.shape[1:]) != self._row:
            model.features("X", x, self._row)  # which says what is wrong
        if isinstance(x, LazyRows):  # several minibatches become one array
            x = x.numbers()
        data = model.data(trainer.loss, x, y, "X", "y", w, by_rows=True)
        if self._row is None:
            output = model.output_shape(data.row_shape)
            check_metrics(trainer.metrics, output, tuple(data.y.shape[1:]))
            if data.host is None:
                self._threshold = threshold_for(trainer.metrics, output)
            self._row = data.row_shape
        data.threshold, data.outputs = self._threshold, bool(trainer.metrics)
        return data

    def leaves_out(self, rows: int) -> None:
        """Warn once that the last minibatch has too few rows."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the last minibatch of the epoch has {rows} row, too few for batchnorm in training: it is "
                "left out (choose another batch size to use it)",
                stacklevel=outside(),
            )

    def parts(self) -> Generator[Part]:
        """The epoch's minibatches as they come, as many at once as may be asked for."""
        scores, epoch = self.scores, self.trainer.epoch
        scores.begin()
        self._open.clear()
        with closing(_Feed(self, epoch)) as feed:
            while group := feed.take(
                self.chunk if self.source.ahead and not self.hooks.of_batches else 1
            ):
                if self._keeping and len(self._kept) < self.keeps:
                    self._kept += [_copy(each.x) for each in group]
                yield self._part(group, feed)
            if not feed.number:
                raise self.source.nothing(epoch)
        self._keeping = False
        scores.end()

    def _part(self, group: list[Dataset], feed: _Feed) -> Part:
        """These minibatches as one part, which begins with the last update."""
        sizes, each = [data.rows for data in group], self.accumulation_steps
        self._find(group[0], max(sizes))
        self.scores.expect(sizes)
        begin, end = len(self._open), len(self._open) + len(sizes)
        sizes, first = [*self._open, *sizes], sum(self._open)
        data = _joined(group)
        offsets = np.cumsum([0, *sizes], dtype=np.int64)
        index = np.arange(-first, offsets[-1] - first)
        if each > 1:
            self._open = sizes[end // each * each :]
        if self._open:
            data = data if len(group) > 1 else _copied(data)
            if not feed.is_over():  # the epoch goes on, and the update is not made yet
                offsets = np.append(offsets, offsets[-1] + 1)
        self.data = data
        return Part(index, offsets, begin, end)

    def _find(self, data: Dataset, rows: int) -> None:
        """Find the executor for such minibatches."""
        if rows > self._most:
            # Half as many again, so that minibatches which grow do not compile a plan each.
            self._most = max(rows, self._most + self._most // 2)
            self._executors.clear()
        key = data.classes > 0, data.w is None, data.by_rows
        if key not in self._executors:
            model, loss = self.trainer.model, self.trainer.loss
            found = model.training_executor(data, self._most, loss, self.respect_modes)
            if not self._executors:
                self.scores.start(self._threshold, found.plan)
            self._executors[key] = found
        self.executor = self._executors[key]

    def sample(self, most: int) -> list[Array]:
        """The inputs of some minibatches: the first of epoch 0 where it can be opened again."""
        if not self._kept:
            epoch = 0 if self.source.replays else max(0, self.trainer.epoch - 1)
            with closing(_Feed(self, epoch)) as feed:
                while len(self._kept) < most and (data := feed.next()) is not None:
                    self._kept.append(_copy(data.x))
        return self._kept[:most]
