"""The reference backend: the specification of every kernel and of the training loop, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import numpy as np

from fastnet.backends.base import Backend
from fastnet.interrupts import held_back
from fastnet.op import KERNELS, ROWS, Array, Kernel
from fastnet.plan.records import (
    ABSENT,
    BAD_LABEL,
    INSTRUCTION,
    KINDS,
    NORM_NOT_FINITE,
    NOT_FINITE,
    OK,
    SEGMENT,
)


class _Memory:
    """Lets NumPy see an address."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.__array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "typestr": dtype.str,
            "version": 3,
        }


def view(address: int, shape: tuple[int, ...], dtype: Any) -> Array:
    """The array at an address; an array of size 0 where there is none."""
    if address == 0 or 0 in shape:
        return np.empty(shape if address else 0, dtype)
    return np.asarray(_Memory(int(address), shape, np.dtype(dtype)))


class PythonRunner:
    """Runs programs and training steps in Python, with any kernels that take NumPy arrays.

    find: a kernel's function; by default the reference's.
    """

    def __init__(
        self, find: Callable[[Kernel], Callable[..., None]] = attrgetter("function")
    ) -> None:
        self.find = find

    def run(self, program: np.ndarray, context: np.ndarray) -> None:
        """Run the instructions in order (see Backend.run); like native code, without warnings."""
        with held_back():
            self._run(program, context)

    def _run(self, program: np.ndarray, context: np.ndarray) -> None:
        kernels = list(KERNELS.values())
        with np.errstate(all="ignore"):
            for instruction in program:
                kernel = kernels[instruction["kernel"]]
                function = self.find(kernel)
                function(*self._arguments(kernel, instruction, context[0]))

    def _arguments(self, kernel: Kernel, instruction: Any, context: Any) -> list[Any]:
        op, rows = kernel.op, int(context["rows"])
        dtype = KINDS[instruction["dtype"]]
        sizes = {d: int(s) for d, s in zip(op.dims, instruction["size"], strict=False)}
        row = int(context["hyper"]) + 8 * int(context["hyper_size"] * instruction["group"])
        hyper = view(row if op.hyper else 0, (len(op.hyper),), np.float64)
        values: dict[str, Any] = {
            **dict(zip(op.scalars, instruction["scalar"].tolist(), strict=False)),
            **dict(zip(op.hyper, hyper.tolist(), strict=False)),
            "stream": int(instruction["stream"]),
            "accumulate": int(context["accumulate"] | instruction["accumulate"]),
            **{name: int(context[name]) for name in ("seed", "step")},
        }
        for i, name in enumerate(kernel.tensors):
            spec = op.spec(name)
            assert spec is not None
            segment = instruction["segment"][i]
            base = 0 if segment == ABSENT else int(context["segment"][segment])
            shape = tuple(rows if d == ROWS else int(d) for d in op.shape(name, sizes))
            address = base + int(instruction["offset"][i]) if base else 0
            values[name] = view(address, shape, spec.dtype or dtype)
        return [values[name] for name in kernel.arguments]

    def train(self, args: np.ndarray) -> None:
        """Run a chunk of training steps (see Backend.train); Ctrl-C waits for the end of a step."""
        with held_back() as between:
            self._train(args, between)

    def _train(self, args: np.ndarray, between: Callable[[], None]) -> None:
        a = args[0]
        context = args["context"].copy()
        offsets = view(a["batch_offsets"], (int(a["steps"]) + 1,), np.int64)
        index = view(a["index"], (int(offsets[-1]),), np.int64)
        losses = view(a["losses"], (int(a["steps"]),), np.float64)
        programs = {
            name: view(a[name], (int(a[f"{name}_count"]),), np.uint8)
            if not a[f"{name}_count"]
            else _program(int(a[name]), int(a[f"{name}_count"]))
            for name in ("forward", "backward", "update")
        }
        hyper_row = 8 * int(a["groups"] * context[0]["hyper_size"])
        held = (int(a["buffers_bytes"]),)
        buffers = view(context["segment"][0, SEGMENT["buffers"]], held, np.uint8)
        kept = view(a["buffers_kept"], held, np.uint8)
        a["done"], a["status"] = 0, OK
        for s in range(int(a["steps"])):
            begin = int(offsets[s])
            rows = index[begin : int(offsets[s + 1])]
            context["rows"] = len(rows)
            if not _gather_y(a, rows, context):
                a["status"] = BAD_LABEL
                return
            _gather_x(a, rows, context)
            _gather_w(a, rows, context)
            np.copyto(kept, buffers)
            self._run(programs["forward"], context)
            losses[s] = view(a["loss"], (1,), np.float64)[0]
            if a["outputs"]:
                width = int(a["output_bytes"])
                shape = (len(rows) * width,)
                out = view(int(a["outputs"]) + begin * width, shape, np.uint8)
                np.copyto(out, view(a["output"], shape, np.uint8))
            if a["row_losses"]:
                out = view(int(a["row_losses"]) + begin * 8, (len(rows),), np.float64)
                np.copyto(out, view(a["row_loss"], (len(rows),), np.float64))
            if not math.isfinite(losses[s]):
                np.copyto(buffers, kept)
                a["status"] = NOT_FINITE
                return
            self._run(programs["backward"], context)
            context["hyper"] = int(a["hyper"]) + s * hyper_row
            if not self._update(a, s, programs["update"], context):
                np.copyto(buffers, kept)
                a["status"] = NORM_NOT_FINITE
                return
            context["step"] += np.uint64(1)
            a["done"] += 1
            between()

    def _update(self, a: Any, step: int, program: np.ndarray, context: np.ndarray) -> bool:
        """Run what follows the backward of a step; returns whether all is well."""
        first, guarded = int(a["collect_count"]), int(a["collect_count"] + a["guard_count"])
        self._run(program[:first], context)
        if a["updates"] and not view(a["updates"], (step + 1,), np.int64)[step]:
            return True
        self._run(program[first:guarded], context)
        if a["norm"] and not math.isfinite(view(a["norm"], (1,), np.float64)[0]):
            return False
        self._run(program[guarded:], context)
        return True


def _program(address: int, count: int) -> np.ndarray:
    nbytes = count * INSTRUCTION.itemsize
    return view(address, (nbytes,), np.uint8).view(INSTRUCTION)


def _rows(a: Any, which: str, rows: Array) -> Array:
    """The minibatch's rows of x or y, in their own dtype."""
    kind, width = KINDS[a[f"{which}_kind"]], int(a[f"{which}_width"])
    if not len(rows):
        return np.empty((0, width), kind)
    source = view(a[which], (int(rows.max()) + 1, width), kind)
    taken: Array = source[rows]
    return taken


def _gather_x(a: Any, rows: Array, context: np.ndarray) -> None:
    shape = (len(rows), int(a["x_width"]))
    np.copyto(view(a["x_stage"], shape, KINDS[a["dtype"]]), _rows(a, "x", rows))
    context["segment"][0, SEGMENT["x"]] = a["x_stage"]


def _gather_w(a: Any, rows: Array, context: np.ndarray) -> None:
    if a["w"] and len(rows):
        kind = KINDS[a["dtype"]]
        weights = view(a["w"], (int(rows.max()) + 1,), kind)
        np.copyto(view(a["w_stage"], rows.shape, kind), weights[rows])
    context["segment"][0, SEGMENT["w"]] = a["w_stage"]


def _gather_y(a: Any, rows: Array, context: np.ndarray) -> bool:
    taken = _rows(a, "y", rows)
    if a["classes"]:
        labels = taken[:, 0]
        bad = ((labels < 0) | (labels >= a["classes"])) & (labels != a["ignored"])
        if bad.any():
            a["bad_row"] = rows[bad][0]
            return False
    kind = "int64" if a["classes"] else KINDS[a["dtype"]]
    shape = (len(rows), int(a["y_width"]))
    np.copyto(view(a["y_stage"], shape, kind), taken)
    context["segment"][0, SEGMENT["y"]] = a["y_stage"]
    return True


class ReferenceBackend(Backend):
    """NumPy, one readable kernel after another."""

    name = "reference"

    def __init__(self) -> None:
        runner = PythonRunner()
        self.run, self.train = runner.run, runner.train  # type: ignore[method-assign]

    def reason(self) -> str | None:
        """Always available."""
        return None

    def kernels(self) -> Mapping[str, tuple[str, ...]]:
        """All of them, as registered."""
        return {name: kernel.tensors for name, kernel in KERNELS.items()}
