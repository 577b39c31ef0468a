"""Chunks of training steps on the device.

All steps of a chunk are launched before the host looks at a loss. Should one not be finite, the segments
go back to what they were before the chunk, and its steps run again one by one, the host looking at each:
kernels give the same bits every time. The other way, a flag on the device that every kernel would have
to ask before it writes, costs each of them something in every fit, and this costs a copy of the segments
a chunk, on the device.
"""

from __future__ import annotations

import math
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from fastnet.backends.cuda import rows as move
from fastnet.backends.cuda.device import taped
from fastnet.backends.cuda.graphs import Step, tell
from fastnet.backends.cuda.memory import DeviceData, Snapshot, cut, data_of, fetch, put
from fastnet.backends.cuda.programs import KEPT, Program
from fastnet.backends.steps import Data, Steps, Update, bad_label, diverged, norm_diverged
from fastnet.op import Array


def segments_of_update(update: Update) -> dict[str, Array]:
    """The segments that an update brings along, by name."""
    found = {"state": update.state}
    return found if update.training is None else {**found, "training": update.training}


class Chunks:
    """Runs the chunks of an executor."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self._before, self._buffers = Snapshot(), Snapshot()
        # By what they depend on; forgotten with the data set.
        self._kept: WeakKeyDictionary[DeviceData, dict[Any, Step]] = WeakKeyDictionary()

    def train(self, data: Data, steps: Steps, update: Update | None) -> None:
        """Run a chunk; sets the executor's losses and steps_done, and raises as Executor.train does."""
        source = data_of(data, self._executor.stream)
        count, bad = _good_steps(source, steps)
        chunk = _Chunk(self._executor, source, steps, update)
        kept = self._kept.setdefault(source, {})
        if count == 1 or not self._at_once(chunk, count, kept):
            self._one_by_one(chunk, count, data.y)
        if bad is not None:
            raise bad_label(data.classes, bad)
        tell()

    def _at_once(self, chunk: _Chunk, count: int, kept: dict[Any, Step]) -> bool:
        """Run the steps without a look at them; False, and nothing changed, where one goes wrong."""
        executor, stream = self._executor, self._executor.stream
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
        losses, norms = chunk.scores(count)
        if not (np.isfinite(losses).all() and np.isfinite(norms).all()):
            self._before.restore(stream)
            return False
        executor.losses[:count] = losses
        chunk.fetch_outputs(count)
        executor.steps_done = count
        return True

    def _one_by_one(self, chunk: _Chunk, count: int, y: Array) -> None:
        executor, stream = self._executor, self._executor.stream
        first, buffers = chunk.steps.first_step, executor.memory.named("buffers").device
        chunk.rewind()
        for s in range(count):
            self._buffers.take([buffers], stream)
            chunk.forward(s)
            loss = executor.losses[s] = chunk.scores(s + 1)[0][s]
            if not math.isfinite(loss):
                self._buffers.restore(stream)
                raise diverged(first + s, loss, self._why(chunk.rows(s), y))
            chunk.backward(s)
            chunk.collect()
            if chunk.updates(s):
                chunk.guard()
                norm = chunk.scores(s + 1)[1][s]
                if not math.isfinite(norm):
                    self._buffers.restore(stream)
                    raise norm_diverged(first + s, norm)
                chunk.apply()
            executor.steps_done = s + 1
        chunk.fetch_outputs(count)

    def _why(self, rows: Array, y: Array) -> str | None:
        """What the loss says of these rows, whose outputs are the last forward's."""
        executor, plan = self._executor, self._executor.plan
        if executor.explain is None:
            return None
        shape = len(rows), *plan.output_shape
        why: str | None = executor.explain(executor.at(plan.output, shape, plan.dtype), y[rows])
        return why


def _good_steps(source: DeviceData, steps: Steps) -> tuple[int, int | None]:
    """The steps before the first with a label out of range, and the row of that label."""
    if source.bad.size:
        found = np.flatnonzero(np.isin(steps.index, source.bad))
        if found.size:
            step = int(np.searchsorted(steps.offsets, found[0], "right")) - 1
            return step, int(steps.index[found[0]])
    return len(steps.offsets) - 1, None


class _Chunk:
    """The launches of the steps of a chunk.

    Two steps of the same key have the same launches with the same arguments: what differs lies in tables on
    the device, out of which each step takes its row.
    """

    def __init__(
        self, executor: Any, source: DeviceData, steps: Steps, update: Update | None
    ) -> None:
        self.steps, self._executor, self._update, self._source = steps, executor, update, source
        plan, count = executor.plan, len(steps.offsets) - 1
        assert plan.loss is not None
        self._offsets = steps.offsets.tolist()
        hyper = np.zeros((count, 1, 1))
        if update is not None and update.hyper.size:
            hyper = update.hyper
        shape = hyper.shape[1:]
        self._blocks: list[Any] = []
        self._index = self._table("index", steps.index, np.int64)
        self._starts = self._table("starts", steps.offsets, np.int64)
        self._hypers = self._table("hypers", hyper, np.float64)
        self._hyper = self._room("hyper", math.prod(shape), np.float64)[: math.prod(shape)]
        self._scores = self._room("scores", 2 * count, np.float64)
        self._at = executor.place(("at", 0), (2,), np.int64)
        self._counter = executor.place(("counter", 0), (3,), np.uint64)
        self._loss = executor.place(plan.loss, (1,), np.float64)
        self._outputs, self._width = None, math.prod(plan.output_shape)
        if steps.outputs is not None and steps.outputs.size:
            self._outputs = self._room("outputs", len(steps.index) * self._width, plan.dtype)
        self._parts: list[Program] = []
        self._segments: dict[str, Array] = {}
        if update is not None:
            self._segments = segments_of_update(update)
            first, guarded = update.collect_count, update.collect_count + update.guard_count
            parts = update.program[:first], update.program[first:guarded], update.program[guarded:]
            self._parts = [executor.update_program(part, self._segments, shape) for part in parts]
            if update.norm is not None:
                self._norm = executor.norm_place(update)
        rows = {self._rows(s) for s in range(count)}
        for program in [p for n in rows for p in executor.programs(n)] + self._parts:
            executor.note(program, self._segments)
        self._keys: dict[Any, Any] = {}
        self._same = shape, steps.accumulate, self._outputs is None

    def _room(self, name: str, count: int, dtype: Any) -> Any:
        """At least so many numbers of room, and all there is: kernels are told the lengths of arrays."""
        size = np.dtype(dtype).itemsize
        block = self._executor.room(name, count * size)
        self._blocks.append(block)
        return cut(block, 0, (block.size // size,), dtype)

    def _table(self, name: str, host: Array, dtype: Any) -> Any:
        self._executor.upload(name, np.ascontiguousarray(host, dtype))
        return self._room(name, host.size, dtype)

    def rewind(self) -> None:
        """Let the first step be the next one."""
        steps, stream = self.steps, self._executor.stream
        counter = np.array([steps.seed, 0, steps.first_step], np.uint64)
        put(self._at, np.array([-1, 0], np.int64), stream)
        put(self._counter, counter, stream)
        self._executor.counted = None

    def used(self, s: int) -> list[Any]:
        """What a step's launches depend on, beside the data set."""
        return [*self._executor.programs(self._rows(s)), *self._parts, *self._blocks]

    def key(self, s: int) -> Any:
        """The same for steps whose launches are the same."""
        kind = self._rows(s), self.updates(s)
        if kind not in self._keys:
            self._keys[kind] = *kind, *self._same, *map(id, self.used(s))
        return self._keys[kind]

    def rows(self, s: int) -> Array:
        """The rows of a step."""
        return self.steps.index[self._offsets[s] : self._offsets[s + 1]]

    def _rows(self, s: int) -> int:
        return int(self._offsets[s + 1] - self._offsets[s])

    def step(self, s: int) -> None:
        """All of a step."""
        self.forward(s)
        self.backward(s)
        self.collect()
        if self.updates(s):
            self.guard()
            self.apply()

    def forward(self, s: int) -> None:
        """Gather the next minibatch, run the forward program, keep its loss and its output."""
        executor, rows, at = self._executor, self._rows(s), self._at
        stream, plan, begin = executor.stream, executor.plan, at[1:]
        tables = self._starts, self._hyper, self._hypers, self._scores
        move.turn(stream, at, self._counter, *tables)
        for name in ("x", "y", "w"):
            source = getattr(self._source, name)
            if source is not None:
                move.gather(stream, executor.stage(name, rows), source, self._index, begin)
        executor.programs(rows)[0].launch(stream)
        move.keep(stream, self._scores, at, 0, self._loss)
        if self._outputs is not None:
            output = executor.place(plan.output, (rows, self._width), plan.dtype)
            move.put_at(stream, self._outputs, begin, output)

    def backward(self, s: int) -> None:
        """Run the backward program."""
        executor = self._executor
        executor.programs(self._rows(s))[1].launch(executor.stream, self.steps.accumulate)

    def updates(self, s: int) -> bool:
        """Whether a step ends with an update."""
        update = self._update
        return update is not None and (update.updates is None or bool(update.updates[s]))

    def collect(self) -> None:
        """The instructions of the update that run in every step."""
        if self._update is not None:
            self._parts[0].launch(self._executor.stream)

    def guard(self) -> None:
        """Those after which the norm must be finite; keep that."""
        self._parts[1].launch(self._executor.stream)
        if self._update is not None and self._update.norm is not None:
            move.keep(self._executor.stream, self._scores, self._at, 1, self._norm)

    def apply(self) -> None:
        """All others."""
        self._parts[2].launch(self._executor.stream)

    def scores(self, count: int) -> tuple[Array, Array]:
        """The losses of the first steps, and the norms of their gradients, or 0."""
        both = np.empty((count, 2))
        if count:
            fetch(self._scores[: 2 * count].reshape(count, 2), both, self._executor.stream)
        return both[:, 0], both[:, 1]

    def fetch_outputs(self, count: int) -> None:
        """The outputs of the first steps, to where they are wanted."""
        rows = self._offsets[count]
        if self._outputs is not None and self.steps.outputs is not None and rows:
            target = self.steps.outputs[:rows]
            found = np.empty(target.size, target.dtype)
            fetch(self._outputs[: target.size], found, self._executor.stream)
            target[...] = found.reshape(target.shape)
