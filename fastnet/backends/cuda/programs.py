"""Programs of instructions whose tensors have been looked up on the device, ready to be launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import cuda
from fastnet.backends.cuda.engine import written
from fastnet.backends.cuda.failures import failed
from fastnet.backends.cuda.kernels.registry import LAUNCHERS, absent
from fastnet.backends.cuda.memory import cut
from fastnet.op import KERNELS, ROWS, Kernel
from fastnet.plan.records import ABSENT, KINDS, SEGMENTS


class Program:
    """The launches of a program for one number of rows.

    blocks: device arrays of bytes by segment; `changes` are the names of those that it writes to. Scalars
    are settled here; the numbers of a run (the counter of random draws, whether gradients add up, an
    optimizer's numbers) are put in at each launch.
    """

    def __init__(
        self,
        program: np.ndarray,
        blocks: Mapping[str, Any],
        rows: int,
    ) -> None:
        kernels = list(KERNELS.values())
        self.blocks = blocks
        self.changes = _segments_written(program)
        self._calls = []
        for instruction in program:
            kernel = kernels[instruction["kernel"]]
            values, filled = _arguments(kernel, instruction, blocks, rows)
            launch = LAUNCHERS[kernel.name]
            self._calls.append((kernel.name, launch, values, filled, int(instruction["group"])))

    def launch(
        self,
        stream: Any,
        seed: int = 0,
        step: int = 0,
        accumulate: bool = False,
        hyper: Sequence[Sequence[float]] = (),
    ) -> None:
        """Enqueue all kernels; `hyper` has a row of numbers for each group."""
        run = {"seed": seed, "step": step}
        kernel = ""
        try:
            for call in self._calls:
                kernel, launch, values, filled, group = call
                for place, source in filled:
                    if isinstance(source, int):
                        values[place] = hyper[group][source]
                    elif source != "accumulate":
                        values[place] = run[source]
                    else:
                        values[place] = int(accumulate)
                launch(stream, *values)
        except Exception as error:
            raise failed(f"the kernel {kernel}", error) from error


def _arguments(
    kernel: Kernel, instruction: Any, blocks: Mapping[str, Any], rows: int
) -> tuple[list[Any], list[tuple[int, str | int]]]:
    """The arguments of a kernel, and which of them are numbers of a run: their place and source.

    A source is the name of a number of the run, or the place of one in a row of hyper.
    """
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
    values, filled = [], []
    for place, name in enumerate(kernel.arguments):
        values.append(fixed.get(name, 0))
        if name not in fixed:
            filled.append((place, op.hyper.index(name) if name in op.hyper else name))
    return values, filled


def _segments_written(program: np.ndarray) -> set[str]:
    """The segments that a program writes to."""
    kernels, found = list(KERNELS.values()), set()
    for instruction in program:
        kernel = kernels[instruction["kernel"]]
        names = written(kernel)
        for name, number in zip(kernel.tensors, instruction["segment"], strict=False):
            if name in names and number != ABSENT:
                found.add(SEGMENTS[number])
    return found
