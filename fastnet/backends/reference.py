"""The reference backend: NumPy code that specifies every kernel and the training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import numpy as np

from fastnet.backends.base import Backend
from fastnet.interrupts import held_back
from fastnet.late import load_ops
from fastnet.op import KERNELS, ROWS, Array, Kernel
from fastnet.plan.instructions import kernel_at
from fastnet.plan.records import (
    ABSENT,
    BAD_LABEL,
    CONTROL,
    CONTROLS,
    HOST,
    INSTRUCTION,
    KINDS,
    OK,
    SEGMENT,
)


class _Memory:
    """Gives NumPy the memory at an address."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.__array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "typestr": dtype.str,
            "version": 3,
        }


def view(address: int, shape: tuple[int, ...], dtype: Any) -> Array:
    """The array at an address; an array of size 0 for address 0."""
    if address == 0 or 0 in shape:
        return np.empty(shape if address else 0, dtype)
    return np.asarray(_Memory(int(address), shape, np.dtype(dtype)))


class PythonRunner:
    """Runs programs and training steps in Python, with kernels that take NumPy arrays.

    find: returns a kernel's function (default: the reference's).
    """

    def __init__(
        self, find: Callable[[Kernel], Callable[..., None]] = attrgetter("function")
    ) -> None:
        self.find = find

    def run(self, program: np.ndarray, context: np.ndarray) -> None:
        """Run the instructions in order (see Backend.run), without warnings, like native code."""
        with held_back():
            self._run(program, context)

    def _run(self, program: np.ndarray, context: np.ndarray) -> None:
        with np.errstate(all="ignore"):
            for instruction in program:
                self._call(instruction, context)

    def _call(self, instruction: Any, context: np.ndarray) -> None:
        self.call(kernel_at(int(instruction["kernel"])), instruction, context)

    def call(self, kernel: Kernel, instruction: Any, context: np.ndarray) -> None:
        """Call a kernel with the operands of an instruction."""
        self.find(kernel)(*self._arguments(kernel, instruction, context[0]))

    def _arguments(self, kernel: Kernel, instruction: Any, context: Any) -> list[Any]:
        op, rows = kernel.op, int(context["rows"]) * (1 + int(instruction["more_rows"]))
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
        """Run a chunk of steps (see Backend.train); Ctrl-C waits for the end of a step."""
        with held_back() as between, np.errstate(all="ignore"):
            chunk = _Chunk(args)
            while chunk.next() and self._step(chunk):
                chunk.end_step()
                between()

    def _step(self, chunk: _Chunk) -> bool:
        """Run a step; returns whether it is done."""
        program = chunk.program
        at, chunk.a["at"] = int(chunk.a["at"]), 0
        while at < len(program):
            instruction = program[at]
            at += 1
            if instruction["kernel"] >= 0:
                self._call(instruction, chunk.context)
                continue
            name = CONTROLS[-1 - instruction["kernel"]]
            if name in ("unless", "finite") and not chunk.number(instruction):
                if name == "unless":
                    break
                continue
            if name == "host":
                chunk.a["at"] = at
            if name != "unless":
                chunk.a["status"] = getattr(chunk, name)(instruction)
            if chunk.a["status"] != OK:
                return False
        return True


class _Chunk:
    """A chunk of steps: a method for each control instruction, which returns the status."""

    def __init__(self, args: np.ndarray) -> None:
        self.a, self.context = args[0], args["context"]
        self.program = _program(int(self.a["program"]), int(self.a["count"]))
        self.offsets = view(self.a["batch_offsets"], (int(self.a["steps"]) + 1,), np.int64)
        self.a["status"] = OK

    def next(self) -> bool:
        """Begin the next step; returns False if there is none."""
        done = int(self.a["done"])
        if done == self.a["steps"]:
            return False
        self.begin, end = (int(n) for n in self.offsets[done : done + 2])
        self.rows = view(self.a["index"] + 8 * self.begin, (end - self.begin,), np.int64)
        self.context["rows"] = len(self.rows)
        return True

    def end_step(self) -> None:
        """Count a finished step."""
        self.a["done"] += 1
        self.context["step"] += np.uint64(1)
        self.context["hyper"] += self.a["table_bytes"]
        self.context["segment"][0, SEGMENT["schedule"]] += self.a["schedule_bytes"]

    def number(self, instruction: Any) -> float:
        """The first number of an instruction's row of the table."""
        row = self.context["hyper"][0] + 8 * instruction["group"] * self.context["hyper_size"][0]
        return float(view(row, (1,), np.float64)[0])

    def keep(self, instruction: Any) -> int:
        """Copy the buffers."""
        kept, buffers = self._kept(instruction)
        np.copyto(kept, buffers)
        return OK

    def gather(self, instruction: Any) -> int:
        """Gather the minibatch's rows."""
        a, dtype = self.a, KINDS[self.a["dtype"]]
        kinds = [KINDS[a["x_kind"]], KINDS[a["y_kind"]], dtype]
        widths = [*(int(n) for n in instruction["size"][:2]), 1]
        for i, name in enumerate(("x", "y", "w")):
            if instruction["segment"][i] == ABSENT:
                continue
            taken = self._rows(int(a[name]), kinds[i], widths[i])
            labels = name == "y" and a["classes"] > 0
            if labels and (bad := self._bad_labels(taken[:, 0])).any():
                a["bad_row"] = self.rows[bad][0]
                return BAD_LABEL
            stage = self._tensor(instruction, i, taken.shape, "int64" if labels else dtype)
            np.copyto(stage, taken)
            self.context["segment"][0, SEGMENT[name]] = self._address(instruction, i)
        return OK

    def record(self, instruction: Any) -> int:
        """Store the loss and the requested outputs."""
        a, rows, nbytes = self.a, len(self.rows), int(instruction["size"][0])
        losses = view(a["losses"], (int(a["steps"]),), np.float64)
        losses[a["done"]] = self._tensor(instruction, 0, (1,), np.float64)[0]
        for i, name, size in ((1, "row_losses", 8), (2, "outputs", nbytes), (3, "decisions", 8)):
            if a[name]:
                found = self._tensor(instruction, i, (rows * size,), np.uint8)
                np.copyto(view(a[name] + self.begin * size, found.shape, np.uint8), found)
        return OK

    def host(self, instruction: Any) -> int:
        """Return to Python."""
        return HOST

    def check(self, instruction: Any) -> int:
        """Refuse the step if the number is not finite."""
        value = float(self._tensor(instruction, 0, (1,), np.float64)[0])
        if math.isfinite(value):
            return OK
        for keep in self.program[self.program["kernel"] == CONTROL["keep"]]:
            kept, buffers = self._kept(keep)
            np.copyto(buffers, kept)
        self.a["value"] = value
        return int(instruction["size"][0])

    def finite(self, instruction: Any) -> int:
        """Look at the parameters."""
        shape = (int(instruction["size"][0]) // np.dtype(KINDS[self.a["dtype"]]).itemsize,)
        values = self._tensor(instruction, 0, shape, KINDS[self.a["dtype"]])
        return OK if np.isfinite(values).all() else int(instruction["size"][1])

    def _kept(self, keep: Any) -> tuple[Array, Array]:
        """The stored copy of the buffers, and the buffers."""
        kept = self._tensor(keep, 0, (int(keep["size"][0]),), np.uint8)
        return kept, view(self.context["segment"][0, SEGMENT["buffers"]], kept.shape, np.uint8)

    def _address(self, instruction: Any, i: int) -> int:
        return int(self.context["segment"][0, instruction["segment"][i]] + instruction["offset"][i])

    def _tensor(self, instruction: Any, i: int, shape: tuple[int, ...], dtype: Any) -> Array:
        return view(self._address(instruction, i), shape, dtype)

    def _rows(self, source: int, kind: str, width: int) -> Array:
        """The minibatch's rows of an array, in the array's dtype."""
        if not len(self.rows):
            return np.empty((0, width), kind)
        taken: Array = view(source, (int(self.rows.max()) + 1, width), kind)[self.rows]
        return taken

    def _bad_labels(self, labels: Array) -> Array:
        a = self.a
        bad: Array = ((labels < 0) | (labels >= a["classes"])) & (labels != a["ignored"])
        return bad


def _program(address: int, count: int) -> np.ndarray:
    nbytes = count * INSTRUCTION.itemsize
    return view(address, (nbytes,), np.uint8).view(INSTRUCTION)


class ReferenceBackend(Backend):
    """Runs the NumPy reference kernels, one after the other."""

    name = "reference"

    def __init__(self) -> None:
        runner = PythonRunner()
        self.run, self.train = runner.run, runner.train  # type: ignore[method-assign]

    def kernels(self) -> Mapping[str, tuple[str, ...]]:
        """All registered kernels."""
        load_ops()
        return {name: kernel.tensors for name, kernel in KERNELS.items()}
