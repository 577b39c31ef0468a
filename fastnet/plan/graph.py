"""The graph: a directed acyclic graph of tensors and ops, as layers and losses describe themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastnet.op import ROWS, Op
from fastnet.parameter import Parameter


@dataclass(eq=False, repr=False)
class Tensor:
    """An edge: what an op produces or the caller supplies. Its shape starts with ROWS."""

    shape: tuple[int | str, ...]
    dtype: str | None = None  # None: the plan's
    segment: str = "workspace"

    def elements(self, rows: int) -> int:
        """Its number of elements for a number of rows."""
        count = 1
        for d in self.shape:
            count *= rows if d == ROWS else int(d)
        return count


@dataclass(eq=False, repr=False)
class Node:
    """One op with its arguments by name: Tensor, Parameter, Derived, None (absent) or a number."""

    op: type[Op]
    arguments: dict[str, Any]
    sizes: dict[str, int]
    stream: int = 0

    @property
    def output(self) -> Tensor:
        """The main output."""
        tensor: Tensor = self.arguments[self.op.main_output()]
        return tensor

    def inputs(self) -> list[tuple[str, Tensor]]:
        """The tensors it reads, by argument name."""
        read = ((name, self.arguments.get(name)) for name in self.op.inputs)
        return [(name, t) for name, t in read if isinstance(t, Tensor)]


@dataclass(eq=False, repr=False)
class Graph:
    """Nodes in an order in which they can run. It is the builder that `Layer.emit` talks to."""

    training: bool = True
    nodes: list[Node] = field(default_factory=list)

    def apply(self, op: type[Op], *, stream: int = 0, **arguments: Any) -> Tensor:
        """Add one op; returns its main output."""
        shapes = {name: getattr(a, "shape", None) for name, a in arguments.items()}
        sizes = op.bind(shapes)
        for name in op.outputs:
            spec = op.tensors[name]
            arguments[name] = Tensor(op.shape(name, sizes), spec.dtype)
        node = Node(op, arguments, sizes, stream)
        self.nodes.append(node)
        return node.output

    def output(self, name: str) -> Tensor:
        """Another output of the last op applied."""
        tensor: Tensor = self.nodes[-1].arguments[name]
        return tensor


def parameters_of(node: Node) -> list[tuple[str, Parameter]]:
    """The parameters (and buffers) that a node uses, by argument name."""
    return [(n, a) for n, a in node.arguments.items() if isinstance(a, Parameter)]
