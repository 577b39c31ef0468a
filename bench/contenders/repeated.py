"""One kernel, repeated: a program that repeats one instruction runs in one native call."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from fastnet.backends import registry
from fastnet.op import KERNELS, ROWS, Array, Kernel
from fastnet.plan.records import (
    ABSENT,
    CONTEXT,
    INSTRUCTION,
    KIND,
    SCRATCH,
    aligned,
    zeros_aligned,
)

DTYPE = "float32"
# Numbers that steer a kernel; 0.1 for the others. The threshold is dropout's with p = 0.2.
NUMBERS = {
    "across": 8.0,
    "channels": 1.0,
    "threshold": round(0.2 * 2**32),
    "scale": 1.25,
    "eps": 1e-5,
    "root_scale": 1.0,
}
POSITIVE = {"running_var", "v", "rstd", "p"}


class Repeated:
    """One kernel on random operands, any number of times in one call of the backend.

    sizes: of the op's dimensions. absent: tensors that the instruction leaves out.
    """

    quantum = 1

    def __init__(
        self,
        kernel: Kernel,
        backend: str,
        rows: int,
        sizes: Mapping[str, int],
        absent: Collection[str] = (),
    ) -> None:
        op = kernel.op
        sizes = op.fitted(dict(sizes))
        self.backend = registry.get(backend)
        self.program, self.context = np.zeros(1, INSTRUCTION), np.zeros(1, CONTEXT)
        instruction, context = self.program[0], self.context[0]
        instruction["kernel"], instruction["dtype"] = list(KERNELS).index(kernel.name), KIND[DTYPE]
        instruction["size"][: len(op.dims)] = [sizes[dim] for dim in op.dims]
        instruction["scalar"][: len(op.scalars)] = [NUMBERS.get(s, 0.1) for s in op.scalars]
        instruction["segment"] = ABSENT
        random = np.random.default_rng(0)
        arrays = []
        for name in kernel.tensors:
            if name in absent:
                arrays.append(np.empty(0, np.uint8))
                continue
            spec = op.spec(name)
            assert spec is not None
            shape = [rows if d == ROWS else int(d) for d in op.shape(name, sizes)]
            values: Array = random.normal(size=shape)
            if name in POSITIVE:
                values = np.abs(values) + 0.1
            if name == "ends" and spec.dtype is None:  # of groups of columns
                values = (
                    np.arange(1, len(values) + 1) * (sizes.get("N") or sizes["M"]) // len(values)
                )
            if spec.dtype == "int64":
                values = random.integers(0, max(sizes.values()), shape)
            arrays.append(values.astype(spec.dtype or DTYPE))
        self.memory = zeros_aligned(sum(aligned(array.nbytes) for array in arrays))
        begin = 0
        for i, array in enumerate(arrays):
            self.memory[begin : begin + array.nbytes] = array.reshape(-1).view(np.uint8)
            if array.size:
                instruction["segment"][i], instruction["offset"][i] = 0, begin
            begin += aligned(array.nbytes)
        self.hyper = np.array([[NUMBERS.get(h, 0.1) for h in op.hyper]])
        context["segment"][0] = self.memory.ctypes.data
        context["hyper"], context["hyper_size"] = self.hyper.ctypes.data, len(op.hyper)
        context["rows"], context["threads"] = rows, 1
        self.scratch = zeros_aligned(SCRATCH)
        context["scratch"] = self.scratch.ctypes.data
        self.backend.prepare(self.program)

    def run(self, count: int) -> None:
        """`count` times in one call."""
        if len(self.program) != count:
            self.program = np.repeat(self.program[:1], count)
        self.backend.run(self.program, self.context)
