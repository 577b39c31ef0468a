"""Programs of instructions whose tensors have been looked up on the device, ready to be launched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import cuda
from fastnet.backends.cuda.failures import failed
from fastnet.backends.cuda.kernels.formulas import launcher_of
from fastnet.backends.cuda.kernels.registry import COUNTER, absent, changing, written
from fastnet.backends.cuda.memory import cut
from fastnet.op import ROWS, Kernel
from fastnet.plan.instructions import kernels_of
from fastnet.plan.records import ABSENT, CONTROLS, KINDS, SEGMENTS

KEPT = 16  # kinds of programs, or of steps, whose launches are kept


class Control:
    """A control instruction (see records.CONTROLS) and the device arrays of bytes that it works on."""

    changes: frozenset[str] = frozenset()  # what it writes to, beside the plan's own

    def __init__(self, instruction: Any, blocks: Mapping[str, Any]) -> None:
        self.name = CONTROLS[-1 - int(instruction["kernel"])]
        self.sizes, self.row = instruction["size"].tolist(), int(instruction["group"])
        self.blocks = blocks
        self._segments, self._offsets = instruction["segment"], instruction["offset"].tolist()

    def tensor(self, i: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """Its tensor i on the device; None where it is absent."""
        if self._segments[i] == ABSENT:
            return None
        return cut(self.blocks[SEGMENTS[self._segments[i]]], self._offsets[i], shape, dtype)


class Program:
    """The launches of a program for one number of rows.

    blocks: device arrays of bytes by segment; `changes` are the names of those that it writes to. Where
    kernels ask for them, there are two more: "counter" holds the seed and the step of the random draws, and
    "hyper" an optimizer's numbers, `width` for each group. Kernels read both when they run. Whether
    gradients add up is said at each launch.
    """

    def __init__(
        self,
        program: np.ndarray,
        blocks: Mapping[str, Any],
        rows: int,
        width: int = 0,
    ) -> None:
        self.blocks = blocks
        self.changes = _segments_written(program)
        self.draws = False  # whether it asks for the counter
        self._calls = []
        for instruction, kernel in kernels_of(program):
            self.draws |= not changing(kernel).keys().isdisjoint(COUNTER)
            values, adds = _arguments(kernel, instruction, blocks, rows, width)
            self._calls.append((kernel.name, launcher_of(kernel), values, adds))

    def launch(self, stream: Any, accumulate: bool = False) -> None:
        """Enqueue all kernels."""
        kernel = ""
        try:
            for call in self._calls:
                kernel, launch, values, adds = call
                if adds is not None:
                    values[adds] = int(accumulate)
                launch(stream, *values)
        except Exception as error:
            raise failed(f"the kernel {kernel}", error) from error


def parts_of(
    program: np.ndarray, blocks: Mapping[str, Any], rows: int, width: int
) -> list[Program | Control]:
    """A step's program, cut at its control instructions."""
    controls = program["kernel"] < 0
    cuts = np.flatnonzero(controls[1:] | controls[:-1]) + 1
    return [
        Control(part[0], blocks) if part["kernel"][0] < 0 else Program(part, blocks, rows, width)
        for part in np.split(program, cuts)
    ]


def _arguments(
    kernel: Kernel, instruction: Any, blocks: Mapping[str, Any], rows: int, width: int
) -> tuple[list[Any], int | None]:
    """The arguments of a kernel, and the place among them of what a launch says of gradients, or None."""
    op, dtype = kernel.op, np.dtype(KINDS[instruction["dtype"]])
    sizes = {d: int(s) for d, s in zip(op.dims, instruction["size"], strict=False)}
    fixed: dict[str, Any] = dict(zip(op.scalars, instruction["scalar"].tolist(), strict=False))
    fixed["stream"] = int(instruction["stream"])
    if instruction["accumulate"]:
        fixed["accumulate"] = 1
    for i, name in enumerate(kernel.tensors):
        spec, number = op.spec(name), int(instruction["segment"][i])
        assert spec is not None
        shape = tuple(rows if d == ROWS else int(d) for d in op.shape(name, sizes))
        if number == ABSENT or 0 in shape:
            fixed[name] = cuda.to_device(absent(kernel, name, dtype))
        else:
            kind, begin = spec.dtype or dtype, int(instruction["offset"][i])
            fixed[name] = cut(blocks[SEGMENTS[number]], begin, shape, kind)
    for name, kind in changing(kernel).items():
        if name in op.hyper:
            segment, place = "hyper", int(instruction["group"]) * width + op.hyper.index(name)
        else:
            segment, place = "counter", COUNTER.index(name)
        fixed[name] = cut(blocks[segment], 8 * place, (1,), kind)
    values = [fixed.get(name, 0) for name in kernel.arguments]
    (adds,) = [i for i, name in enumerate(kernel.arguments) if name not in fixed] or (None,)
    return values, adds


def _segments_written(program: np.ndarray) -> set[str]:
    """The segments that a program writes to."""
    found = set()
    for instruction, kernel in kernels_of(program):
        names = written(kernel)
        for name, number in zip(kernel.tensors, instruction["segment"], strict=False):
            if name in names and number != ABSENT:
                found.add(SEGMENTS[number])
    return found
