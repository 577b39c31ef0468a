"""The compiler: from a graph to a plan, the programs of instructions that a backend runs.

It differentiates the graph in reverse order, drops what nobody asked for, gives every tensor of the
workspace a lifetime, packs the workspace by lifetimes, and encodes the instructions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from fastnet.op import KERNELS, Kernel, Op, add_to
from fastnet.parameter import Derived, Parameter
from fastnet.plan.graph import Graph, Node, Tensor, parameters_of
from fastnet.plan.records import ABSENT, INSTRUCTION, KIND, MAX_TENSORS, SEGMENT, aligned
from fastnet.plan.segments import Storage, pack

Place = tuple[str, int]  # a segment and an offset in bytes


@dataclass(eq=False, repr=False)
class Gradient:
    """The gradient of a parameter, as an operand."""

    parameter: Parameter


@dataclass(eq=False, repr=False)
class _Step:
    """An instruction before its tensors have addresses."""

    kernel: Kernel
    operands: list[Any]  # Tensor, Parameter, Gradient, Derived or None, in the kernel's order
    node: Node
    accumulate: bool = False  # add to the parameters' gradients, which another step has written


@dataclass(eq=False, repr=False)
class Plan:
    """A compiled graph for at most `max_rows` rows: programs, and where things lie."""

    dtype: np.dtype[Any]
    max_rows: int
    forward: np.ndarray
    backward: np.ndarray
    workspace_bytes: int
    x_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    output: Place
    dy: Place | None = None  # plans without a loss: where the caller puts dL/d-output
    dx: Place | None = None  # and finds dL/dx
    loss: Place | None = None  # plans with a loss
    row_loss: Place | None = None
    y_shape: tuple[int, ...] = ()
    y_dtype: np.dtype[Any] | None = None
    weighted: bool = False  # by weights of the samples
    derived_bytes: int = 0
    derived: list[tuple[Derived, int]] = field(default_factory=list)


def compile_plan(
    graph: Graph,
    x: Tensor,
    output: Tensor,
    storage: Storage,
    max_rows: int,
    *,
    target: Tensor | None = None,
    loss: Tensor | None = None,
    weighted: bool = False,
    backward: bool = True,
    input_gradient: bool = True,
) -> Plan:
    """Compile a graph whose caller supplies x (and target) and wants output (or the loss).

    With a loss the backward program computes the parameters' gradients alone; without one it starts
    from dL/d-output and computes dL/dx too, unless `input_gradient=False`. `backward=False` gives a forward
    program only.
    """
    compiler = _Compiler(storage, max_rows)
    forward = [compiler.step(node, "forward") for node in graph.nodes]
    steps: list[_Step] = []
    dy = dx = None
    asked = {x} if loss is None and input_gradient else set()
    if backward:
        grads: dict[Tensor, Tensor] = {}
        if loss is None:
            dy = grads[output] = Tensor(output.shape)
        wanted = _wanted(graph, asked)
        for node in reversed(graph.nodes):
            steps += compiler.backward(node, grads, wanted, loss)
        dx = grads.get(x) if asked else None
    boundary = len(forward)
    pins = [(boundary, t) for t in (output, loss, dy) if t is not None]
    row_loss = None
    if loss is not None:
        node = next(n for n in graph.nodes if n.output is loss)
        row_loss = node.arguments["row_loss"]
        pins.append((boundary, row_loss))
    if dx is not None:
        pins.append((boundary + 1 + len(steps), dx))
    compiler.pack(list(enumerate(forward)) + list(enumerate(steps, boundary + 1)), pins)
    return Plan(
        dtype=storage.dtype,
        max_rows=max_rows,
        forward=compiler.encode(forward),
        backward=compiler.encode(steps),
        workspace_bytes=compiler.workspace_bytes,
        x_shape=_row_shape(x),
        output_shape=_row_shape(output),
        output=compiler.place(output),
        dy=compiler.place(dy) if dy else None,
        dx=compiler.place(dx) if dx else None,
        loss=compiler.place(loss) if loss else None,
        row_loss=compiler.place(row_loss) if row_loss else None,
        y_shape=_row_shape(target) if target else (),
        y_dtype=np.dtype(target.dtype or storage.dtype) if target else None,
        weighted=weighted,
        derived_bytes=compiler.derived_bytes,
        derived=list(compiler.derived.values()),
    )


def compile_update(
    passes: Sequence[Sequence[type[Op]]], group_of: Sequence[int], storage: Storage
) -> np.ndarray:
    """The update program of an optimizer: one pass of each op over each run of parameters of a group.

    passes: for each group the ops of a step, in order; the rows of hyper are theirs, one after the
    other. group_of: the group of each trainable parameter, in the order of the segment `params`. The
    vectors of `state_vectors` lie one after the other in the segment `state`, each as long as `params`.
    An op over a matrix ("I O") runs once for each parameter of two dimensions. Where an op of a group
    writes `penalized`, those behind it take that for g.
    """
    vectors = {name: i for i, name in enumerate(state_vectors(passes))}
    length, itemsize = storage.segments["params"].nbytes, storage.dtype.itemsize
    first_row = np.cumsum([0, *map(len, passes)])
    records = []
    for begin, end, group, members in _runs(group_of, storage):
        gradient = ("grads", 0)
        for row, op in enumerate(passes[group], first_row[group]):
            spans: list[tuple[int, tuple[int, ...]]] = [(begin, ((end - begin) // itemsize,))]
            if len(op.dims) == 2:
                spans = [(storage.place(p)[1], p.shape) for p in members if len(p.shape) == 2]
            for offset, sizes in spans:
                at = {name: ("state", i * length + offset) for name, i in vectors.items()}
                at |= {"w": ("params", offset), "g": (gradient[0], gradient[1] + offset)}
                records.append(update_pass(op, storage.dtype, at, sizes, row))
            if "penalized" in op.state:
                gradient = ("state", vectors["penalized"] * length)
    return np.concatenate([np.zeros(0, INSTRUCTION), *records])


def update_pass(
    op: type[Op], dtype: np.dtype[Any], places: Mapping[str, Place], sizes: Any, row: int
) -> np.ndarray:
    """The instruction of an update: its tensors' places by name, its dims, its row of hyper."""
    kernel, record = op.kernels["update"], np.zeros(1, INSTRUCTION)
    _fill(record[0], kernel, dtype, [places[n] for n in kernel.tensors], list(sizes), [], 0)
    record["group"] = row
    return record


def state_vectors(passes: Iterable[Iterable[type[Op]]]) -> list[str]:
    """The names of the vectors that the ops of a step keep, beside the parameters `w` themselves."""
    names = (name for ops in passes for op in ops for name in op.state if name != "w")
    return list(dict.fromkeys(names))


def _runs(
    group_of: Sequence[int], storage: Storage
) -> Iterator[tuple[int, int, int, list[Parameter]]]:
    """What lies together of one group: begin and end in bytes of `params`, the group, its parameters."""
    members = list(zip(storage.trainable(), group_of, strict=True))
    begin = 0
    for group, together in groupby(members, key=lambda member: member[1]):
        run = [p for p, _ in together]
        end = begin + sum(storage.nbytes(p) for p in run)
        yield begin, end, group, run
        begin = end


def _wanted(graph: Graph, roots: set[Tensor]) -> set[Tensor]:
    """The tensors whose gradient is wanted: the roots, and all that depends on them or a parameter."""
    wanted = set(roots)
    for node in graph.nodes:
        trained = any(p.trainable for _, p in parameters_of(node))
        if trained or any(t in wanted for _, t in node.inputs()):
            wanted.add(node.output)
    return wanted


def _row_shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(int(d) for d in tensor.shape[1:])


class _Compiler:
    def __init__(self, storage: Storage, max_rows: int) -> None:
        self.storage = storage
        self.max_rows = max_rows
        self.offsets: dict[Tensor, int] = {}
        self.workspace_bytes = 0
        self.written: set[Parameter] = set()  # parameters whose gradient a step has written
        self.derived: dict[Derived, tuple[Derived, int]] = {}
        self.derived_bytes = 0

    def step(self, node: Node, phase: str, extra: dict[str, Any] | None = None) -> _Step:
        kernel = node.op.kernels[phase]
        arguments = {**node.arguments, **(extra or {})}
        return _Step(kernel, [arguments.get(name) for name in kernel.tensors], node)

    def backward(
        self,
        node: Node,
        grads: dict[Tensor, Tensor],
        wanted: set[Tensor],
        loss: Tensor | None,
    ) -> list[_Step]:
        """The VJP of one node, and the additions where an input already has a gradient."""
        if node.output not in grads and node.output is not loss:
            return []
        if node.output not in wanted:
            return []
        extra: dict[str, Any] = {f"d{node.op.main_output()}": grads.get(node.output)}
        again = False  # whether an earlier VJP has written to a gradient of this one
        for name, p in parameters_of(node):
            extra[f"d{name}"] = Gradient(p) if p.trainable else None
            again |= p in self.written
            self.written.add(p)
        parts: list[tuple[Tensor, Tensor]] = []
        for name, tensor in node.inputs():
            if tensor in wanted and f"d{name}" in node.op.kernels["vjp"].tensors:
                extra[f"d{name}"] = Tensor(tensor.shape, tensor.dtype)
                parts.append((tensor, extra[f"d{name}"]))
        steps = [self.step(node, "vjp", extra)]
        steps[0].accumulate = again
        for tensor, part in parts:
            if tensor in grads:
                sizes = add_to.bind({"y": tensor.shape, "x": tensor.shape})
                addition = Node(add_to, {"y": grads[tensor], "x": part}, sizes)
                steps.append(self.step(addition, "forward"))
            else:
                grads[tensor] = part
        return steps

    def pack(self, timeline: list[tuple[int, _Step]], pins: list[tuple[int, Tensor]]) -> None:
        """Give every workspace tensor an offset; tensors alive at once never share a byte."""
        life: dict[Tensor, tuple[int, int]] = {}
        uses = [(t, o) for t, s in timeline for o in s.operands if isinstance(o, Tensor)]
        for time, tensor in uses + pins:
            if tensor.segment == "workspace":
                first, last = life.get(tensor, (time, time))
                life[tensor] = (min(first, time), max(last, time))
        block: dict[Tensor, Tensor] = {t: t for t in life}  # tensor → the one whose block it shares
        span = dict(life)
        for time, step in timeline:
            if step.node.op.inplace:
                # Outputs come first: y over x in a forward, dx over dy in a VJP.
                new = step.operands[0]
                old = step.operands[1]
                if new in life and old in life and life[old][1] == time == life[new][0]:
                    root = block[old]
                    block[new] = root
                    span[root] = (span[root][0], max(span[root][1], life[new][1]))
        roots = [t for t in life if block[t] is t]
        items = [(self._bytes(t), *span[t]) for t in roots]
        offsets, self.workspace_bytes = pack(items)
        place = dict(zip(roots, offsets, strict=True))
        self.offsets = {t: place[block[t]] for t in life}

    def place(self, operand: Any) -> Place:
        if isinstance(operand, Tensor):
            return operand.segment, self.offsets.get(operand, 0)
        if isinstance(operand, Parameter):
            return self.storage.place(operand)
        if isinstance(operand, Gradient):
            return "grads", self.storage.place(operand.parameter)[1]
        if operand not in self.derived:
            self.derived[operand] = (operand, self.derived_bytes)
            count = int(np.prod([int(d) for d in operand.shape]))
            self.derived_bytes += aligned(count * self.storage.dtype.itemsize)
        return "derived", self.derived[operand][1]

    def encode(self, steps: Iterable[_Step]) -> np.ndarray:
        steps = list(steps)
        program = np.zeros(len(steps), INSTRUCTION)
        for record, step in zip(program, steps, strict=True):
            node, op = step.node, step.node.op
            places = [None if o is None else self.place(o) for o in step.operands]
            sizes = [node.sizes[d] for d in op.dims]
            scalars = [float(node.arguments[name]) for name in op.scalars]
            _fill(record, step.kernel, self.storage.dtype, places, sizes, scalars, node.stream)
            record["accumulate"] = step.accumulate
        return program

    def _bytes(self, tensor: Tensor) -> int:
        itemsize = np.dtype(tensor.dtype or self.storage.dtype).itemsize
        return tensor.elements(self.max_rows) * itemsize


_NUMBER: dict[str, int] = {}


def _fill(
    record: Any,
    kernel: Kernel,
    dtype: np.dtype[Any],
    places: list[Any],
    sizes: list[int],
    scalars: list[float],
    stream: int,
) -> None:
    if kernel.name not in _NUMBER:
        _NUMBER.update({name: number for number, name in enumerate(KERNELS)})
    record["kernel"] = _NUMBER[kernel.name]
    record["dtype"] = KIND[dtype.name]
    record["stream"] = stream
    record["size"][: len(sizes)] = sizes
    record["scalar"][: len(scalars)] = scalars
    assert len(places) <= MAX_TENSORS, kernel.name
    record["segment"] = ABSENT
    for i, place in enumerate(places):
        if place is not None:
            record["segment"][i] = SEGMENT[place[0]]
            record["offset"][i] = place[1]
