"""Chunks of training steps on the device.

The host launches all steps of a chunk before it checks any result. If a number is not finite, it restores
the segments from before the chunk and runs the steps again one by one, checking each: kernels give the same
bits every time. This costs a copy of the segments on the device for each chunk. A flag on the device, which
every kernel would read before it writes, would cost every kernel of every fit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from fastnet.backends.cuda import rows as move
from fastnet.backends.cuda.device import taped
from fastnet.backends.cuda.graphs import Step, tell
from fastnet.backends.cuda.memory import DeviceData, Snapshot, cut, data_of, fetch, put
from fastnet.backends.cuda.programs import KEPT, Control, Program
from fastnet.backends.steps import Steps, Update, bad_label, diverged, host_loss, norm_diverged
from fastnet.data.dataset import Dataset
from fastnet.interrupts import held_back
from fastnet.op import Array
from fastnet.plan.records import NOT_FINITE


class Chunks:
    """Runs the chunks of an executor's training steps."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self._before = Snapshot()
        # By data set, and by everything else that launches depend on.
        self._kept: WeakKeyDictionary[DeviceData, dict[Any, Step]] = WeakKeyDictionary()

    def train(self, data: Dataset, steps: Steps, update: Update | None) -> None:
        """Run a chunk; sets the executor's losses and steps_done, and raises like Executor.train."""
        memory, own = self._executor.memory, {} if update is None else update.segments
        with memory.resident():
            with memory.call(*own.values()):
                source = data_of(data, memory.stream)
                chunk = _Chunk(self._executor, data, source, steps, update, own)
            count, bad = _good_steps(source, steps)
            if data.host is None and not self._executor.calls_python:
                with chunk.open():
                    if count == 1 or not self._at_once(chunk, count, source):
                        self._one_by_one(chunk, count)
            else:
                with held_back() as between, self._executor.gradients_back():
                    self._one_by_one(chunk, count, between)
        if bad is not None:
            raise bad_label(data.classes, bad)
        tell()

    def _at_once(self, chunk: _Chunk, count: int, source: DeviceData) -> bool:
        """Run the steps unchecked; returns False and changes nothing if one of them fails."""
        executor, stream = self._executor, self._executor.stream
        kept = self._kept.setdefault(source, {})
        if chunk.checks:
            self._before.take(executor.memory.changing(), stream)
        chunk.rewind()
        for s in range(count):
            key = chunk.key(s)
            if key in kept:
                kept[key].enqueue(stream)
                continue
            with taped(stream) as calls:
                chunk.step(s)
            if len(kept) >= KEPT:
                kept.clear()
            kept[key] = Step(calls, chunk.used(s))
        scores = chunk.scores(0, count)
        if not np.isfinite(scores[:, chunk.checks]).all():
            self._before.restore(stream)
            return False
        self._end(chunk, scores)
        return True

    def _one_by_one(
        self, chunk: _Chunk, count: int, between: Callable[[], None] | None = None
    ) -> None:
        chunk.rewind()
        for s in range(count):
            chunk.keep()
            try:
                at = chunk.step(s, looks=True)
                while at:
                    chunk.call_host(s, at)
                    at = chunk.step(s, at, looks=True)
            except BaseException:  # of a check or the host's function, or a second Ctrl-C
                chunk.keep(back=True)
                raise
            self._executor.steps_done = s + 1
            if between is not None:
                between()
        with chunk.open():
            self._end(chunk, chunk.scores(0, count))

    def _end(self, chunk: _Chunk, scores: Array) -> None:
        """Store the results of these steps."""
        count = self._executor.steps_done = len(scores)
        self._executor.losses[:count] = scores[:, 0]
        chunk.fetch_rows(count)


def _good_steps(source: DeviceData, steps: Steps) -> tuple[int, int | None]:
    """The number of steps before the first label out of range, and that label's row or None."""
    if source.bad.size:
        found = np.flatnonzero(np.isin(steps.index, source.bad))
        if found.size:
            step = int(np.searchsorted(steps.offsets, found[0], "right")) - 1
            return step, int(steps.index[found[0]])
    return len(steps.offsets) - 1, None


class _Chunk:
    """The launches of the steps of a chunk: programs, and control instructions between them.

    Two steps with the same key have the same launches with the same arguments: everything else lies in
    tables on the device, from which each step takes its row. The scores of a step are its loss and the
    numbers that its checks read; `checks` are the columns of these.
    """

    def __init__(
        self,
        executor: Any,
        data: Dataset,
        source: DeviceData,
        steps: Steps,
        update: Update | None,
        own: dict[str, Array],
    ) -> None:
        self._executor, self._data, self._source, self._steps = executor, data, source, steps
        self._stream, self._own = executor.stream, own
        count, self._offsets = len(steps.offsets) - 1, steps.offsets.tolist()
        self._table = np.zeros((count, 1, 1))
        if update is not None and update.table.size:
            self._table = update.table
        self._shape = self._table.shape[1:]
        self._blocks: list[Any] = []
        self._index = self._upload("index", steps.index, np.int64)
        self._starts = self._upload("starts", steps.offsets, np.int64)
        self._hypers = self._upload("hypers", self._table, np.float64)
        numbers = math.prod(self._shape)
        self._hyper = self._workspace("hyper", numbers, np.float64)[:numbers]
        self._schedules: Any = None
        if executor.plan.scheduled:
            table = executor.plan.schedule(executor.scheduled, steps.first_step, count)
            self._schedules = self._upload("schedules", table, np.float64)
        self._at = executor.place(("at", 0), (2,), np.int64)
        self._counter = executor.place(("counter", 0), (3,), np.uint64)
        self._parts: dict[int, list[Program | Control]] = {}  # parts of a step, by its rows
        for rows in {self._rows(s) for s in range(count)}:
            self._parts[rows] = executor.parts(rows, update, own, self._shape)
        self._changes = set[str]()
        for part in itertools.chain(*self._parts.values()):
            self._changes |= part.changes
        # For any number of rows, the controls have the same indices among the parts.
        parts = next(iter(self._parts.values()), [])
        self._controls = {i: part for i, part in enumerate(parts) if isinstance(part, Control)}
        # A check that ends with NOT_FINITE reads the loss, which is recorded anyway.
        number = itertools.count(1)
        self._columns = {
            i: 0 if control.sizes[0] == NOT_FINITE else next(number)
            for i, control in self._controls.items()
            if control.name == "check"
        }
        self.checks = [*self._columns.values()]
        self._width = 1 + max(self.checks, default=0)
        self._scores = self._workspace("scores", self._width * count, np.float64)
        # By tensor of `record`: the device array for results of rows, and the host's.
        self._found = {
            i: (self._workspace(f"result {i}", host.size, host.dtype), host)
            for i, host in ((1, steps.row_losses), (2, steps.outputs), (3, steps.decisions))
            if host is not None and host.size
        }
        self._keys: dict[Any, Any] = {}

    def _workspace(self, name: str, count: int, dtype: Any) -> Any:
        """A workspace of at least so many numbers, all of it, because kernels depend on the length."""
        size = np.dtype(dtype).itemsize
        block = self._executor.workspace(name, count * size)
        self._blocks.append(block)
        return cut(block, 0, (block.size // size,), dtype)

    def _upload(self, name: str, host: Array, dtype: Any) -> Any:
        workspace = self._workspace(name, host.size, dtype)
        if host.size:
            put(workspace[: host.size], np.ascontiguousarray(host, dtype).reshape(-1), self._stream)
        return workspace

    @contextmanager
    def open(self) -> Iterator[None]:
        """While this is open, the device has the newest values, and steps may change them."""
        memory = self._executor.memory
        with memory.call(*self._own.values()):
            self._executor.refresh()
            memory.note(self._changes, self._own)
            yield

    def rewind(self) -> None:
        """Start with the first step again."""
        counter = np.array([self._steps.seed, 0, self._steps.first_step], np.uint64)
        with self.open():
            put(self._at, np.array([-1, 0], np.int64), self._stream)
            put(self._counter, counter, self._stream)
            self._executor.counted = None

    def used(self, s: int) -> list[Any]:
        """Everything but the data set that a step's launches depend on."""
        return [self._parts[self._rows(s)], *self._blocks]

    def key(self, s: int) -> Any:
        """A key that is equal for steps with the same launches."""
        skips = [c for c in self._controls.values() if c.name == "unless"]
        kind = self._rows(s), *(self._goes_on(s, control) for control in skips)
        if kind not in self._keys:
            same = self._shape, self._steps.accumulate, *self._found
            self._keys[kind] = *kind, *same, *map(id, self.used(s))
        return self._keys[kind]

    def _rows(self, s: int) -> int:
        return int(self._offsets[s + 1] - self._offsets[s])

    def _goes_on(self, s: int, unless: Control) -> bool:
        return bool(self._table[s, unless.row, 0])

    def step(self, s: int, begin: int = 0, *, looks: bool = False) -> int:
        """Launch a step from part `begin` on; returns the part after `host`, or 0 at the end.

        looks: whether to check numbers now, and raise DivergenceError if one is not finite.
        """
        with self.open():
            if not begin:
                tables = self._starts, self._hyper, self._hypers, self._scores
                move.turn(self._stream, self._at, self._counter, *tables, self._width)
                if self._schedules is not None:
                    move.take(self._stream, self._executor.schedule, self._schedules, self._at)
            parts = self._parts[self._rows(s)]
            for i, part in enumerate(parts[begin:], begin):
                if isinstance(part, Program):
                    part.launch(self._stream, self._steps.accumulate)
                elif part.name == "gather":
                    self._gather(s, part)
                elif part.name == "record":
                    self._record(s, part)
                elif part.name == "host":
                    return i + 1
                elif part.name == "check":
                    self._check(s, self._columns[i], part, looks)
                elif part.name == "unless" and not self._goes_on(s, part):
                    break
            return 0

    def _gather(self, s: int, control: Control) -> None:
        plan = self._executor.plan
        widths = *control.sizes[:2], 1
        for i, dtype in enumerate((plan.dtype, plan.y_dtype, plan.dtype)):
            out = control.tensor(i, (self._rows(s), widths[i]), dtype)
            if out is not None:
                source = (self._source.x, self._source.y, self._source.w)[i]
                move.gather(self._stream, out, source, self._index, self._at[1:])

    def _record(self, s: int, control: Control) -> None:
        self._score(0, control)
        for i, (device, host) in self._found.items():
            found = control.tensor(i, (self._rows(s), host[0].size), host.dtype)
            move.put_at(self._stream, device, self._at[1:], found)

    def _score(self, column: int, control: Control) -> None:
        value = control.tensor(0, (1,), np.float64)
        move.score(self._stream, self._scores, self._at, self._width, column, value)

    def _check(self, s: int, column: int, control: Control, looks: bool) -> None:
        if column:
            self._score(column, control)
        if not looks:
            return
        scores = self.scores(s, s + 1)[0]
        loss, value = float(scores[0]), float(scores[column])
        self._executor.losses[s] = loss
        if math.isfinite(value):
            return
        step = self._steps.first_step + s
        if control.sizes[0] != NOT_FINITE:
            raise norm_diverged(step, value)
        explain, y = self._data.explain, self._data.y
        raise diverged(step, value, explain and explain(self._output(s), y[self._steps.rows(s)]))

    def _output(self, s: int) -> Array:
        plan = self._executor.plan
        shape = self._rows(s), *plan.output_shape
        found: Array = self._executor.at(plan.output, shape, plan.dtype)
        return found

    def call_host(self, s: int, at: int) -> None:
        """Let Python do its part before part `at`: a layer's, or the loss and its gradient."""
        plan, part = self._executor.plan, self._parts[self._rows(s)][at - 1]
        if isinstance(part, Control) and part.row:
            counter = self._steps.seed, self._steps.first_step + s
            with self.open():
                self._executor.call_python(part, self._rows(s), *counter, self._steps.accumulate)
            return
        with self.open():
            output = self._output(s)
        loss, gradient = host_loss(self._data, self._steps, s, output)
        with self.open():
            for place, host in ((plan.loss, np.array([loss])), (plan.dy, gradient)):
                if place is not None and host.size:
                    target = self._executor.place(place, host.shape, host.dtype)
                    put(target, np.ascontiguousarray(host), self._stream)

    def keep(self, *, back: bool = False) -> None:
        """Copy the buffers before a step, or with `back` restore them."""
        with self.open():
            for control in self._controls.values():
                if control.name == "keep":
                    kept = control.tensor(0, (control.sizes[0],), np.uint8)
                    both = kept, control.blocks["buffers"]
                    target, source = both[::-1] if back else both
                    target.copy_to_device(source, stream=self._stream)

    def scores(self, begin: int, end: int) -> Array:
        """The scores of steps begin … end − 1."""
        found = np.empty((end - begin, self._width))
        if found.size:
            part = self._scores[begin * self._width : end * self._width]
            fetch(part.reshape(*found.shape), found, self._stream)
        return found

    def fetch_rows(self, count: int) -> None:
        """Copy the rows' results of the first steps to the host's arrays."""
        for device, host in self._found.values():
            target = host[: self._offsets[count]]
            if target.size:
                found = np.empty(target.size, target.dtype)
                fetch(device[: target.size], found, self._stream)
                target[...] = found.reshape(target.shape)
