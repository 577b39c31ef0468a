"""Executor: runs one plan by a backend on a model's segments, with a workspace of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from fastnet import parallel
from fastnet.backends.base import Apply, Backend, Counter, Result, Rows, Step
from fastnet.backends.direct import takes
from fastnet.backends.host import HostCalls, Objects, is_host, parts_of
from fastnet.backends.steps import (
    ParametersNotFinite,
    Steps,
    Update,
    bad_label,
    diverged,
    host_loss,
    norm_diverged,
)
from fastnet.data.dataset import Dataset
from fastnet.data.lazy import LazyRows
from fastnet.data.sparse import bad_column
from fastnet.interrupts import held_back
from fastnet.op import Array
from fastnet.parameter import Derived, Scheduled
from fastnet.plan.compiler import Plan
from fastnet.plan.instructions import Place, kernels_of
from fastnet.plan.records import (
    BAD_COLUMN,
    BAD_LABEL,
    CONTEXT,
    CONTROL,
    HOST,
    KIND,
    NORM_NOT_FINITE,
    NOT_FINITE,
    OK,
    PARAMS_NOT_FINITE,
    PREDICT,
    SEGMENT,
    TRAIN,
    scratch_memory,
    zeros_aligned,
)
from fastnet.plan.segments import Storage

_KIND_OF: dict[Any, int] = {np.dtype(name): number for name, number in KIND.items()}

# Multiplications from which on several threads share a step. The threads' barriers take time, and on a busy
# machine all threads wait for the slowest.
WORK_TO_SHARE = 20_000_000  # about half a millisecond of one thread
UPDATE_WORK = 16  # multiplications that take as long as the update of one parameter
SLOWEST, SLOWEST_CALL = 1e-9, 1e-6  # seconds of a multiplication and of a kernel's call, at worst
# Elements from which on an activation is fused with the instruction before it. Fewer stay in the first
# caches, where one long pass is faster than many pieces.
ELEMENTS_TO_FUSE = 1 << 16

FastPath = Callable[[Any, Any], Array | None]  # see Executor.fast_path


class Executor:
    """Runs one plan. Not for two threads at once: each has its own workspace."""

    def __init__(self, plan: Plan, storage: Storage, backend: Backend) -> None:
        self.plan, self.storage, self.backend = plan, storage, backend
        self._workspace = zeros_aligned(plan.workspace_bytes)
        self._derived = zeros_aligned(plan.derived_bytes)
        self._numbers: Array | None = None
        self._derived_values: Sequence[Derived] = ()
        self._derived_version = -1
        self._scheduled: Sequence[Scheduled] = ()
        self._schedule = np.zeros((0, 0))  # numbers of the steps of the last forward or chunk
        self._stage = zeros_aligned(plan.stage_bytes)
        self._x = self._rows_of_x()
        self._native: tuple[int, Apply | None] = 0, None  # number of threads, and its predictor
        self._train_args: np.ndarray | None = None
        self._joined = plan.step, plan.step  # an update's program, and that of a step with it
        self._program = plan.step  # of the chunk
        self.steps_done = 0  # of the last chunk of steps
        self.refused = 0  # 1: the last of these ends an epoch whose parameters are not finite
        self.evaluated = 0  # epochs of that chunk
        self.unevaluated = 0  # 1: the last epoch's steps are done, and its evaluation is not
        self.evaluation_seconds = 0.0
        self.losses: Array  # of that chunk
        self._chunk: tuple[Dataset, Steps, Update | None] | None = None
        self._made: tuple[Dataset, Array] | None = (
            None  # a minibatch's rows, and the chunk's places
        )
        self._context = np.zeros(1, CONTEXT)
        self._context["elements_to_fuse"] = ELEMENTS_TO_FUSE
        own = {"workspace": self._workspace, "derived": self._derived, "stage": self._stage}
        for name, block in {**storage.segments, **own}.items():
            self._context["segment"][0, SEGMENT[name]] = block.ctypes.data
        self._team = 0  # number of threads that have scratch memory
        self._work: int = plan.fact("work", _work)
        self._sparse: bool = plan.fact("touches rows", _touches_rows)
        self._x_address = self._x.ctypes.data
        for program in (plan.forward, plan.backward, plan.step, plan.derivation):
            backend.prepare(program)
        self._parts = [parts_of(program, backend) for program in (plan.forward, plan.backward)]
        self._calls = HostCalls(plan)
        self._calls_python = self._calls.any
        self._threads(0)

    @property
    def whole_epochs(self) -> bool:
        """Whether one call may run steps of several epochs, whose parameters it looks at."""
        return not self._calls_python

    def use(
        self,
        numbers: Array,
        derived: Sequence[Derived],
        objects: Objects = (),
        scheduled: Sequence[Scheduled] = (),
    ) -> None:
        """Use these scalars of nodes, derived tensors, objects of nodes and schedules from now on."""
        if numbers is self._numbers:
            return
        self._numbers = numbers
        self.plan.write(numbers)
        self._calls.use(objects)
        self._derived_values, self._derived_version = derived, -1
        self._scheduled = scheduled
        self._joined = self.plan.step, self.plan.step

    @property
    def derives(self) -> bool:
        """Whether it has tensors that are derived from parameters, and change with these."""
        return any(not self._derived_values[number].constant for number, _ in self.plan.derived)

    @property
    def _needs_python(self) -> bool:
        """Whether Python computes numbers before each call."""
        return bool(self.plan.derived or self.plan.scheduled) or self._calls_python

    def _rows_of_x(self) -> Array:
        """Memory for the inputs of a forward; empty if steps gather them."""
        plan = self.plan
        shape = (0 if len(plan.step) else plan.max_rows, *plan.x_shape)
        rows: Array = zeros_aligned(math.prod(shape) * plan.dtype.itemsize).view(plan.dtype)
        return rows.reshape(shape)

    def at(self, place: Place, shape: tuple[int, ...], dtype: Any) -> Array:
        """The array at a place of the plan, valid until the next run."""
        segment, offset = place
        dtype = np.dtype(dtype)
        if segment == "x":
            return self._x[: shape[0]].reshape(shape)
        nbytes = int(np.prod(shape)) * dtype.itemsize
        block = {"workspace": self._workspace, "derived": self._derived}[segment]
        array: Array = block[offset : offset + nbytes].view(dtype).reshape(shape)
        return array

    def forward(self, x: Array, seed: int = 0, step: int = 0) -> Array:
        """Run the forward program on a copy of the rows x; returns a view of the output."""
        rows = len(x)
        np.copyto(self._x[:rows], x, casting="unsafe")
        return self._forward(rows, self._x_address, seed, step)

    def fast_path(self) -> FastPath:
        """A function (x, out) that predicts with the least overhead; out=None makes a new array.

        It returns None and does not write to `out` unless they are as Backend.apply_call asks, or where
        contiguous arrays overlap; the caller then finds the cause. The function keeps the executor alive,
        and the executor does not keep the function.
        """
        plan, storage = self.plan, self.storage
        dtype, row = plan.dtype, plan.output_shape
        ndarray, empty, asarray = np.ndarray, np.empty, np.asarray
        team, predict = self._predictor()

        def fast_path(x: Any, out: Any) -> Array | None:
            nonlocal team, predict
            if type(x) is list:
                try:
                    x = asarray(x)
                except Exception:
                    return None
            if out is None:
                if type(x) is not ndarray or not x.ndim:
                    return None
                out = empty((len(x), *row), dtype)
            if team != parallel.count:
                team, predict = self._predictor()
            if self._derived_version != storage.version or storage.editing:
                self._refresh()
            return out if predict(x, out) else None

        return fast_path

    def _predictor(self) -> tuple[int, Apply]:
        """The current number of threads, and the predictor for it."""
        plan, team = self.plan, parallel.get_num_threads()
        if self._native[0] != team:
            output = 0 if plan.output[0] == "x" else self.address(plan.output)
            self._native = team, self._apply(plan.forward, 0, output)
        return team, self._native[1] or self._in_blocks

    def _apply(
        self,
        program: np.ndarray,
        x: int,
        output: int,
        counters: Sequence[Counter] = (),
        *,
        back: bool = False,
        seed: int = 0,
    ) -> Apply | None:
        """A native function that copies rows to the address x, runs a program and copies its output.

        x, output: 0 for the caller's rows themselves. back: from gradients of the output to those of x,
        which adds to the gradients of parameters.
        """
        if self._calls_python:
            return None
        plan, args = self.plan, np.zeros(1, PREDICT)
        a, shapes = args[0], (plan.x_shape, plan.output_shape)
        self._threads(plan.max_rows)
        a["context"] = self._context[0]
        a["context"]["segment"][SEGMENT["x"]] = self._x_address
        a["context"]["seed"], a["context"]["accumulate"] = seed, back
        a["rows_to_share"] = self._rows_to_share()
        a["dtype"], a["max_rows"] = KIND[plan.dtype.name], plan.max_rows
        a["forward"], a["forward_count"] = program.ctypes.data, len(program)
        taken, given = reversed(shapes) if back else shapes
        a["x"], a["output"] = x, output
        a["x_bytes"] = math.prod(taken) * plan.dtype.itemsize
        a["output_bytes"] = math.prod(given) * plan.dtype.itemsize
        return self.backend.apply_call(args, taken, given, self._own_memory(), counters)

    def _own_memory(self) -> list[Any]:
        """What must stay alive while native code runs the plan, but for the model's segments."""
        return [self.plan, self._workspace, self._derived, self._stage, self._x, self._scratch]

    def _rows_to_share(self) -> int:
        """From how many rows on several threads share a run."""
        return math.ceil(WORK_TO_SHARE / max(1, self._work))

    def forward_call(self, seed: int, counters: Sequence[Counter]) -> Apply | None:
        """A native function (x, out, own) → bool, as `forward`; None: the backend has none."""
        if self.plan.output[0] == "x" or self._needs_python:
            return None
        output = self.address(self.plan.output)
        return self._apply(self.plan.forward, self._x_address, output, counters, seed=seed)

    def backward_call(self, seed: int) -> Apply | None:
        """A native function (dy, dx, draw) → bool, as `backward`; None: the backend has none."""
        plan = self.plan
        if plan.dy is None or plan.dx is None or plan.scheduled:
            return None
        dy, dx = self.address(plan.dy), self.address(plan.dx)
        return self._apply(plan.backward, dy, dx, back=True, seed=seed)

    def resume(self, rows: int, seed: int, step: int) -> None:
        """Let `backward` follow a forward of these rows that `forward_call` has run."""
        self._threads(rows)
        context = self._context
        context["segment"][0, SEGMENT["x"]] = self._x_address
        context["rows"], context["seed"], context["step"] = rows, seed, step

    def step_call(
        self,
        data: Dataset,
        steps: Steps,
        update: Update | None,
        targets: tuple[float, float],
        least: int,
        counters: Sequence[Counter],
        result: Result | None = None,
    ) -> Step | None:
        """A native function (x, y, accumulate, own) → loss: a step on rows of the kind of `data`.

        steps: as many as the update has numbers for. targets: the least and the largest target. least: the
        fewest rows. See Backend.step_call.
        """
        plan = self.plan
        if data.host is not None or data.w is not None or self._needs_python:
            return None
        largest = float(np.finfo(plan.dtype).max)
        rows = Rows(
            x=data.row_shape,
            y=() if data.classes else tuple(data.y.shape[1:]),
            labels=data.classes > 0,
            low=max(-largest, targets[0]),
            high=min(largest, targets[1]),
            least=least,
            most=plan.max_rows,
            to_share=self._rows_to_share(),
        )
        self.load(data, steps, update)
        self.unload()
        assert self._train_args is not None
        self._threads(plan.max_rows)
        args = self._train_args.copy()
        for name in ("scratch", "threads"):
            args["context"][name] = self._context[name]
        kept = [self._own_memory(), self._joined, update, steps]
        return self.backend.step_call(args, rows, len(steps.offsets) - 1, kept, counters, result)

    def _in_blocks(self, x: Any, out: Any) -> bool:
        if not takes(self.plan, x, out):
            return False
        for begin in range(0, len(x), self.plan.max_rows):
            part = x[begin : begin + self.plan.max_rows]
            done = self._forward(len(part), part.ctypes.data, 0, 0)
            given = part.reshape(done.shape) if self.plan.output[0] == "x" else done
            np.copyto(out[begin : begin + len(part)], given)
        return True

    def _forward(self, rows: int, x_address: int, seed: int, step: int) -> Array:
        self._refresh()
        self._threads(rows)
        context = self._context
        if self.plan.scheduled:
            context["segment"][0, SEGMENT["schedule"]] = self._schedule_of(step, 1)
        context["segment"][0, SEGMENT["x"]] = x_address
        context["rows"], context["seed"], context["step"] = rows, seed, step
        self._run(0)
        return self.at(self.plan.output, (rows, *self.plan.output_shape), self.plan.dtype)

    def backward(self, dy: Array, *, accumulate: bool = True) -> None:
        """Run the backward program for dL/d-output of the last forward."""
        plan = self.plan
        assert plan.dy is not None
        np.copyto(self.at(plan.dy, dy.shape, plan.dtype), dy, casting="unsafe")
        self._context["accumulate"] = accumulate
        with self._calls.gradients_back(self.storage):
            self._run(1)

    def _run(self, number: int) -> None:
        """Run the forward (0) or the backward (1)."""
        for part in self._parts[number]:
            if is_host(part):
                self._calls.run(part[0], self._context)
            else:
                self.backend.run(part, self._context)

    def input_gradient(self, rows: int) -> Array:
        """dL/dx of the last backward, as a view."""
        plan = self.plan
        if plan.dx is None:
            return np.zeros((rows, *plan.x_shape), plan.dtype)
        return self.at(plan.dx, (rows, *plan.x_shape), plan.dtype)

    def resident(self) -> AbstractContextManager[None]:
        """While this is open, a backend with memory of its own may keep changed values there."""
        return nullcontext()

    def orders(self, count: int, seed: int, epoch: int, epochs: int) -> Array:
        """The orders of so many rows in epochs epoch, epoch + 1, … (see Backend.orders)."""
        return self.backend.orders(count, seed, epoch, epochs)

    def train(self, data: Dataset, steps: Steps, update: Update | None) -> Array:
        """Run a chunk of steps in one call of the backend; returns their losses, float64.

        If Python computes the loss, the step calls it. Raises DataError for a label out of range and
        DivergenceError for a loss that is not finite; then the earlier steps are done and that step has
        changed nothing.
        """
        self.load(data, steps, update)
        try:
            return self.run(len(steps.offsets) - 1)
        finally:
            self.unload()

    def retrain(self, data: Dataset, steps: Steps) -> Array:
        """As `train` without an update, for the same steps again and again.

        They stay loaded until `unload`.
        """
        loaded = self._chunk
        if loaded is None or loaded[0] is not data or loaded[1] is not steps:
            self.load(data, steps, None)
        else:
            if self.plan.derived:
                self._refresh()
            self._train_field["done"][0] = self._train_field["at"][0] = 0
            self._train_context["step"][0] = steps.first_step
        return self.run(len(steps.offsets) - 1)

    def load(self, data: Dataset, steps: Steps, update: Update | None) -> None:
        """Make a chunk of steps ready: `run` then runs some of them after the other."""
        plan = self.plan
        if plan.derived:
            self._refresh()
        self._chunk = data, steps, update  # kept alive for `run`
        self.steps_done = self.refused = self.evaluated = self.unevaluated = 0
        count = len(steps.offsets) - 1
        losses = self.losses = np.empty(count)
        if self._train_args is None:
            self._train_args = self._training()
        field, context = self._train_field, self._train_context
        context["seed"][0], context["step"][0] = steps.seed, steps.first_step
        context["accumulate"][0] = steps.accumulate
        more = update_work(update.program) if self._sparse and update is not None else 0
        context["threads"][0] = self._threads(max(1, len(steps.index) // count), more)
        context["scratch"][0] = self._context["scratch"][0]
        program = plan.step
        if update is not None:
            program = self._with(update.program)
            context["segment"][0, SEGMENT["state"]] = _address_of(update.state)
            context["segment"][0, SEGMENT["training"]] = _address_of(update.training)
            context["hyper"][0] = update.table.ctypes.data
            context["hyper_size"][0] = update.table.shape[2]
            field["table_bytes"][0] = 8 * math.prod(update.table.shape[1:])
        if plan.scheduled:
            context["segment"][0, SEGMENT["schedule"]] = self._schedule_of(steps.first_step, count)
            field["schedule_bytes"][0] = plan.schedule_bytes
        self._program = program
        field["program"][0], field["count"][0] = program.ctypes.data, len(program)
        index, self._made = steps.index, None
        if isinstance(data.x, LazyRows) and not self.backend.reads_rows:
            self._made = data.room(int(np.diff(steps.offsets).max())), steps.places
            data, index = self._made
        for name in ("x", "y") if data.host is None else ("x",):  # Python's loss reads y itself
            field[name][0], dtype = data.source(name)
            field[f"{name}_kind"][0] = _KIND_OF[dtype]
        for name, value in zip(("x_scale", "x_begins", "x_columns"), data.layout(), strict=True):
            field[name][0] = value
        field["w"][0], _ = data.source("w")
        field["classes"][0], field["ignored"][0] = data.classes, data.ignored
        field["batch_offsets"][0] = steps.offsets.ctypes.data
        field["index"][0] = index.ctypes.data
        field["losses"][0] = losses.ctypes.data
        field["outputs"][0] = _address_of(steps.outputs)
        field["row_losses"][0] = _address_of(steps.row_losses)
        field["decisions"][0] = _address_of(steps.decisions)
        field["done"][0], field["at"][0], field["goes_on"][0] = 0, 0, steps.goes_on
        field["evaluation"][0] = 0
        if steps.evaluation is not None:
            steps.evaluation.load(field)

    def _schedule_of(self, first: int, count: int) -> int:
        """Compute the numbers of schedules at these steps of the random draws; returns their address."""
        self._schedule = self.plan.schedule(self._scheduled, first, count)
        return int(self._schedule.ctypes.data)

    def unload(self) -> None:
        """Let go of the data set and the update of the chunk."""
        if self._chunk is not None and (other := self._chunk[1].evaluation) is not None:
            other.executor.unload()
        self._chunk = self._made = None

    def run(self, end: int) -> Array:
        """Run the steps of the chunk that come before `end` and are still to do; all losses so far.

        Raises as `train` does.
        """
        assert self._chunk is not None
        data, steps, _ = self._chunk
        args = self.begin(end)  # Ctrl-C may come before the call
        try:
            if steps.evaluation is not None:
                steps.evaluation.run(args)
            elif data.host is None and self._made is None and not self._calls_python:
                self.backend.train(args)
            else:
                self._train_by_steps(data, steps, end)
        finally:  # Ctrl-C is raised when the native call has returned
            self.ended()
        return self.outcome()

    def native_run(self) -> Callable[[int], None]:
        """A function of `end` that runs the loaded steps before it and sees what is done.

        `outcome` follows. For a backend that `joins`, where nothing is evaluated within the call.
        """
        assert self._train_args is not None
        args, steps, status = self._train_args, self._steps, self._status
        train = self.backend.train

        def run(end: int) -> None:
            steps[0], status[0] = end, OK
            try:
                train(args)
            finally:
                self.ended()

        return run

    def surely_takes(self, ops: int) -> float:
        """Seconds that a step of the most rows takes at worst, where native code does all of it.

        ops: passes of the update over all parameters.
        """
        parameters = len(self.storage.flat("params"))
        work = self.plan.max_rows * self._work + ops * UPDATE_WORK * parameters
        return work * SLOWEST + (len(self.plan.step) + ops) * SLOWEST_CALL

    def run_to_host(self, end: int) -> int:
        """Run the chunk's next step until Python has to carry out something, or to the end; returns how.

        end: the step's number, from 1. Raises as `run` does.
        """
        assert self._chunk is not None
        if self._made is not None and not self._train_field["at"][0]:
            self._chunk[0].make(self._chunk[1].rows(end - 1), self._made[0])
        self.backend.train(self.begin(end))
        self.ended()
        status = int(self._train_field["status"][0])
        if status != HOST:
            self.outcome()
        return status

    def twin(self) -> Executor:
        """Another executor of the plan, with a workspace of its own, on the same model."""
        made = Executor(self.plan.copy(), self.storage, self.backend)
        assert self._numbers is not None
        objects = self._calls.objects
        made.use(self._numbers, self._derived_values, objects, self._scheduled)
        return made

    @property
    def joins(self) -> bool:
        """Whether `backend.train_many` runs steps together with those of other models."""
        return self.backend.joins and not self._calls_python

    def begin(self, end: int) -> np.ndarray:
        """The argument of a native call that runs the steps before `end`; `ended` follows the call."""
        assert self._train_args is not None
        self._steps[0], self._status[0] = end, OK
        return self._train_args

    def ended(self) -> None:
        """See how many steps of the chunk are done after a native call."""
        if self._chunk is not None and self._chunk[1].evaluation is not None:
            field = self._train_field
            self.evaluated = int(field["evaluated"][0])
            self.evaluation_seconds = float(field["seconds"][0])
            epochs = int(field["done"][0] // field["epoch"][0])
            self.unevaluated = epochs - self.evaluated
        self.refused = int(self._status[0] == PARAMS_NOT_FINITE)
        self.steps_done = self._done[0] + self.refused

    def outcome(self) -> Array:
        """The losses of the steps that are done; raises as `train` does where one was refused."""
        assert self._chunk is not None
        data, steps, _ = self._chunk
        if steps.evaluation is not None:
            steps.evaluation.check()
        done, losses, status = self.steps_done, self.losses, self._status[0]
        if status == OK:
            return losses[:done]
        field = self._train_field
        bad_row = int(field["bad_row"][0])
        if status == BAD_LABEL:
            row = bad_row if self._made is None else int(steps.rows(done)[bad_row])
            raise bad_label(data.classes, row)
        if status == BAD_COLUMN:
            raise bad_column(data.width)
        if status == NOT_FINITE:
            raise diverged(steps.first_step + done, losses[done], self._why(data, steps))
        if status == NORM_NOT_FINITE:
            raise norm_diverged(steps.first_step + done, float(field["value"][0]))
        raise ParametersNotFinite

    def ready(self, update: Update) -> None:
        """Compile the steps with this update, which may take long, before signals are held back."""
        self._with(update.program)

    def _train_by_steps(self, data: Dataset, steps: Steps, end: int) -> None:
        """The same, a step at a time, for which Python makes the rows or computes the loss."""
        args, field = self._train_args, self._train_field
        assert args is not None
        with held_back() as between, self._calls.gradients_back(self.storage):
            for step in range(int(field["done"][0]), end):
                field["steps"][0], field["at"][0] = step + 1, 0
                if self._made is not None:
                    data.make(steps.rows(step), self._made[0])
                self.backend.train(args)
                while field["status"][0] == HOST:
                    try:
                        self._host(data, steps, step)
                    except BaseException:  # of the function, or a second Ctrl-C
                        self._put_back()
                        raise
                    self.backend.train(args)
                if field["status"][0] != OK:
                    return
                between()

    def _host(self, data: Dataset, steps: Steps, step: int) -> None:
        """Carry out the instruction before which a step has returned: a kernel, or the loss."""
        assert self._train_args is not None
        instruction, plan = self._program[int(self._train_field["at"][0]) - 1], self.plan
        if self._calls.takes(instruction):
            self._calls.run(instruction, self._train_args["context"])
            return
        assert plan.loss is not None and plan.dy is not None
        output = self._output(data, steps.rows(step))
        loss, gradient = host_loss(data, steps, step, output)
        self.at(plan.loss, (1,), np.float64)[0] = loss
        np.copyto(self.at(plan.dy, gradient.shape, plan.dtype), gradient)

    def _put_back(self) -> None:
        """Restore the buffers' values from before the step."""
        (keeps,) = np.nonzero(self.plan.step["kernel"] == CONTROL["keep"])
        for keep in self.plan.step[keeps]:
            begin, nbytes = int(keep["offset"][0]), int(keep["size"][0])
            np.copyto(self.storage.segments["buffers"], self._stage[begin : begin + nbytes])

    def _with(self, update: np.ndarray) -> np.ndarray:
        """The program of a step that ends with this update."""
        if self._joined[0] is not update:
            whole = np.concatenate([self.plan.step, update])
            self.backend.prepare(whole)
            self._joined = update, whole
        return self._joined[1]

    def _why(self, data: Dataset, steps: Steps) -> str | None:
        """The loss's explanation of why it is not finite in the last step."""
        if data.explain is None:
            return None
        rows = steps.rows(self.steps_done)
        return data.explain(self._output(data, rows), data.y[rows])

    def _output(self, data: Dataset, rows: Array) -> Array:
        """The output of the current step, which has these rows of the data set."""
        if self.plan.output[0] == "x":
            return np.asarray(data.x[rows], self.plan.dtype)
        return self.at(self.plan.output, (len(rows), *self.plan.output_shape), self.plan.dtype)

    def _threads(self, rows: int, more: int = 0) -> int:
        """The number of threads for so many rows, and more work; allocates their scratch memory."""
        team = team_for(rows * self._work + more)
        if team > self._team:
            self._scratch = scratch_memory(team)  # pages come at first use
            self._context["scratch"], self._team = self._scratch.ctypes.data, team
        self._context["threads"] = team
        return team

    def _training(self) -> np.ndarray:
        """The argument of training steps, with the fields that are the same in every call."""
        plan = self.plan
        args = np.zeros(1, TRAIN)
        a = args[0]
        a["context"] = self._context[0]
        a["dtype"], a["before_update"] = KIND[plan.dtype.name], len(plan.step)
        # Writing to a view of one field is much faster than writing to the record.
        self._train_field = {name: args[name] for name in TRAIN.names or ()}
        self._train_context = {name: args["context"][name] for name in CONTEXT.names or ()}
        # Those of each call; a memory view gives Python's integers in a third of the time.
        steps, done, status = (args[name].data for name in ("steps", "done", "status"))
        self._steps: Any = steps
        self._done: Any = done
        self._status: Any = status
        return args

    def address(self, place: Place) -> int:
        """The address of a place of the plan."""
        segment, offset = place
        return int(self._context["segment"][0, SEGMENT[segment]]) + offset

    def _refresh(self) -> None:
        """Recompute derived tensors if parameters have changed since."""
        if self.storage.editing:
            self.storage.take_edits()
        version = self.storage.version
        if self._derived_version != version:
            for number, offset in self.plan.derived:
                derived = self._derived_values[number]
                if derived.node is not None or (derived.constant and self._derived_version >= 0):
                    continue
                shape, dtype = (
                    tuple(int(d) for d in derived.shape),
                    derived.dtype or self.plan.dtype,
                )
                np.copyto(self.at(("derived", offset), shape, dtype), derived.compute())
            if len(self.plan.derivation):
                self._threads(self.plan.max_rows)
                self.backend.run(self.plan.derivation, self._context)
            self._derived_version = version


def team_for(work: int) -> int:
    """The number of threads that share so many multiplications."""
    most = parallel.get_num_threads()  # raises for a wrong variable
    return most if work >= WORK_TO_SHARE else 1


def update_work(program: np.ndarray) -> int:
    """The approximate number of multiplications that take as long as an update program.

    Of a rule with weights of its own, size 3 is their number.
    """
    sizes = program["size"]
    return int((sizes[:, 0] * (UPDATE_WORK + sizes[:, 3])).sum())


def _address_of(array: Array | None) -> int:
    return 0 if array is None else int(array.ctypes.data)


def _work(plan: Plan) -> int:
    """The approximate number of multiplications of a plan's programs for one row."""
    work = 0
    for program in (plan.forward, plan.backward, plan.step):
        for instruction, kernel in kernels_of(program):
            sizes = dict(zip(kernel.op.dims, instruction["size"].tolist(), strict=False))
            times = 1 + int(instruction["more_rows"])
            work += times * kernel.op.work(sizes, times * plan.max_rows)
    return work


def _touches_rows(plan: Plan) -> bool:
    """Whether a step has kernels that touch some rows of a weight only."""
    return any(kernel.op.touches_rows for _, kernel in kernels_of(plan.step))
