"""Programs with device arrays as operands, ready to launch."""

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

KEPT = 16  # programs, or kinds of steps, that are cached


class Control:
    """A control instruction (see records.CONTROLS), with the device arrays that it works on."""

    changes: frozenset[str] = frozenset()  # segments that it writes, other than the plan's own

    def __init__(self, instruction: Any, blocks: Mapping[str, Any]) -> None:
        self.name = CONTROLS[-1 - int(instruction["kernel"])]
        self.sizes, self.row = instruction["size"].tolist(), int(instruction["group"])
        if self.name == "host" and self.row:  # Python may write gradients
            self.changes = frozenset(("grads",))
        self.blocks = blocks
        self._segments, self._offsets = instruction["segment"], instruction["offset"].tolist()

    def tensor(self, i: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """Its tensor i on the device, or None if absent."""
        if self._segments[i] == ABSENT:
            return None
        return cut(self.blocks[SEGMENTS[self._segments[i]]], self._offsets[i], shape, dtype)


class Program:
    """The launches of a program for one number of rows.

    blocks: device arrays of bytes by segment; `changes` are the names of those that the program writes. Two
    more are there if kernels need them: "counter" with seed and step of the random draws, and "hyper" with
    an optimizer's numbers, `width` for each group. Kernels read both when they run. Each launch says
    whether gradients accumulate.
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
        self.draws = False  # whether it uses the counter
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
    program: np.ndarray, blocks: Mapping[str, Any], rows: int, width: int = 0
) -> list[Program | Control]:
    """A program, split at its control instructions."""
    if not len(program):
        return [Program(program, blocks, rows, width)]
    controls = program["kernel"] < 0
    cuts = np.flatnonzero(controls[1:] | controls[:-1]) + 1
    return [
        Control(part[0], blocks) if part["kernel"][0] < 0 else Program(part, blocks, rows, width)
        for part in np.split(program, cuts)
    ]


def _arguments(
    kernel: Kernel, instruction: Any, blocks: Mapping[str, Any], rows: int, width: int
) -> tuple[list[Any], int | None]:
    """A kernel's arguments, and the index of `accumulate` among them if each launch sets it, else None."""
    op, dtype = kernel.op, np.dtype(KINDS[instruction["dtype"]])
    sizes = {d: int(s) for d, s in zip(op.dims, instruction["size"], strict=False)}
    fixed: dict[str, Any] = dict(zip(op.scalars, instruction["scalar"].tolist(), strict=False))
    fixed["stream"] = int(instruction["stream"])
    rows *= 1 + int(instruction["more_rows"])
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
    """The segments that a program writes."""
    found = set()
    for instruction, kernel in kernels_of(program):
        names = written(kernel)
        for name, number in zip(kernel.tensors, instruction["segment"], strict=False):
            if name in names and number != ABSENT:
                found.add(SEGMENTS[number])
    return found
