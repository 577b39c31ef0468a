"""CudaExecutor: runs one plan on the device, with a workspace there, on a model's segments there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from fastnet.backends.base import orders
from fastnet.backends.cuda import rows as move
from fastnet.backends.cuda.arrays import check_out, matrix
from fastnet.backends.cuda.kernels.registry import written
from fastnet.backends.cuda.memory import Snapshot, cut, empty, fetch, put, segments_of
from fastnet.backends.cuda.programs import KEPT, Control, Program, parts_of
from fastnet.backends.cuda.training import Chunks
from fastnet.backends.direct import takes
from fastnet.backends.executor import FastPath
from fastnet.backends.host import HostCalls, Objects
from fastnet.backends.steps import Steps, Update
from fastnet.data.arrays import on_device
from fastnet.data.dataset import Dataset
from fastnet.data.lazy import LazyRows
from fastnet.op import Array
from fastnet.parameter import Derived, Scheduled
from fastnet.plan.compiler import Plan
from fastnet.plan.instructions import Place
from fastnet.plan.records import ALIGNMENT, CONTROL
from fastnet.plan.segments import Storage

NUMBERS = {"counter": 24, "at": 16}  # bytes: counter of random draws, position in a chunk


class CudaExecutor:
    """Runs one plan on the device; the interface of `fastnet.backends.executor.Executor`."""

    whole_epochs = False  # each epoch's parameters are looked at on the host
    joins = False
    refused = 0  # by that look, not by a step
    evaluated = unevaluated = 0  # epochs within a call; there are none
    evaluation_seconds = 0.0

    def __init__(self, plan: Plan, storage: Storage) -> None:
        self.plan, self.storage = plan, storage
        self.memory = segments_of(storage)
        self.stream = self.memory.stream
        self.steps_done = 0  # in the last chunk of training steps
        self.losses: Array  # of the last chunk of training steps
        self._chunk: tuple[Dataset, Steps, Update | None] | None = None
        self._x_row = math.prod(plan.x_shape)
        sizes = {"x": 0 if len(plan.step) else plan.max_rows * self._x_row * plan.dtype.itemsize}
        sizes |= {"workspace": plan.workspace_bytes, "derived": plan.derived_bytes}
        sizes |= {"stage": plan.stage_bytes, "schedule": plan.schedule_bytes, **NUMBERS}
        self._own = {name: empty((size,), np.uint8) for name, size in sizes.items()}
        for gather in plan.step[plan.step["kernel"] == CONTROL["gather"]]:
            for name, begin in zip("xyw", gather["offset"].tolist(), strict=False):
                self._own[name] = self._own["stage"][begin:]
        self._on_device = False  # whether the last dL/d-output was on the device
        self._counter = 0, 0  # counter of the random draws of the last forward
        self.counted: Any = None  # the counter's value on the device
        self._views: dict[Any, Any] = {}
        self._numbers: Array | None = None
        self._derived_values: Sequence[Derived] = ()
        self._derived_version = -1
        self.scheduled: Sequence[Scheduled] = ()
        # By rows: forward and backward, in parts.
        self._programs: dict[int, list[list[Program | Control]]] = {}
        self._parts: dict[Any, list[Program | Control]] = {}  # parts of steps
        self._workspaces: dict[Any, Any] = {}  # workspaces of a chunk, by name
        self._chunks = Chunks(self)
        self._calls = HostCalls(plan)
        self.calls_python = bool(plan.calls)  # for layers

    def ready(self, update: Update) -> None:
        """Do nothing: kernels compile at their first launch."""

    def use(
        self,
        numbers: Array,
        derived: Sequence[Derived],
        objects: Objects = (),
        scheduled: Sequence[Scheduled] = (),
    ) -> None:
        """See Executor.use."""
        if numbers is self._numbers:
            return
        self._numbers = numbers
        self.plan.write(numbers)
        self._calls.use(objects)
        self._derived_values, self._derived_version = derived, -1
        self.scheduled = scheduled
        self._programs.clear()
        self._parts.clear()

    # Places of data.

    def place(self, place: Place, shape: tuple[int, ...], dtype: Any) -> Any:
        """The device array at a place of the plan."""
        key = place, shape, np.dtype(dtype)
        if key not in self._views:  # making a view is slow
            if len(self._views) >= 8 * KEPT:
                self._views.clear()
            self._views[key] = cut(self._own[place[0]], place[1], shape, dtype)
        return self._views[key]

    def _x(self, rows: int) -> Any:
        """The matrix for so many rows of x."""
        return self.place(("x", 0), (rows, self._x_row), self.plan.dtype)

    def _output(self, rows: int) -> Any:
        return self.place(self.plan.output, (rows, *self.plan.output_shape), self.plan.dtype)

    def workspace(self, name: str, nbytes: int) -> Any:
        """A workspace of at least so many bytes; the same one for a name until it must grow."""
        if name not in self._workspaces or self._workspaces[name].size < nbytes:
            size = 1 << (max(nbytes, ALIGNMENT) - 1).bit_length()  # a power of 2, to grow seldom
            self._workspaces[name] = empty((size,), np.uint8)
        return self._workspaces[name]

    @property
    def schedule(self) -> Any:
        """The numbers of the present step's schedules, on the device."""
        return self.place(("schedule", 0), (self.plan.schedule_bytes // 8,), np.float64)

    def at(self, place: Place, shape: tuple[int, ...], dtype: Any) -> Array:
        """A copy of the array at a place of the plan."""
        return self._host(self.place(place, shape, dtype))

    def _host(self, device: Any) -> Array:
        return fetch(device, np.empty(tuple(device.shape), device.dtype), self.stream)

    def programs(self, rows: int) -> list[list[Program | Control]]:
        """The parts of the forward and of the backward program for so many rows."""
        if rows not in self._programs:
            if len(self._programs) >= KEPT:
                self._programs.clear()
            blocks = self._blocks({})
            both = self.plan.forward, self.plan.backward
            self._programs[rows] = [parts_of(program, blocks, rows) for program in both]
        return self._programs[rows]

    def _blocks(self, own: Mapping[str, Array]) -> dict[str, Any]:
        """The device arrays of all segments: the model's, the plan's and those of `own`."""
        hosts = {**self.storage.segments, **own}
        return {name: self.memory.block(host).device for name, host in hosts.items()} | self._own

    def parts(
        self, rows: int, update: Update | None, own: Mapping[str, Array], shape: tuple[int, ...]
    ) -> list[Program | Control]:
        """The parts of a step with so many rows; `shape` is that of its part of the table."""
        update_program = self.plan.step[:0] if update is None else update.program
        blocks = self._blocks(own) | {"hyper": self.workspace("hyper", 8 * math.prod(shape))}
        key = rows, shape, update_program.tobytes(), *map(id, blocks.values())
        if key not in self._parts:
            if len(self._parts) >= KEPT:
                self._parts.clear()
            program = np.concatenate([self.plan.step, update_program])
            self._parts[key] = parts_of(program, blocks, rows, shape[1])
        return self._parts[key]

    # One minibatch.

    def forward(self, x: Array, seed: int = 0, step: int = 0) -> Array:
        """Run the forward program on a copy of the rows x; returns the output."""
        with self.memory.call():
            self._put_x(x)
            self._forward(len(x), seed, step)
            return self._host(self._output(len(x)))

    def forward_on_device(self, x: Any, seed: int, step: int, out: Any = None) -> Any:
        """The same for rows on the device; the output is there too, a new array or `out`."""
        shape = len(x), *self.plan.output_shape
        out = None if out is None else check_out("out", out, shape, self.plan.dtype)
        with self.memory.call():
            self._put_x(x)
            self._forward(len(x), seed, step)
            return self._copy(self._output(len(x)), out)

    def _copy(self, device: Any, out: Any = None) -> Any:
        """A finished copy on the device, in a new array or `out`."""
        if out is None:
            out = empty(tuple(device.shape), device.dtype)
        if device.size:
            move.put(self.stream, matrix(out), 0, matrix(device))
        self.memory.synchronize()
        return out

    def _put_x(self, x: Array) -> None:
        if on_device(x):
            move.put(self.stream, self._x(len(x)), 0, matrix(x))
        elif x.size:
            rows = np.ascontiguousarray(x.reshape(len(x), -1), self.plan.dtype)
            put(self._x(len(x)), rows, self.stream)

    def _forward(self, rows: int, seed: int, step: int) -> None:
        self.refresh()
        if self.plan.scheduled:
            numbers = self.plan.schedule(self.scheduled, step, 1).reshape(-1)
            put(self.schedule, numbers, self.stream)
        self._counter = seed, step
        self._run(0, rows)

    def _run(self, number: int, rows: int, *, accumulate: bool = False) -> None:
        """Run the forward (0) or the backward (1)."""
        for part in self.programs(rows)[number]:
            self.memory.note(part.changes, {})
            if isinstance(part, Control):
                self.call_python(part, rows, *self._counter, accumulate)
            else:
                self._count(part)
                part.launch(self.stream, accumulate)

    def call_python(
        self, control: Control, rows: int, seed: int, step: int, accumulate: bool
    ) -> None:
        """Let Python carry out a kernel on copies of its tensors in the host's memory."""
        one = self.plan.calls[control.row - 1]
        self.memory.download()  # the layer reads its parameters there
        devices, hosts = [], []
        for i, place in enumerate(one.places):
            shape, dtype = self._calls.shape(one, i, rows), one.dtypes[i]
            device = place and cut(control.blocks[place[0]], place[1], shape, dtype)
            empty_one = device is None or 0 in shape
            devices.append(None if empty_one else device)
            there = np.empty(0 if device is None else shape, dtype)
            hosts.append(there if empty_one else fetch(device, there, self.stream))
        self._calls.carry_out(one, hosts, seed=seed, step=step, accumulate=accumulate)
        for name, device, host in zip(one.kernel.tensors, devices, hosts, strict=True):
            if device is not None and name in written(one.kernel):
                put(device, host, self.stream)
        self.memory.note(control.changes, {})

    @contextmanager
    def gradients_back(self) -> Iterator[None]:
        """Restore the gradients where Python raises an error within a backward that adds to them."""
        if not self.calls_python:
            yield
            return
        with self.memory.call():
            kept = Snapshot().take([self.memory.named("grads").device], self.stream)
        try:
            yield
        except BaseException:
            with self.memory.call():
                kept.restore(self.stream)
                self.memory.note(("grads",), {})
            raise

    def _count(self, program: Program) -> None:
        """Write the counter of random draws to the device, if a program uses it."""
        if program.draws and self.counted != self._counter:
            target = self.place(("counter", 0), (2,), np.uint64)
            put(target, np.array(self._counter, np.uint64), self.stream)
            self.counted = self._counter

    def backward(self, dy: Array, *, accumulate: bool = True) -> None:
        """Run the backward program for dL/d-output of the last forward."""
        plan = self.plan
        assert plan.dy is not None
        with self.gradients_back(), self.memory.call():
            self._on_device = on_device(dy)
            target = self.place(plan.dy, tuple(dy.shape), plan.dtype)
            if self._on_device:
                move.put(self.stream, matrix(target), 0, matrix(dy))
            elif dy.size:
                given = np.ascontiguousarray(dy, plan.dtype)
                put(target, given, self.stream)
            self._run(1, len(dy), accumulate=accumulate)

    def input_gradient(self, rows: int) -> Array:
        """dL/dx of the last backward, on the device if dL/d-output was there."""
        plan = self.plan
        if plan.dx is None:
            return np.zeros((rows, *plan.x_shape), plan.dtype)
        with self.memory.call():
            if self._on_device:
                found: Array = self._copy(self.place(plan.dx, (rows, *plan.x_shape), plan.dtype))
                return found
            return self.at(plan.dx, (rows, *plan.x_shape), plan.dtype)

    def refresh(self) -> None:
        """Recompute derived tensors on the host if parameters have changed since."""
        storage, plan = self.storage, self.plan
        if not plan.derived or self._derived_version == storage.version:
            return
        self.memory.download()  # the host's parameters may be old
        for number, offset in plan.derived:
            derived = self._derived_values[number]
            if derived.constant and self._derived_version >= 0:
                continue
            shape, dtype = tuple(int(d) for d in derived.shape), derived.dtype or plan.dtype
            values = np.ascontiguousarray(derived.compute(), dtype).reshape(shape)
            if values.size:
                target = self.place(("derived", offset), shape, dtype)
                put(target, values, self.stream)
        self._derived_version = storage.version

    # Prediction.

    def predict_on_device(self, x: Any, out: Any = None) -> Any:
        """The output for rows on the device, also there: a new array or `out`."""
        plan, shape = self.plan, (len(x), *self.plan.output_shape)
        out = empty(shape, plan.dtype) if out is None else check_out("out", out, shape, plan.dtype)
        rows, target = matrix(x), matrix(out)
        with self.memory.call():
            for begin in range(0, len(x), plan.max_rows):
                part = rows[begin : begin + plan.max_rows]
                move.put(self.stream, self._x(len(part)), 0, part)
                self._forward(len(part), 0, 0)
                move.put(self.stream, target, begin, matrix(self._output(len(part))))
            self.memory.synchronize()
        return out

    def fast_path(self) -> FastPath:
        """See Executor.fast_path; nothing is prepared."""
        return self._predict

    def _predict(self, x: Any, out: Any) -> Any:
        plan = self.plan
        if out is None:
            if type(x) is not np.ndarray or not x.ndim:
                return None
            out = np.empty((len(x), *plan.output_shape), plan.dtype)
        if not takes(plan, x, out):
            return None
        with self.memory.call():
            for begin in range(0, len(x), plan.max_rows):
                part = x[begin : begin + plan.max_rows]
                self._put_x(part)
                self._forward(len(part), 0, 0)
                target = out[begin : begin + len(part)]
                if target.size:
                    fetch(self._output(len(part)), target, self.stream)
        return out

    # Training.

    def resident(self) -> AbstractContextManager[None]:
        """While this is open, changed values stay on the device."""
        return self.memory.resident()

    def orders(self, count: int, seed: int, epoch: int, epochs: int) -> Array:
        """As Executor.orders."""
        return orders(count, seed, epoch, epochs)

    def retrain(self, data: Dataset, steps: Steps) -> Array:
        """As `train` without an update."""
        return self.train(data, steps, None)

    def load(self, data: Dataset, steps: Steps, update: Update | None) -> None:
        """Make a chunk of steps ready; as Executor.load."""
        self._chunk = data, steps, update
        self.steps_done = 0
        self.losses = np.empty(len(steps.offsets) - 1)

    def unload(self) -> None:
        """Let go of the data set and the update of the chunk; as Executor.unload."""
        self._chunk = None

    def run(self, end: int) -> Array:
        """Run the chunk, all of it, which is up to `end`."""
        assert self._chunk is not None and end == len(self.losses)
        data, steps, update = self._chunk
        if not isinstance(data.x, LazyRows):
            self._chunks.train(data, steps, update)
            return self.losses
        losses, done = self.losses, 0
        try:
            for done in range(end):  # the rows of one minibatch after the other
                self.losses, self.steps_done = losses[done : done + 1], 0
                rows = steps.rows(done)
                room = data.room(len(rows))
                data.make(rows, room)
                own = update and replace(update, table=update.table[done : done + 1])
                self._chunks.train(room, steps.one(done), own)
        finally:
            self.losses, self.steps_done = losses, done + self.steps_done
        return losses

    def train(self, data: Dataset, steps: Steps, update: Update | None) -> Array:
        """Run a chunk of steps; as Executor.train."""
        self.load(data, steps, update)
        try:
            return self.run(len(self.losses))
        finally:
            self.unload()


class CudaPasses:
    """Runs an update outside a step on the device; the interface of `fastnet.backends.passes.Passes`."""

    def __init__(self, update: Update, storage: Storage) -> None:
        self._own, self._hyper = update.segments, update.table[0]
        self._memory = segments_of(storage)
        blocks = {**storage.segments, **self._own}
        devices = {name: self._memory.block(host).device for name, host in blocks.items()}
        if self._hyper.size:
            devices["hyper"] = empty((self._hyper.nbytes,), np.uint8)
            self._numbers = cut(devices["hyper"], 0, self._hyper.shape, np.float64)
        self._ready = Program(update.program, devices, 1, self._hyper.shape[1])

    def __call__(self, numbers: Any) -> None:
        """Run once with these numbers, (ops, numbers), or with one number for all."""
        self._hyper[...] = numbers
        with self._memory.call(*self._own.values()):
            self._memory.note(self._ready.changes, self._own)
            if self._hyper.size:
                put(self._numbers, self._hyper, self._memory.stream)
            self._ready.launch(self._memory.stream)
