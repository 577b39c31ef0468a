"""The graph: a directed acyclic graph of tensors and ops, as layers and losses apply them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np

from fastnet.builder import Builder
from fastnet.op import ROWS, Op
from fastnet.parameter import Derived, Parameter, Scheduled
from fastnet.plain import plain
from fastnet.plan.records import MAX_SCALARS


@plain()
class Tensor:
    """An edge: the result of an op or an input from the caller. Its shape starts with ROWS.

    times: the rows that it has for each row of the minibatch.
    """

    shape: tuple[int | str, ...]
    dtype: str | None = None  # None: the plan's
    segment: str = "workspace"
    base: Tensor | None = None  # whose numbers it has, where it is only another shape
    times: int = 1

    @property
    def root(self) -> Tensor:
        """The tensor that holds its numbers."""
        return self if self.base is None else self.base.root

    def elements(self, rows: int) -> int:
        """The number of elements for a number of rows."""
        count = 1
        for d in self.shape:
            count *= self.times * rows if d == ROWS else int(d)
        return count


@plain()
class Node:
    """One op with its arguments by name: Tensor, Parameter, Derived, Scheduled, None or a number."""

    op: type[Op]
    arguments: dict[str, Any]
    sizes: dict[str, int]
    stream: int = 0
    times: int = 1  # the rows of its tensors for each row of the minibatch
    training: bool = True  # the mode of the layer that applied it
    label: str = ""  # that layer's name in messages

    @property
    def output(self) -> Tensor:
        """The main output."""
        tensor: Tensor = self.arguments[self.op.main_output()]
        return tensor

    def inputs(self) -> list[tuple[str, Tensor]]:
        """The tensors it reads, by argument name."""
        read = ((name, self.arguments.get(name)) for name in self.op.inputs)
        return [(name, t) for name, t in read if isinstance(t, Tensor)]


class Graph(Builder):
    """Nodes in an order of execution."""

    def __init__(self, modes: Mapping[int, bool] | None = None, nodes: Iterable[Node] = ()) -> None:
        super().__init__(modes)
        self.nodes = list(nodes)

    def apply(self, op: type[Op], *, stream: int = 0, **arguments: Any) -> Tensor:
        """Add one op; returns its main output."""
        shapes = {name: getattr(a, "shape", a) for name, a in arguments.items()}
        sizes = op.bind(shapes)
        given = {n: a for n, a in arguments.items() if isinstance(a, Tensor)}
        times = op.rows_of({name: a.times for name, a in given.items()})
        arguments |= {name: a.root for name, a in given.items()}
        for name in op.outputs:
            spec = op.tensors[name]
            arguments[name] = Tensor(op.shape(name, sizes), spec.dtype, times=times)
        node = Node(op, arguments, sizes, self.stream(stream), times, self.training, self.label)
        self.nodes.append(node)
        return node.output

    def reshape(self, x: Tensor, row: tuple[int, ...], times: int = 1) -> Tensor:
        """A tensor of another shape that shares x's numbers."""
        return Tensor((ROWS, *row), x.dtype, x.segment, x, times)

    def source(self, tensor: Any) -> Node | None:
        """The node that has made a tensor; None: the caller gives it."""
        return next((n for n in reversed(self.nodes) if n.output is tensor.root), None)

    def output(self, name: str) -> Tensor:
        """Another output of the last op applied."""
        tensor: Tensor = self.nodes[-1].arguments[name]
        return tensor

    def matrices(self) -> list[Parameter]:
        """The trained parameters with two dimensions that the nodes use, in order, each once."""
        found = dict.fromkeys(p for node in self.nodes for _, p in parameters_of(node))
        return [p for p in found if len(p.shape) == 2 and p.trainable]


@plain()
class Elements:
    """The elements of a minibatch of sparse rows, which lie in the segment x (see sparse_linear)."""

    x: Tensor
    columns: Tensor
    ends: Tensor
    xt: Tensor
    columns_t: Tensor
    rows_t: Tensor

    @classmethod
    def of(cls, count: int) -> Self:
        """Room for so many elements."""
        numbers = (
            Tensor((count,), dtype, "x") for dtype in (None, "int64", None, "int64", "int64")
        )
        x, columns, xt, columns_t, rows_t = numbers
        return cls(x, columns, Tensor((ROWS,), "int64", "x"), xt, columns_t, rows_t)


@plain()
class Structure:
    """A graph, with those of its tensors that callers need.

    Structures with equal signatures share a plan. The executor supplies what differs: numbers such as a
    Huber delta or a dropout's p, tensors that are constant or derived from parameters, and schedules.
    """

    graph: Graph
    x: Tensor
    output: Tensor
    target: Tensor | None = None
    weight: Tensor | None = None
    loss: Tensor | None = None
    decision: Tensor | None = None  # of the output, for accuracy
    on_host: bool = False  # Python computes the loss of the output
    elements: Elements | None = None  # what ops read instead of x


def numbers_of(graph: Graph) -> np.ndarray:
    """The scalars of each node, in the order of its op: float64 (nodes, MAX_SCALARS)."""
    numbers = np.zeros((len(graph.nodes), MAX_SCALARS))
    for row, node in zip(numbers, graph.nodes, strict=True):
        row[: len(node.op.scalars)] = [float(node.arguments[name]) for name in node.op.scalars]
    return numbers


def derived_of(graph: Graph) -> list[Derived]:
    """The derived tensors that nodes use, or that these are computed from, each once."""
    used = [a for node in graph.nodes for a in node.arguments.values() if isinstance(a, Derived)]
    nodes = [d.node for d in used if d.node is not None]
    used += [a for n in nodes for a in n.arguments.values() if isinstance(a, Derived)]
    return list(dict.fromkeys(used))


def scheduled_of(graph: Graph) -> list[Scheduled]:
    """The tensors that depend on the step, each once."""
    used = (a for node in graph.nodes for a in node.arguments.values() if isinstance(a, Scheduled))
    return list(dict.fromkeys(used))


def objects_of(graph: Graph) -> list[dict[str, Any]]:
    """For each node, the Python objects that its kernels take, by argument name."""
    return [{name: n.arguments[name] for name in n.op.objects} for n in graph.nodes]


def signature_of(structure: Structure, place: Callable[[Parameter], Any]) -> Any:
    """Everything but the rows that a plan depends on; `place` gives the place of a parameter."""
    graph, known = structure.graph, dict[Tensor, int]()
    derived = {d: number for number, d in enumerate(derived_of(graph))}
    scheduled = {s: number for number, s in enumerate(scheduled_of(graph))}

    def of(argument: Any) -> Any:
        if isinstance(argument, Tensor):
            number = known.setdefault(argument.root, len(known))
            return number, argument.shape, argument.dtype, argument.segment
        if isinstance(argument, Parameter):
            return place(argument), argument.shape, argument.trainable
        if isinstance(argument, Derived):
            made = argument.node and (
                argument.node.op,
                *(of(a) for a in argument.node.arguments.values() if a is not argument),
            )
            return derived[argument], argument.shape, argument.dtype, made
        if isinstance(argument, Scheduled):
            return scheduled[argument], argument.shape
        return argument is None

    s = structure
    ends = s.x, s.output, s.target, s.weight, s.loss, s.decision
    return (
        structure.on_host,
        tuple(map(of, ends)),
        tuple(
            (
                (n.op, n.stream, n.times, *n.sizes.items()),
                *((name, of(a)) for name, a in n.arguments.items()),
            )
            for n in graph.nodes
        ),
    )


def parameters_of(node: Node) -> list[tuple[str, Parameter]]:
    """The parameters (and buffers) that a node uses, by argument name."""
    return [(n, a) for n, a in node.arguments.items() if isinstance(a, Parameter)]
