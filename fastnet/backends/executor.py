"""Executor: one plan, its workspace and a backend, ready to run on a model's segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from fastnet import parallel
from fastnet.backends.base import Backend, Predict
from fastnet.backends.steps import Data, Steps, Update, bad_label, diverged, norm_diverged
from fastnet.op import Array
from fastnet.plan.compiler import Place, Plan
from fastnet.plan.records import (
    BAD_LABEL,
    CONTEXT,
    KIND,
    NORM_NOT_FINITE,
    NOT_FINITE,
    PREDICT,
    SCRATCH,
    SEGMENT,
    TRAIN,
    zeros_aligned,
)
from fastnet.plan.segments import Storage

_KIND_OF = {np.dtype(name): number for name, number in KIND.items()}

# Multiplications of a step that are worth a team of threads: about half a millisecond of one. The team's
# barriers take some µs, and on a busy machine everyone waits for the one that is held up.
WORK_TO_SHARE = 20_000_000
UPDATE_WORK = 16  # multiplications that take as long as the update of one parameter
# Elements of an activation that are worth fusing it with what comes before: fewer stay in the first caches
# anyway, and one long pass is faster than many pieces.
ELEMENTS_TO_FUSE = 1 << 16


class Executor:
    """Runs one plan. Not for two threads at once: each has its own workspace."""

    def __init__(self, plan: Plan, storage: Storage, backend: Backend) -> None:
        self.plan, self.storage, self.backend = plan, storage, backend
        self._workspace = zeros_aligned(plan.workspace_bytes)
        self._derived = zeros_aligned(plan.derived_bytes)
        self._derived_version = -1
        self._x = self._stage(plan.x_shape, plan.dtype)
        self._y = None if plan.y_dtype is None else self._stage(plan.y_shape, plan.y_dtype)
        self._w = self._stage((), plan.dtype) if plan.weighted else None
        self._team_to_predict = 0  # threads that `_native` is for
        self._native: Predict | None
        self._train_args: np.ndarray | None = None
        self.steps_done = 0  # of the last chunk of training steps
        self.losses: Array  # of that chunk
        # What the loss says of outputs and targets where it is not finite.
        self.explain: Callable[[Array, Array], str | None] | None = None
        self._context = np.zeros(1, CONTEXT)
        self._context["elements_to_fuse"] = ELEMENTS_TO_FUSE
        segments = {**storage.segments, "workspace": self._workspace, "derived": self._derived}
        for name, block in segments.items():
            self._context["segment"][0, SEGMENT[name]] = block.ctypes.data
        self._team = 0  # threads that there is scratch memory for
        self._work = _work(plan)
        self._x_address = self._x.ctypes.data
        backend.prepare(plan.forward)
        backend.prepare(plan.backward)
        self._threads(0)

    def _stage(self, row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        shape = (self.plan.max_rows, *row_shape)
        stage: Array = zeros_aligned(int(np.prod(shape)) * dtype.itemsize).view(dtype)
        return stage.reshape(shape)

    def at(self, place: Place, shape: tuple[int, ...], dtype: Any) -> Array:
        """The array at a place of the plan; valid until the next run."""
        segment, offset = place
        dtype = np.dtype(dtype)
        if segment == "x":
            return self._x[: shape[0]]
        nbytes = int(np.prod(shape)) * dtype.itemsize
        block = {"workspace": self._workspace, "derived": self._derived}[segment]
        array: Array = block[offset : offset + nbytes].view(dtype).reshape(shape)
        return array

    def forward(self, x: Array, seed: int = 0, step: int = 0) -> Array:
        """Run the forward program on rows of x, which are copied; returns a view of the output."""
        rows = len(x)
        np.copyto(self._x[:rows], x, casting="unsafe")
        return self._forward(rows, self._x_address, seed, step)

    def predict(self, x: Any, out: Any) -> bool:
        """Write the output for any number of rows to `out`.

        False, and out left alone, where x or out is not an aligned contiguous array of the plan's dtype
        and shape, where they overlap, or where x is not finite.
        """
        predict = self._ready_to_predict()
        self._refresh()
        return predict(x, out)

    def short_way(self) -> Callable[[Any, Any], Array | None]:
        """A function (x, out) that predicts with nothing in between; `out`, or a new array for None.

        It returns None, and leaves out alone, where `predict` is False or the number of threads is
        another one now: the caller then looks into it. It keeps the executor alive, which does not keep it.
        """
        plan, storage, predict = self.plan, self.storage, self._ready_to_predict()
        dtype, row = plan.dtype, plan.output_shape
        ndarray, empty = np.ndarray, np.empty
        team = self._team_to_predict

        def short_way(x: Any, out: Any) -> Array | None:
            if team != parallel.count:
                return None
            if out is None:
                if type(x) is not ndarray or not x.ndim:
                    return None
                out = empty((len(x), *row), dtype)
            if self._derived_version != storage.version or storage.editing:
                self._refresh()
            return out if predict(x, out) else None

        return short_way

    def _ready_to_predict(self) -> Predict:
        """What predicts with the number of threads in force."""
        team = parallel.get_num_threads()
        if self._team_to_predict != team:
            self._native, self._team_to_predict = self._predictor(), team
        return self._native or self._in_blocks

    def _predictor(self) -> Predict | None:
        plan, args = self.plan, np.zeros(1, PREDICT)
        a = args[0]
        self._threads(plan.max_rows)
        a["context"] = self._context[0]
        a["rows_to_share"] = math.ceil(WORK_TO_SHARE / max(1, self._work))
        a["dtype"], a["max_rows"] = KIND[plan.dtype.name], plan.max_rows
        a["forward"], a["forward_count"] = plan.forward.ctypes.data, len(plan.forward)
        a["x_bytes"] = math.prod(plan.x_shape) * plan.dtype.itemsize
        a["output"] = 0 if plan.output[0] == "x" else self._address(plan.output)
        a["output_bytes"] = math.prod(plan.output_shape) * plan.dtype.itemsize
        return self.backend.predictor(args, plan.x_shape, plan.output_shape)

    def _in_blocks(self, x: Any, out: Any) -> bool:
        if not takes(self.plan, x, out):
            return False
        for begin in range(0, len(x), self.plan.max_rows):
            part = x[begin : begin + self.plan.max_rows]
            done = self._forward(len(part), part.ctypes.data, 0, 0)
            np.copyto(out[begin : begin + len(part)], part if self.plan.output[0] == "x" else done)
        return True

    def _forward(self, rows: int, x_address: int, seed: int, step: int) -> Array:
        self._refresh()
        self._threads(rows)
        context = self._context
        context["segment"][0, SEGMENT["x"]] = x_address
        context["rows"], context["seed"], context["step"] = rows, seed, step
        self.backend.run(self.plan.forward, context)
        return self.at(self.plan.output, (rows, *self.plan.output_shape), self.plan.dtype)

    def forward_rows(self, data: Data, rows: Array, seed: int, step: int) -> Array:
        """Run the forward program on these rows of a data set; returns a view of the output."""
        return self.forward(data.x[rows], seed, step)

    def backward(self, dy: Array, *, accumulate: bool = True) -> None:
        """Run the backward program for dL/d-output of the last forward."""
        plan = self.plan
        assert plan.dy is not None
        np.copyto(self.at(plan.dy, dy.shape, plan.dtype), dy, casting="unsafe")
        self._context["accumulate"] = accumulate
        self.backend.run(plan.backward, self._context)

    def input_gradient(self, rows: int) -> Array:
        """dL/dx of the last backward, a view."""
        plan = self.plan
        if plan.dx is None:
            return np.zeros((rows, *plan.x_shape), plan.dtype)
        return self.at(plan.dx, (rows, *plan.x_shape), plan.dtype)

    def update(self, program: np.ndarray, segments: Mapping[str, Array], hyper: Array) -> None:
        """Run an update program once, with `hyper` (passes, numbers) and the segments it needs."""
        context = self._context
        for name, segment in segments.items():
            context["segment"][0, SEGMENT[name]] = segment.ctypes.data
        context["hyper"], context["hyper_size"] = hyper.ctypes.data, hyper.shape[-1]
        self._threads(1, update_work(program))
        self.backend.run(program, context)

    def resident(self) -> AbstractContextManager[None]:
        """While this is open, a backend with memory of its own may keep there what it changes."""
        return nullcontext()

    def buffers(self) -> Any:
        """What the buffers hold now, for `set_buffers`."""
        return self.storage.segments["buffers"].copy()

    def set_buffers(self, kept: Any) -> None:
        """Let the buffers be as they were."""
        np.copyto(self.storage.segments["buffers"], kept)

    def norm(self, update: Update) -> float:
        """The norm that an update must find finite; 0 where it asks for none."""
        return 0.0 if update.norm is None else float(update.norm[0])

    def train(self, data: Data, steps: Steps, update: Update | None) -> Array:
        """Run a chunk of training steps in one call of the backend; returns their losses, float64.

        Raises DataError for a label out of range and DivergenceError for a loss that is not finite;
        the steps before it are done, the step itself has not been applied.
        """
        plan, outputs = self.plan, steps.outputs
        if plan.derived:
            self._refresh()
        self.steps_done = 0
        count = len(steps.offsets) - 1
        losses = self.losses = np.empty(count)
        if self._train_args is None:
            self._train_args = self._training()
        args = self._train_args
        field, context = self._train_field, self._train_context
        context["seed"][0], context["step"][0] = steps.seed, steps.first_step
        context["accumulate"][0] = steps.accumulate
        context["threads"][0] = self._threads(max(1, len(steps.index) // count))
        context["scratch"][0] = self._context["scratch"][0]
        if update is not None:
            context["segment"][0, SEGMENT["state"]] = update.state.ctypes.data
            context["hyper_size"][0] = update.hyper.shape[2]
            field["groups"][0] = update.hyper.shape[1]
            field["hyper"][0] = update.hyper.ctypes.data
            field["update"][0] = update.program.ctypes.data
            field["collect_count"][0] = update.collect_count
            field["guard_count"][0] = update.guard_count
            context["segment"][0, SEGMENT["training"]] = _address_of(update.training)
            field["updates"][0] = _address_of(update.updates)
            field["norm"][0] = _address_of(update.norm)
        else:
            for name in ("collect_count", "guard_count", "updates", "norm"):
                field[name][0] = 0
        field["update_count"][0] = 0 if update is None else len(update.program)
        field["x"][0], field["x_kind"][0] = data.x.ctypes.data, _KIND_OF[data.x.dtype]
        field["y"][0], field["y_kind"][0] = data.y.ctypes.data, _KIND_OF[data.y.dtype]
        assert (data.w is None) == (self._w is None)
        field["w"][0] = 0 if data.w is None else data.w.ctypes.data
        field["classes"][0], field["steps"][0] = data.classes, count
        field["ignored"][0] = data.ignored
        field["batch_offsets"][0] = steps.offsets.ctypes.data
        field["index"][0] = steps.index.ctypes.data
        field["losses"][0] = losses.ctypes.data
        field["outputs"][0] = field["done"][0] = 0
        if outputs is not None and plan.output[0] == "x":
            np.copyto(outputs, data.x[steps.index], casting="unsafe")  # nothing is computed
        elif outputs is not None:
            assert outputs.flags.c_contiguous and outputs.dtype == plan.dtype
            field["outputs"][0] = outputs.ctypes.data
        try:
            self.backend.train(args)
        finally:  # Ctrl-C is raised when the native call has returned
            done = self.steps_done = int(field["done"][0])
        status = field["status"][0]
        if status == BAD_LABEL:
            raise bad_label(data.classes, int(field["bad_row"][0]))
        if status == NOT_FINITE:
            raise diverged(steps.first_step + done, losses[done], self._why(data, steps))
        if status == NORM_NOT_FINITE:
            assert update is not None and update.norm is not None
            raise norm_diverged(steps.first_step + done, update.norm[0])
        return losses

    def _why(self, data: Data, steps: Steps) -> str | None:
        """What the loss says of the step that it was not finite in."""
        if self.explain is None:
            return None
        begin, end = steps.offsets[self.steps_done : self.steps_done + 2]
        rows = steps.index[begin:end]
        output = data.x[rows]
        if self.plan.output[0] != "x":
            output = self.at(
                self.plan.output, (len(rows), *self.plan.output_shape), self.plan.dtype
            )
        return self.explain(output, data.y[rows])

    def _threads(self, rows: int, work: int | None = None) -> int:
        """How many threads share the work of so many rows, each with scratch memory from now on."""
        work = rows * (self._work if work is None else work)
        team = team_for(work)
        if team > self._team:
            self._scratch = zeros_aligned(team * SCRATCH)  # given by the system when it is touched
            self._context["scratch"], self._team = self._scratch.ctypes.data, team
        self._context["threads"] = team
        return team

    def _training(self) -> np.ndarray:
        """The argument of training steps, with what is the same in every call."""
        plan = self.plan
        assert plan.loss and plan.row_loss and self._y is not None and plan.y_dtype is not None
        args = np.zeros(1, TRAIN)
        a = args[0]
        a["context"] = self._context[0]
        a["dtype"] = KIND[plan.dtype.name]
        for name, program in (("forward", plan.forward), ("backward", plan.backward)):
            a[name], a[f"{name}_count"] = program.ctypes.data, len(program)
        for name, stage in (("x", self._x), ("y", self._y)):
            a[f"{name}_width"], a[f"{name}_stage"] = math.prod(stage.shape[1:]), stage.ctypes.data
        a["w_stage"] = 0 if self._w is None else self._w.ctypes.data
        a["loss"], a["row_loss"] = self._address(plan.loss), self._address(plan.row_loss)
        if plan.output[0] != "x":
            a["output"] = self._address(plan.output)
            a["output_bytes"] = math.prod(plan.output_shape) * plan.dtype.itemsize
        buffers = self.storage.segments["buffers"]
        self._buffers_kept = zeros_aligned(buffers.nbytes)
        a["buffers_bytes"], a["buffers_kept"] = buffers.nbytes, self._buffers_kept.ctypes.data
        # Writing through a view of one field takes a tenth of the time of writing to the record.
        self._train_field = {name: args[name] for name in TRAIN.names or ()}
        self._train_context = {name: args["context"][name] for name in CONTEXT.names or ()}
        return args

    def _address(self, place: Place) -> int:
        segment, offset = place
        return int(self._context["segment"][0, SEGMENT[segment]]) + offset

    def _refresh(self) -> None:
        """Recompute what is derived from parameters, where these have changed since."""
        if self.storage.editing:
            self.storage.take_edits()
        version = self.storage.version
        if self._derived_version != version:
            for derived, offset in self.plan.derived:
                shape = tuple(int(d) for d in derived.shape)
                np.copyto(self.at(("derived", offset), shape, self.plan.dtype), derived.compute())
            self._derived_version = version


def team_for(work: int) -> int:
    """How many threads share so many multiplications."""
    most = parallel.get_num_threads()  # asked for little work too: a wrong variable is told at once
    return most if work >= WORK_TO_SHARE else 1


def update_work(program: np.ndarray) -> int:
    """About how many multiplications take as long as an update program."""
    return UPDATE_WORK * int(program["size"][:, 0].sum())


def _address_of(array: Array | None) -> int:
    return 0 if array is None else int(array.ctypes.data)


def takes(plan: Plan, x: Any, out: Any) -> bool:
    """Whether a plan's prediction can read x and write out as they are (see Backend.predictor)."""
    if not (_plain(x, plan.dtype, plan.x_shape) and _plain(out, plan.dtype, plan.output_shape)):
        return False
    if len(x) != len(out) or not out.flags.writeable or np.may_share_memory(x, out):
        return False
    return bool(np.isfinite(x).all())


def _plain(array: Any, dtype: np.dtype[Any], row: tuple[int, ...]) -> bool:
    """Whether this is an aligned contiguous array of rows of such a shape."""
    return (
        type(array) is np.ndarray
        and array.dtype == dtype
        and array.shape[1:] == row
        and array.flags.c_contiguous
        and array.flags.aligned
    )


def _work(plan: Plan) -> int:
    """About the multiplications of a plan's programs for one row: of its matrix products."""
    sizes = np.concatenate([plan.forward["size"], plan.backward["size"]])
    return int(np.where(sizes == 0, 1, sizes).prod(axis=1).sum())
