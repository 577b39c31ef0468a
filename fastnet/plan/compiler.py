"""The compiler: it turns a graph into a plan, the programs of instructions that a backend runs.

It differentiates the graph in reverse order, drops gradients that nobody needs, finds the lifetimes of the
tensors in the workspace, packs the workspace by them, and encodes the instructions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet.layers.joining import add
from fastnet.op import ROWS, Array, Kernel, add_to
from fastnet.parameter import Derived, Parameter, Scheduled
from fastnet.plain import plain
from fastnet.plan.graph import (
    Elements,
    Graph,
    Node,
    Structure,
    Tensor,
    derived_of,
    parameters_of,
    scheduled_of,
)
from fastnet.plan.instructions import Place, control, copied, fill
from fastnet.plan.records import (
    ALIGNMENT,
    INSTRUCTION,
    NOT_FINITE,
    aligned,
)
from fastnet.plan.segments import Storage, pack

_NOTHING, _NO_NODES = np.zeros(0, INSTRUCTION), np.zeros(0, int)


@plain()
class Gradient:
    """The gradient of a parameter as an operand, or another vector with the layout of the parameters."""

    parameter: Parameter
    segment: str = "grads"

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's."""
        return self.parameter.shape


@plain()
class Step:
    """An instruction before its tensors have addresses."""

    kernel: Kernel
    operands: list[Any]  # Tensor, Parameter, Gradient, Derived, Scheduled or None, in order
    node: Node
    accumulate: bool = False  # whether it adds to parameter gradients that an earlier step wrote

    @property
    def arguments(self) -> dict[str, Any]:
        """The operands by name."""
        return dict(zip(self.kernel.tensors, self.operands, strict=True))

    @property
    def written(self) -> list[str]:
        """The names of the operands that it writes."""
        op = self.kernel.op
        if self.kernel.phase == "vjp":
            found = {f"d{name}" for name in op.inputs}
        else:
            found = {*op.outputs, *op.state}
        return [name for name in self.kernel.tensors if name in found]


@plain(frozen=True)
class HostCall:
    """A kernel that Python calls within a program: its tensors in order, and the node of the graph."""

    kernel: Kernel
    places: tuple[Place | None, ...]
    shapes: tuple[tuple[int | str, ...], ...]
    dtypes: tuple[Any, ...]
    node: int
    stream: int
    accumulate: bool


@dataclass(eq=False, repr=False)
class Plan:
    """A compiled graph for up to `max_rows` rows: programs, and the places of their data.

    A plan for training has the program `step` of a whole step without the update. If it ends in a loss and
    has no backward, such steps measure the loss. Other plans have `forward` and `backward`.
    """

    dtype: np.dtype[Any]
    max_rows: int
    forward: np.ndarray
    backward: np.ndarray
    step: np.ndarray
    workspace_bytes: int
    stage_bytes: int
    x_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    output: Place
    dy: Place | None = None  # plans without a loss: the caller writes dL/d-output here
    dx: Place | None = None  # plans without a loss: the caller reads dL/dx here
    loss: Place | None = None  # plans for steps; Python writes the loss here if the graph has none
    y_dtype: np.dtype[Any] | None = None
    derived_bytes: int = 0
    derived: list[tuple[int, int]] = field(default_factory=list)  # indices in derived_of, offsets
    # The program of those that kernels compute, after the others.
    derivation: np.ndarray = field(default_factory=lambda: _NOTHING)
    # Indices in scheduled_of, and offsets in a step's numbers, of which there are so many bytes.
    scheduled: list[tuple[int, int]] = field(default_factory=list)
    schedule_bytes: int = 0
    nodes: tuple[Array, ...] = ()  # for each program, the node of each instruction, or −1
    calls: tuple[
        HostCall, ...
    ] = ()  # of Python; the control `host` with row n stands for calls[n − 1]
    facts: dict[str, Any] = field(
        default_factory=dict
    )  # what was found about it and all its copies

    def copy(self) -> Plan:
        """A copy with its own programs, which a backend prepares and `write` changes."""
        made = copy.copy(self)
        for name in ("forward", "backward", "step", "derivation"):
            setattr(made, name, copied(getattr(self, name)))
        return made

    def fact(self, name: str, find: Callable[[Plan], Any]) -> Any:
        """What `find` finds about the plan, of which numbers of nodes are no part; found once."""
        if name not in self.facts:
            self.facts[name] = find(self)
        return self.facts[name]

    def write(self, numbers: Array) -> None:
        """Write the scalars of nodes into their instructions (see graph.numbers_of)."""
        for program, nodes in zip(
            (self.forward, self.backward, self.step), self.nodes, strict=True
        ):
            of_a_node = nodes >= 0
            program["scalar"][of_a_node] = numbers[nodes[of_a_node]]

    def schedule(self, scheduled: Sequence[Scheduled], first: int, count: int) -> Array:
        """The numbers of schedules at steps first, first + 1, …, a row for each: float64."""
        table = np.zeros((count, self.schedule_bytes // 8))
        steps = np.arange(first, first + count, dtype=np.int64)
        for number, offset in self.scheduled:
            found = scheduled[number].compute(steps).reshape(count, -1)
            table[:, offset // 8 : offset // 8 + found.shape[1]] = found
        return table


def compile_plan(
    structure: Structure,
    storage: Storage,
    max_rows: int,
    *,
    backward: bool = True,
    alone: bool = False,
    alignment: int = ALIGNMENT,
) -> Plan:
    """Compile a graph whose caller supplies x (and a target) and needs the output (or the loss).

    With a loss, in the graph or in Python, the plan is for steps, and its backward computes only the
    parameters' gradients. Otherwise the backward starts from dL/d-output and also computes dL/dx.
    `backward=False` leaves the backward out. `alone`: a loss without a model, whose steps compute dL/dx too
    and refuse nothing. alignment: of tensors in the workspace, in bytes; for native kernels the default.
    """
    graph, x, target = structure.graph, structure.x, structure.target
    shown, output = structure.output, structure.output.root
    loss, host = structure.loss, structure.on_host
    number = {id(node): k for k, node in enumerate(graph.nodes)}
    compiler = Compiler(storage, max_rows, number)
    forward = [compiler.step(node, "forward") for node in graph.nodes]
    steps: list[Step] = []
    dy = dx = None
    in_steps = loss is not None or host
    asked = set() if in_steps and not alone else {x}
    if backward:
        grads: dict[Tensor, Tensor] = {}
        if loss is None:
            dy = grads[output] = Tensor(output.shape, times=output.times)
        steps = compiler.differentiated(graph, grads, loss, asked)
        dx = grads.get(x) if asked else None
    boundary = len(forward)
    row_loss, value = None, loss
    if loss is not None:
        node = next(n for n in graph.nodes if n.output is loss)
        row_loss = node.arguments["row_loss"]
    elif host:
        value = Tensor((1,), "float64")
    pins = [
        (boundary, t) for t in (output, value, row_loss, structure.decision, dy) if t is not None
    ]
    if dx is not None:
        pins.append((boundary + 1 + len(steps), dx))
    compiler.pack(list(enumerate(forward)) + list(enumerate(steps, boundary + 1)), pins, alignment)
    compiler.place_elements(structure.elements)
    programs = compiler.encode(forward), compiler.encode(steps)
    numbered = {d: k for k, d in enumerate(derived_of(graph))}
    nodes_of_derived = [d.node for d in numbered if d.node is not None]
    derivation = compiler.encode([compiler.step(node, "forward") for node in nodes_of_derived])
    of_steps = {s: k for k, s in enumerate(scheduled_of(graph))}
    of = [np.array([number.get(id(s.node), -1) for s in part], int) for part in (forward, steps)]
    step, stage_bytes = _NOTHING, 0
    if value is not None:
        recorded = value, row_loss, output, structure.decision
        places = [None if t is None else compiler.place(t) for t in recorded]
        step, stage_bytes = _step(
            programs,
            (x, target, structure.weight),
            places,
            _width(output),
            compiler,
            structure.elements,
            host=host,
            checks=backward and not alone,
        )
        nodes = np.full(len(step), -1)
        nodes[(step["kernel"] >= 0) | (step["group"] > 0)] = np.concatenate(of)
        of, programs = [_NO_NODES, _NO_NODES, nodes], (_NOTHING, _NOTHING)
    else:
        of.append(_NO_NODES)
    return Plan(
        dtype=storage.dtype,
        max_rows=max_rows,
        forward=programs[0],
        backward=programs[1],
        step=step,
        workspace_bytes=compiler.workspace_bytes,
        stage_bytes=stage_bytes,
        x_shape=_row_shape(x),
        output_shape=_row_shape(shown),
        output=compiler.place(output),
        dy=compiler.place(dy) if dy else None,
        dx=compiler.place(dx) if dx else None,
        loss=compiler.place(value) if value else None,
        y_dtype=np.dtype(target.dtype or storage.dtype) if target else None,
        derived_bytes=compiler.derived_bytes,
        derived=[(numbered[d], offset) for d, (_, offset) in compiler.derived.items()],
        derivation=derivation,
        scheduled=[(of_steps[s], offset) for s, offset in compiler.scheduled.items()],
        schedule_bytes=compiler.schedule_bytes,
        nodes=tuple(of),
        calls=tuple(compiler.calls),
    )


def _step(
    programs: tuple[np.ndarray, np.ndarray],
    inputs: Sequence[Tensor | None],
    results: Sequence[Place | None],
    output_width: int,
    compiler: Compiler,
    elements: Elements | None,
    *,
    host: bool,
    checks: bool,
) -> tuple[np.ndarray, int]:
    """The program of a step with this forward and backward, and the bytes of its segment `stage`.

    inputs: x, target and weight, whose rows are gathered. results: places of loss, row losses and output.
    elements: what is gathered of x in place of its rows.
    checks: whether to check the loss and keep the buffers (also for a model without parameters).
    """
    end, stages = 0, list[Place | None]()
    for i, tensor in enumerate(inputs):
        stages.append(None if tensor is None else ("stage", end))
        if tensor is not None:
            end += (
                compiler.elements_bytes
                if elements and not i
                else aligned(compiler.bytes_of(tensor))
            )
    storage, (forward, backward) = compiler.storage, programs
    buffers = storage.segments["buffers"].nbytes if checks else 0
    widths = [0 if t is None else _width(t) for t in inputs[:2]]
    if elements is not None:
        widths.append(elements.x.elements(0))
        known = list(vars(elements).values())[1 : None if len(backward) else 3]
        stages += [("stage", compiler.offsets[t]) for t in known]
        if len(backward):
            stages.append(("stage", compiler.room_for_sorting))
    parts = [
        control("gather", stages, widths),
        forward,
        control("host") if host else _NOTHING,
        control("record", results, [output_width * storage.dtype.itemsize]),
    ]
    if checks:
        parts.append(control("check", results[:1], [NOT_FINITE]))
    parts.append(backward)
    if buffers:
        parts.insert(0, control("keep", [("stage", end)], [buffers]))
    return np.concatenate(parts), end + buffers


def _wanted(graph: Graph, roots: set[Tensor]) -> set[Tensor]:
    """The tensors with a gradient to compute: the roots, and all that depend on them or on a parameter."""
    wanted = set(roots)
    for node in graph.nodes:
        trained = any(p.trainable for _, p in parameters_of(node))
        if trained or any(t in wanted for _, t in node.inputs()):
            wanted.add(node.output)
    return wanted


def _row_shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(int(d) for d in tensor.shape[1:])


def _width(tensor: Tensor) -> int:
    """The numbers of a tensor for each row of the minibatch."""
    return tensor.times * math.prod(_row_shape(tensor))


class Compiler:
    """The steps of one plan, and where their tensors lie."""

    def __init__(self, storage: Storage, max_rows: int, number: dict[int, int]) -> None:
        self.storage, self.number = storage, number  # of nodes, by their ids
        self.calls: list[HostCall] = []
        self.max_rows = max_rows
        self.offsets: dict[Tensor, int] = {}
        self.workspace_bytes = 0
        self.written: set[Parameter] = set()  # parameters whose gradient a step has written
        self.derived: dict[Derived, tuple[Derived, int]] = {}
        self.derived_bytes = 0
        self.scheduled: dict[Scheduled, int] = {}
        self.schedule_bytes = 0
        self.elements_bytes = self.room_for_sorting = 0
        self.adds_in_place = True  # gradients, where a sum's first part is needed no more
        # Of each gradient, the tensors whose gradient it is and whose producer's VJP is still to come.
        self.pending: dict[Tensor, set[Tensor]] = {}

    def step(self, node: Node, phase: str, extra: Mapping[str, Any] | None = None) -> Step:
        """The step of a node's kernel, with more operands than the node's own, or others."""
        kernel = node.op.kernels[phase]
        arguments = {**node.arguments, **(extra or {})}
        return Step(kernel, [arguments.get(name) for name in kernel.tensors], node)

    def differentiated(
        self, graph: Graph, grads: dict[Tensor, Tensor], loss: Tensor | None, asked: set[Tensor]
    ) -> list[Step]:
        """The steps from the loss, or from the known gradients of tensors, to those of parameters.

        grads: known gradients, to which those of other tensors are added. asked: tensors whose gradients
        are needed too.
        """
        for tensor, known in grads.items():
            self.pending[known] = {tensor}
        steps, wanted = list[Step](), _wanted(graph, asked)
        losses, last = {loss}, list[Node]()
        for node in reversed(graph.nodes):
            if node.op.adds_to and node.output in losses:
                losses.add(node.arguments[node.op.adds_to])
                last.append(node)
            else:
                steps += self.backward(node, grads, wanted, losses)
        for node in last:
            steps += self.backward(node, grads, wanted, losses)
        return steps

    def backward(
        self,
        node: Node,
        grads: dict[Tensor, Tensor],
        wanted: set[Tensor],
        losses: set[Tensor | None],
    ) -> list[Step]:
        """The VJP of one node, and additions for inputs that already have a gradient."""
        if node.output not in grads and node.output not in losses:
            return []
        if node.output not in wanted:
            return []
        if "vjp" not in node.op.kernels:
            return self._by_adjoint(node, grads, wanted)
        extra: dict[str, Any] = {f"d{node.op.main_output()}": grads.get(node.output)}
        fresh, again = (
            dict[str, Any](),
            dict[str, Any](),
        )  # gradients that nobody has written, or somebody
        for name, p in parameters_of(node):
            extra[f"d{name}"] = None
            if p.trainable:
                (again if p in self.written else fresh)[f"d{name}"] = Gradient(p)
                self.written.add(p)
        parts: list[tuple[Tensor, Tensor]] = []
        for name, tensor in node.inputs():
            if tensor in wanted and f"d{name}" in node.op.kernels["vjp"].tensors:
                extra[f"d{name}"] = Tensor(tensor.shape, tensor.dtype, times=tensor.times)
                parts.append((tensor, extra[f"d{name}"]))
        # A VJP adds to all gradients of parameters or to none.
        steps = [self.step(node, "vjp", extra | (again or fresh))]
        steps[0].accumulate = bool(again)
        if again and fresh:
            none = dict.fromkeys(part for part in extra if part != f"d{node.op.main_output()}")
            steps.append(self.step(node, "vjp", extra | none | fresh))
        if node.output in grads:
            self.pending[grads[node.output]].discard(node.output)
        for tensor, part in parts:
            steps += self._add(tensor, part, grads)
        return steps

    def _by_adjoint(
        self, node: Node, grads: dict[Tensor, Tensor], wanted: set[Tensor]
    ) -> list[Step]:
        """The gradients of a node's inputs by other ops."""
        dy, steps = grads[node.output], list[Step]()
        self.pending[dy].discard(node.output)
        for name, tensor in node.inputs():
            if tensor in wanted:
                made = Graph()
                part = node.op.adjoint(made, name, dy, node.arguments)
                steps += [self.step(n, "forward") for n in made.nodes]
                steps += self._add(tensor, part, grads)
        return steps

    def _add(self, tensor: Tensor, part: Tensor, grads: dict[Tensor, Tensor]) -> list[Step]:
        """Add a part to a tensor's gradient; the first one is the gradient itself.

        The sum goes over the gradient of before, except where that is also another tensor's.
        """
        if tensor not in grads:
            grads[tensor] = part
            self.pending.setdefault(part, set()).add(tensor)
            return []
        before, graph = grads[tensor], Graph()
        others = self.pending[before] - {tensor}
        if others or part is before or not self.adds_in_place:
            self.pending[before] = others
            total = Tensor((ROWS, _width(tensor)))
            graph.nodes.append(
                Node(add, {"y": total, "a": before, "b": part}, {"N": _width(tensor)})
            )
            grads[tensor], self.pending[total] = total, {tensor}
        else:
            graph.nodes.append(
                Node(
                    add_to,
                    {"y": before, "x": part},
                    {"N": _width(tensor)},
                )
            )
        return [self.step(node, "forward") for node in graph.nodes]

    def pack(
        self,
        timeline: list[tuple[int, Step]],
        pins: list[tuple[int, Tensor]],
        alignment: int = ALIGNMENT,
    ) -> None:
        """Give each workspace tensor an offset, such that tensors alive together never overlap."""
        life: dict[Tensor, tuple[int, int]] = {}
        uses = [(t, o) for t, s in timeline for o in s.operands if isinstance(o, Tensor)]
        for time, tensor in uses + pins:
            if tensor.segment == "workspace":
                first, last = life.get(tensor, (time, time))
                life[tensor] = (min(first, time), max(last, time))
        block: dict[Tensor, Tensor] = {t: t for t in life}  # tensor → owner of its block
        span = dict(life)
        for time, step in timeline:
            if step.node.op.inplace:
                # The output is the first operand: y over x in a forward, dx over dy in a VJP.
                new, old, *others = step.operands
                if old in others:
                    continue
                if new in life and old in life and life[old][1] == time == life[new][0]:
                    root = block[old]
                    block[new] = root
                    span[root] = (span[root][0], max(span[root][1], life[new][1]))
        roots = [t for t in life if block[t] is t]
        items = [(self.bytes_of(t), *span[t]) for t in roots]
        offsets, self.workspace_bytes = pack(items, alignment)
        place = dict(zip(roots, offsets, strict=True))
        self.offsets = {t: place[block[t]] for t in life}

    def place_elements(self, elements: Elements | None) -> None:
        """Place a minibatch's elements in the segment x, and behind them 3 words of each to sort them."""
        end = 0
        for tensor in vars(elements).values() if elements else ():
            self.offsets[tensor] = end
            end += aligned(self.bytes_of(tensor))
        self.room_for_sorting = end
        self.elements_bytes = end + (aligned(24 * elements.x.elements(0)) if elements else 0)

    def place(self, operand: Any) -> Place:
        """Where an operand lies: its segment, and an offset in bytes."""
        if isinstance(operand, Tensor):
            return operand.segment, self.offsets.get(operand, 0)
        if isinstance(operand, Parameter):
            return self.storage.place(operand)
        if isinstance(operand, Gradient):
            return operand.segment, self.storage.place(operand.parameter)[1]
        if isinstance(operand, Scheduled):
            if operand not in self.scheduled:
                self.scheduled[operand] = self.schedule_bytes
                self.schedule_bytes += 8 * math.prod(operand.shape)
            return "schedule", self.scheduled[operand]
        if operand not in self.derived:
            self.derived[operand] = (operand, self.derived_bytes)
            count = int(np.prod([int(d) for d in operand.shape]))
            itemsize = np.dtype(operand.dtype or self.storage.dtype).itemsize
            self.derived_bytes += aligned(count * itemsize)
        return "derived", self.derived[operand][1]

    def encode(self, steps: Iterable[Step]) -> np.ndarray:
        """The program of these steps, once tensors have places."""
        steps = list(steps)
        program = np.zeros(len(steps), INSTRUCTION)
        for i, (record, step) in enumerate(zip(program, steps, strict=True)):
            node, op = step.node, step.node.op
            places = [None if o is None else self.place(o) for o in step.operands]
            if op.on_host:
                self.calls.append(self.host_call(step, places))
                program[i : i + 1] = control("host", row=len(self.calls))
                continue
            sizes = [node.sizes[d] for d in op.dims]
            scalars = [float(node.arguments[name]) for name in op.scalars]
            given = places, sizes, scalars, node.stream, node.times
            fill(record, step.kernel, self.storage.dtype, *given)
            record["accumulate"] = step.accumulate
        return program

    def host_call(self, step: Step, places: list[Place | None]) -> HostCall:
        """What Python needs to carry out a step."""
        op, names = step.node.op, step.kernel.tensors
        specs = [op.spec(name) for name in names]
        return HostCall(
            step.kernel,
            tuple(places),
            tuple(op.shape(name, step.node.sizes) for name in names),
            tuple(np.dtype((s and s.dtype) or self.storage.dtype) for s in specs),
            self.number[id(step.node)],
            step.node.stream,
            step.accumulate,
        )

    def bytes_of(self, tensor: Tensor) -> int:
        """The bytes of a tensor with the plan's maximum of rows."""
        itemsize = np.dtype(tensor.dtype or self.storage.dtype).itemsize
        return tensor.elements(self.max_rows) * itemsize
