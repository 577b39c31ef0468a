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

import numpy as np

from fastnet.backends.cuda import rows as move
from fastnet.backends.cuda.memory import DeviceData, Snapshot, cut, data_of, fetch
from fastnet.backends.cuda.programs import Program
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

    def train(self, data: Data, steps: Steps, update: Update | None) -> None:
        """Run a chunk; sets the executor's losses and steps_done, and raises as Executor.train does."""
        source = data_of(data, self._executor.stream)
        count, bad = _good_steps(source, steps)
        chunk = _Chunk(self._executor, source, steps, update)
        if count == 1 or not self._at_once(chunk, count):
            self._one_by_one(chunk, count)
        if bad is not None:
            raise bad_label(data.classes, bad)

    def _at_once(self, chunk: _Chunk, count: int) -> bool:
        """Run the steps without a look at them; False, and nothing changed, where one goes wrong."""
        executor, stream = self._executor, self._executor.stream
        self._before.take(executor.memory.changing(), stream)
        for s in range(count):
            chunk.forward(s)
            chunk.backward(s)
            chunk.collect(s)
            if chunk.updates(s):
                chunk.guard(s)
                chunk.apply(s)
        losses, norms = chunk.scores(count)
        if not (np.isfinite(losses).all() and np.isfinite(norms).all()):
            self._before.restore(stream)
            return False
        executor.losses[:count] = losses
        chunk.fetch_outputs(count)
        executor.steps_done = count
        return True

    def _one_by_one(self, chunk: _Chunk, count: int) -> None:
        executor, stream = self._executor, self._executor.stream
        first, buffers = chunk.steps.first_step, executor.memory.named("buffers").device
        for s in range(count):
            self._buffers.take([buffers], stream)
            chunk.forward(s)
            loss = executor.losses[s] = chunk.scores(s + 1)[0][s]
            if not math.isfinite(loss):
                self._buffers.restore(stream)
                raise diverged(first + s, loss)
            chunk.backward(s)
            chunk.collect(s)
            if chunk.updates(s):
                chunk.guard(s)
                norm = chunk.scores(s + 1)[1][s]
                if not math.isfinite(norm):
                    self._buffers.restore(stream)
                    raise norm_diverged(first + s, norm)
                chunk.apply(s)
            executor.steps_done = s + 1
        chunk.fetch_outputs(count)


def _good_steps(source: DeviceData, steps: Steps) -> tuple[int, int | None]:
    """The steps before the first with a label out of range, and the row of that label."""
    if source.bad.size:
        found = np.flatnonzero(np.isin(steps.index, source.bad))
        if found.size:
            step = int(np.searchsorted(steps.offsets, found[0], "right")) - 1
            return step, int(steps.index[found[0]])
    return len(steps.offsets) - 1, None


class _Chunk:
    """The launches of the steps of a chunk."""

    def __init__(
        self, executor: Any, source: DeviceData, steps: Steps, update: Update | None
    ) -> None:
        self.steps, self._executor, self._update, self._source = steps, executor, update, source
        plan, count = executor.plan, len(steps.offsets) - 1
        assert plan.loss is not None
        self._offsets = steps.offsets.tolist()
        self._index = executor.upload("index", np.ascontiguousarray(steps.index, np.int64))
        # A column of losses and one of norms, which stay 0 where nothing asks for them.
        self._scores = executor.upload("scores", np.zeros((2 * count, 1)))
        self._loss = executor.place(plan.loss, (1, 1), np.float64)
        self._outputs = None
        if steps.outputs is not None:
            shape = len(steps.index), math.prod(plan.output_shape)
            nbytes = math.prod(shape) * plan.dtype.itemsize
            self._outputs = cut(executor.room("outputs", nbytes), 0, shape, plan.dtype)
        self._hyper: list[Any] = []
        self._parts: list[Program] = []
        self._segments: dict[str, Array] = {}
        if update is not None:
            self._segments, self._hyper = segments_of_update(update), update.hyper.tolist()
            first, guarded = update.collect_count, update.collect_count + update.guard_count
            parts = update.program[:first], update.program[first:guarded], update.program[guarded:]
            self._parts = [executor.update_program(part, self._segments) for part in parts]
            if update.norm is not None:
                self._norm = executor.norm_place(update).reshape(1, 1)
        rows = {self._rows(s) for s in range(count)}
        for program in [p for n in rows for p in executor.programs(n)] + self._parts:
            executor.note(program, self._segments)

    def _rows(self, s: int) -> int:
        return int(self._offsets[s + 1] - self._offsets[s])

    def forward(self, s: int) -> None:
        """Gather the minibatch, run the forward program, keep its loss and its output."""
        executor, rows, begin = self._executor, self._rows(s), self._offsets[s]
        stream, plan = executor.stream, executor.plan
        for name in ("x", "y", "w"):
            source = getattr(self._source, name)
            if source is not None:
                move.gather(stream, executor.stage(name, rows), source, self._index, begin)
        steps = self.steps
        executor.programs(rows)[0].launch(stream, steps.seed, steps.first_step + s)
        move.put(stream, self._scores, s, self._loss)
        if self._outputs is not None:
            shape = rows, self._outputs.shape[1]
            move.put(stream, self._outputs, begin, executor.place(plan.output, shape, plan.dtype))

    def backward(self, s: int) -> None:
        """Run the backward program."""
        executor, steps = self._executor, self.steps
        backward = executor.programs(self._rows(s))[1]
        backward.launch(executor.stream, steps.seed, steps.first_step + s, steps.accumulate)

    def updates(self, s: int) -> bool:
        """Whether a step ends with an update."""
        update = self._update
        return update is not None and (update.updates is None or bool(update.updates[s]))

    def collect(self, s: int) -> None:
        """The instructions of the update that run in every step."""
        if self._update is not None:
            self._run(0, s)

    def guard(self, s: int) -> None:
        """Those after which the norm must be finite; keep that."""
        self._run(1, s)
        if self._update is not None and self._update.norm is not None:
            count = len(self._offsets) - 1
            move.put(self._executor.stream, self._scores, count + s, self._norm)

    def apply(self, s: int) -> None:
        """All others."""
        self._run(2, s)

    def _run(self, part: int, s: int) -> None:
        self._parts[part].launch(self._executor.stream, hyper=self._hyper[s])

    def scores(self, count: int) -> tuple[Array, Array]:
        """The losses of the first steps, and the norms of their gradients, or 0."""
        both = fetch(self._scores, np.empty(self._scores.shape), self._executor.stream)[:, 0]
        return both[:count], both[len(both) // 2 :][:count]

    def fetch_outputs(self, count: int) -> None:
        """The outputs of the first steps, to where they are wanted."""
        outputs, rows = self.steps.outputs, self._offsets[count]
        if outputs is not None and self._outputs is not None and rows and outputs.size:
            whole = np.empty(self._outputs.shape, outputs.dtype)
            fetch(self._outputs, whole, self._executor.stream)
            outputs[:rows] = whole[:rows].reshape(outputs[:rows].shape)
