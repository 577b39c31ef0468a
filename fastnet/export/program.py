"""The steps of a plan for exporters: kernels with their operands, numbers and rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.errors import UsageError
from fastnet.op import ROWS, Array, Kernel
from fastnet.plan.compiler import compile_plan
from fastnet.plan.graph import Structure, derived_of
from fastnet.plan.instructions import kernel_at
from fastnet.plan.records import ABSENT, SEGMENTS
from fastnet.plan.segments import Storage


@dataclass(frozen=True)
class Operand:
    """A tensor of a step: where it lies, its shape for one row of its own, and its dtype."""

    segment: str
    offset: int  # elements
    row: tuple[int, ...]
    by_rows: bool  # whether it has such a row for each row
    dtype: np.dtype[Any]
    is_loss: bool = False  # float64 in nets of any dtype

    @property
    def size(self) -> int:
        """The elements of a row, or all where it has no rows."""
        return math.prod(self.row)

    @property
    def begin(self) -> int:
        """Its first byte in the segment."""
        return self.offset * self.dtype.itemsize


@dataclass(frozen=True)
class Step:
    """A kernel with its operands by name (None: absent), sizes and scalars by name, and rows.

    label: the layer's name in messages, "" where no layer has applied the op.
    """

    kernel: Kernel
    label: str
    operands: Mapping[str, Operand | None]
    numbers: Mapping[str, float]
    rows: int

    @property
    def place(self) -> str:
        """What messages call it."""
        return self.label or f"the op {self.kernel.op.name}"


class Program:
    """A structure as steps over a workspace without padding.

    rows: of a minibatch. Without a loss the steps are a forward; with a loss those of a forward and a
    backward.
    """

    def __init__(self, structure: Structure, storage: Storage, rows: int = 1) -> None:
        self.storage, self.rows, nodes = storage, rows, structure.graph.nodes
        self.trains = structure.loss is not None
        itemsize = storage.dtype.itemsize
        alignment = 8 if self.trains else itemsize  # losses are float64
        plan = compile_plan(structure, storage, rows, backward=self.trains, alignment=alignment)
        if plan.calls:
            label = nodes[plan.calls[0].node].label
            raise UsageError(
                f"{label}: its forward is a Python function, which has no C text; write it as a formula by "
                "fn.elementwise, or leave the layer out of the exported model"
            )
        self.plan, self._derived = plan, derived_of(structure.graph)
        self.labels = [node.label for node in nodes]
        self.inputs, self.outputs = math.prod(plan.x_shape), math.prod(plan.output_shape)
        self.output = plan.output[0], plan.output[1] // itemsize
        self.workspace = -(-plan.workspace_bytes // itemsize)  # elements
        self.steps = list(self._steps())

    def _steps(self) -> Iterator[Step]:
        plan = self.plan
        instructions, numbers = (
            (plan.step, plan.nodes[2]) if self.trains else (plan.forward, plan.nodes[0])
        )
        for number, instruction in zip(numbers, instructions, strict=True):
            if instruction["kernel"] < 0:  # a control
                continue
            kernel = kernel_at(int(instruction["kernel"]))
            sizes = dict(zip(kernel.op.dims, map(int, instruction["size"]), strict=False))
            scalars = zip(kernel.op.scalars, map(float, instruction["scalar"]), strict=False)
            places = zip(
                kernel.tensors, instruction["segment"], instruction["offset"], strict=False
            )
            operands = {n: self._operand(kernel, n, sizes, int(s), int(at)) for n, s, at in places}
            found = {**sizes, **dict(scalars), "accumulate": float(instruction["accumulate"])}
            label = self.labels[int(number)] if number >= 0 else ""
            rows = self.rows * (1 + int(instruction["more_rows"]))
            yield Step(kernel, label, operands, found, rows)

    def _operand(
        self, kernel: Kernel, name: str, sizes: Mapping[str, int], segment: int, offset: int
    ) -> Operand | None:
        spec = kernel.op.spec(name)
        if segment == ABSENT or spec is None:
            return None
        dtype = np.dtype(spec.dtype or self.storage.dtype)
        shape = kernel.op.shape(name, sizes)
        row = tuple(int(d) for d in shape if d != ROWS)
        place = SEGMENTS[segment], offset // dtype.itemsize
        return Operand(*place, row, ROWS in shape, dtype, spec.dtype == "float64")

    def values(self, operand: Operand) -> Array:
        """The numbers of a parameter, a buffer, or a tensor derived from them."""
        if operand.segment != "derived":
            block = self.storage.segments[operand.segment]
            nbytes = operand.size * operand.dtype.itemsize
            return block[operand.begin : operand.begin + nbytes].view(operand.dtype)
        number = next(n for n, at in self.plan.derived if at == operand.begin)
        return np.asarray(self._derived[number].compute(), operand.dtype).reshape(-1)


class Trained:
    """The parameters that a device trains: where each begins in a vector of them alone."""

    def __init__(self, storage: Storage) -> None:
        self.size, self.places, values = 0, dict[int, int](), list[Array]()
        for p in storage.trainable():
            self.places[storage.place(p)[1]] = self.size
            values.append(np.asarray(p.value).reshape(-1))
            self.size += values[-1].size
        self.values = np.concatenate(values) if values else np.empty(0, storage.dtype)

    def place(self, operand: Operand) -> int | None:
        """Where an operand begins in the vector; None: it is none of these parameters."""
        if operand.segment not in ("params", "grads"):
            return None
        return self.places.get(operand.begin)
