"""What a kernel's tangent is made of: the rules by kernel, and those that many kernels share.

A rule is a function of `Moves`, which emits steps, and of the step whose tangent it computes. It sets the
tangents of the tensors that the step writes. A tensor without a tangent does not move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastnet.layers.columns import take_columns
from fastnet.layers.joining import add, multiply
from fastnet.layers.members import spread, sum_members
from fastnet.layers.ntk_linear import times
from fastnet.layers.rectifiers import hardtanh
from fastnet.losses.labels import constant
from fastnet.op import ROWS, Op
from fastnet.parameter import Derived, Parameter
from fastnet.plan.compiler import Compiler, Gradient, Step
from fastnet.plan.graph import Graph, Node, Tensor
from fastnet.tangents.curves import curve_of, tangent_name

DIRECTION = "state"  # the segment of the parameters' tangents
Rule = Callable[["Moves", Step], None]
RULES: dict[str, Rule] = {}  # by kernel


def rule(*kernels: str) -> Callable[[Rule], Rule]:
    """Declare the rule of these kernels."""

    def keep(function: Rule) -> Rule:
        for name in kernels:
            assert name not in RULES, name
            RULES[name] = function
        return function

    return keep


class Moves:
    """Tangents of tensors, and the steps that compute them.

    moving: whether parameters move. `still` are tensors whose tangents count as zero.
    """

    def __init__(self, compiler: Compiler, *, moving: bool = True) -> None:
        self.compiler, self.moving = compiler, moving
        self.steps: list[Step] = []
        self.known: dict[Tensor, Tensor] = {}
        self.still: set[Tensor] = set()

    def of(self, operand: Any) -> Any:
        """The tangent of an operand, of its shape; None where it does not move."""
        if isinstance(operand, Tensor):
            found = None if operand.root in self.still else self.known.get(operand.root)
            return None if found is None else seen_as(found, operand)
        if isinstance(operand, Parameter) and operand.trainable and self.moving:
            return Gradient(operand, DIRECTION)
        return None

    def put(self, tensor: Tensor, tangent: Tensor | None) -> None:
        """Set a tensor's tangent, which has as many numbers."""
        if tangent is None:
            self.known.pop(tensor.root, None)
        else:
            self.known[tensor.root] = tangent.root

    def arguments(self, step: Step) -> dict[str, Any]:
        """The operands of a step by name, the tensors in the shapes that its kernel sees."""
        return seen(step.node, step.arguments)

    def like(self, tensor: Tensor) -> Tensor:
        """A new tensor of another's shape."""
        return Tensor(tensor.shape, tensor.dtype, times=tensor.times)

    def apply(self, op: type[Op], **arguments: Any) -> Tensor:
        """A step of an op's forward; returns its main output."""
        graph = Graph()
        output = graph.apply(op, **arguments)
        self.steps += [self.compiler.step(node, "forward") for node in graph.nodes]
        return output

    def emit(self, node: Node, phase: str, **operands: Any) -> None:
        """A step of a node with these operands in place of its own."""
        given = {n: o.root if isinstance(o, Tensor) else o for n, o in operands.items()}
        self.steps.append(self.compiler.step(node, phase, given))

    def again(self, step: Step, **operands: Any) -> None:
        """The same step with these operands in place of its own."""
        given = {**step.arguments, **operands}
        found = [given[n] for n in step.kernel.tensors]
        roots = [o.root if isinstance(o, Tensor) else o for o in found]
        self.steps.append(Step(step.kernel, roots, step.node))

    def each(self, op: type[Op], x: Tensor, **more: Any) -> Tensor:
        """An op of elements; tensors of any shape count as rows of numbers."""
        others = {n: _flat(o) if isinstance(o, Tensor) else o for n, o in more.items()}
        first = next(iter(op.inputs))
        return seen_as(self.apply(op, **{first: _flat(x)}, **others), x)

    def sum(self, a: Tensor | None, b: Tensor | None) -> Tensor | None:
        """a + b; None is zero."""
        if a is None or b is None:
            return a or b
        return self.each(add, a, b=seen_as(b, a))

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """a·b by elements."""
        return self.each(multiply, a, b=seen_as(b, a))

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        """factor·x."""
        return self.each(times, x, factor=factor)

    def row_sum(self, x: Tensor, factor: float = 1.0) -> Tensor:
        """factor·Σ over the columns: (n, 1)."""
        width = int(x.shape[1])
        return self.apply(sum_members, x=shaped(x, (width, 1)), factor=factor)

    def repeated(self, x: Tensor, like: Tensor, factor: float = 1.0) -> Tensor:
        """A number for each row, (n,) or (n, 1), in all columns of a tensor like another."""
        made = self.apply(
            spread, x=shaped(x, (1,), like.times), N=int(like.shape[1]), factor=factor
        )
        return seen_as(made, like)

    def filled(self, like: Tensor, value: float) -> Tensor:
        """This number everywhere, also where the other tensor is infinite; NaN where that is."""
        return self.each(hardtanh, like, min_val=value, max_val=value)

    def nothing(self, like: Tensor) -> Tensor:
        """Zeros."""
        return self.filled(like, 0.0)

    def columns(self, x: Tensor, places: Any) -> Tensor:
        """Some columns of a tensor; x itself where these are all of them."""
        table = np.asarray(places, np.int64)
        if np.array_equal(table, np.arange(int(x.shape[1]))):
            return x
        return self.taken(x, Derived(table.shape, lambda: table, "int64", constant=True))

    def taken(self, x: Tensor, places: Derived) -> Tensor:
        """The columns at these places."""
        return self.apply(take_columns, x=x, places=places)


def shaped(x: Tensor, row: tuple[int, ...], times: int | None = None) -> Tensor:
    """The same numbers with rows of another shape."""
    return Tensor((ROWS, *row), x.dtype, x.segment, x.root, x.times if times is None else times)


def _flat(x: Tensor) -> Tensor:
    width = math.prod(int(d) for d in x.shape[1:])
    return x if len(x.shape) == 2 else shaped(x, (width,))


def seen_as(x: Tensor, like: Tensor) -> Tensor:
    """The same numbers in the shape of another tensor."""
    if x.shape == like.shape and x.times == like.times:
        return x
    return Tensor(like.shape, x.dtype, x.segment, x.root, like.times)


def seen(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, the tensors among them in the shapes that a node's op sees."""
    found = dict(arguments)
    for name, a in arguments.items():
        if isinstance(a, Tensor) and node.op.spec(name) is not None:
            shape = node.op.shape(name, node.sizes)
            times = node.times if shape and shape[0] == ROWS else a.times
            found[name] = Tensor(shape, a.dtype, a.segment, a.root, times)
    return found


def through(moves: Moves, step: Step) -> None:
    """Emit the tangent of a step by its kernel's rule."""
    RULES[step.kernel.name](moves, step)


def has_rule(step: Step) -> bool:
    """Whether the tangent of a step's kernel is known; elementwise kernels need no rule of their own."""
    name, kernel = step.kernel.name, step.kernel
    if name in RULES:
        return True
    if kernel.formula is None or kernel.op.on_host:
        return False
    if kernel.phase == "forward" and "vjp" in kernel.op.kernels:
        RULES[name] = by_vjp
    elif kernel.phase == "vjp":
        RULES[name] = by_curve
    return name in RULES


def by_vjp(moves: Moves, step: Step) -> None:
    """ẏ = J·ẋ where the Jacobian of a row is symmetric: the vjp of ẋ."""
    op, arguments = step.node.op, moves.arguments(step)
    name = next(iter(op.inputs))
    moved = moves.of(arguments[name])
    output = arguments[op.main_output()]
    if moved is None:
        moves.put(output, None)
        return
    made = moves.like(output)
    gradients = {f"d{n}": None for n in op.inputs} | {f"d{name}": made}
    moves.emit(step.node, "vjp", **gradients, **{f"d{op.main_output()}": moved})
    moves.put(output, made)


def by_curve(moves: Moves, step: Step) -> None:
    """The tangent of an elementwise vjp, by the op that is derived for it (see curves)."""
    kernel, arguments = step.kernel, moves.arguments(step)
    (output,) = kernel.op.written("vjp")
    if arguments[output] is None:
        return
    curve = curve_of(kernel)
    gradient = f"d{kernel.op.main_output()}"
    source = arguments.get(gradient)
    read = curve.inputs if curve is not None else {}
    names = [n for n in arguments if tangent_name(n) in read and n != gradient]
    given = {**seen(step.node, step.node.arguments), **arguments}
    names += [n for n in kernel.op.inputs if n not in names and tangent_name(n) in read]
    moved = {n: moves.of(given[n]) for n in names}
    if curve is None or all(t is None for t in moved.values()):
        along = moves.of(source)
        if along is None:
            moves.put(arguments[output], None)
            return
        made = moves.like(arguments[output])
        moves.again(step, **{output: made, gradient: along})
        moves.put(arguments[output], made)
        return
    inputs = {n: given[n] for n in curve.inputs if n in given}
    for name in curve.inputs:
        if name not in given:
            original = gradient if name == tangent_name(gradient) else name[1:]
            found = moves.of(given[original])
            inputs[name] = moves.nothing(given[original]) if found is None else found
    scalars = {n: step.node.arguments[n] for n in curve.scalars}
    made = moves.apply(curve, **inputs, **scalars)
    moves.put(arguments[output], made)


def linear_in(*names: str) -> Rule:
    """The rule of a kernel that is linear in these operands together, and whose others do not move."""

    def linear(moves: Moves, step: Step) -> None:
        arguments = moves.arguments(step)
        moved = {n: moves.of(arguments[n]) for n in names if arguments.get(n) is not None}
        written = {n: arguments[n] for n in step.written if arguments[n] is not None}
        if not any(t is not None for t in moved.values()):
            for tensor in written.values():
                if isinstance(tensor, Tensor):
                    moves.put(tensor, None)
            return
        for name, tangent in moved.items():
            if tangent is None:
                moved[name] = moves.nothing(arguments[name])
        made = {n: moves.like(t) if isinstance(t, Tensor) else t for n, t in written.items()}
        moves.again(step, **moved, **made)
        for name, tensor in written.items():
            if isinstance(tensor, Tensor):
                moves.put(tensor, made[name])

    return linear


def bilinear(*terms: Mapping[str, str]) -> Rule:
    """The rule of a vjp that is a sum of products.

    terms: each tells, for the outputs that it has a part of, the operand whose tangent takes its place.
    """

    def products(moves: Moves, step: Step) -> None:
        arguments = moves.arguments(step)
        found: dict[str, Tensor | None] = {}
        for term in terms:
            moved = {n: moves.of(arguments.get(n)) for n in set(term.values())}
            outputs: dict[str, Any] = {}
            for name in step.written:
                target, by = arguments[name], term.get(name)
                there = target is not None and by is not None and moved[by] is not None
                outputs[name] = None
                if there:
                    outputs[name] = moves.like(target) if isinstance(target, Tensor) else target
            if all(o is None for o in outputs.values()):
                continue
            replaced = {n: t for n, t in moved.items() if t is not None}
            moves.again(step, **replaced, **outputs)
            for name, made in outputs.items():
                if isinstance(made, Tensor):
                    found[name] = moves.sum(found.get(name), made)
        for name in step.written:
            if isinstance(arguments[name], Tensor):
                moves.put(arguments[name], found.get(name))

    return products


def affine(x: str, w: str, b: str | None) -> Rule:
    """The rule of a forward y = x∘w + b that is linear in x and in w."""

    def tangent(moves: Moves, step: Step) -> None:
        arguments = moves.arguments(step)
        output = arguments[step.node.op.main_output()]
        dx, dw = moves.of(arguments[x]), moves.of(arguments.get(w))
        db = moves.of(arguments[b]) if b and arguments.get(b) is not None else None
        if dx is None and dw is None and db is None:
            moves.put(output, None)
            return
        if dx is None and dw is None:
            dx = moves.nothing(arguments[x])
        name, found = step.node.op.main_output(), None
        none: dict[str, Any] = {b: None} if b else {}
        if b and b not in step.node.op.optional:
            none = {b: constant(np.zeros(arguments[b].shape))}
        bias = none if db is None else {str(b): db}
        if dx is not None:
            found = moves.like(output)
            moves.again(step, **{name: found, x: dx}, **bias)
            bias = none
        if dw is not None:
            part = moves.like(output)
            moves.again(step, **{name: part, w: dw}, **bias)
            found = moves.sum(found, part)
        moves.put(output, found)

    return tangent


def still(moves: Moves, step: Step) -> None:
    """The rule of kernels whose outputs do not move, or whose movement nobody reads."""
    arguments = step.arguments
    for name in step.written:
        if isinstance(arguments[name], Tensor):
            moves.put(arguments[name], None)
