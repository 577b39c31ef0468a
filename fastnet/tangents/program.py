"""Plans with tangents: Jacobian products of a model, Hessian and Gauss–Newton products of a loss.

In a plan for products the segment `state` has the parameters' direction, and `grads` gets what the gradient
changes by along it. A plan in two parts has a forward that keeps what its backward, the products, reads;
the backward runs as often as there are directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.errors import NoSecondDerivatives
from fastnet.layers.hierarchical import tree_log_softmax
from fastnet.layers.softmax import log_softmax
from fastnet.losses.penalty import l2_penalty
from fastnet.op import ROWS
from fastnet.parameter import Derived, Scheduled
from fastnet.plain import changed
from fastnet.plan.compiler import Compiler, Gradient, Plan, Step
from fastnet.plan.graph import Graph, Node, Structure, Tensor
from fastnet.plan.instructions import Place
from fastnet.plan.segments import Storage
from fastnet.tangents import (  # noqa: F401  (rules)
    columns,
    linear,
    losses,
    margin,
    norms,
    radial,
    softmax,
    trees,
)
from fastnet.tangents.expand import expanded, refuses
from fastnet.tangents.rules import Moves, has_rule, through


@dataclass(eq=False, repr=False)
class Products:
    """A plan with what an executor needs beside it, and the places of its own tensors.

    dx: where the caller writes the tangent of x. dy: where that of the output is. Both None: there is none.
    """

    plan: Plan
    derived: list[Derived]
    scheduled: list[Scheduled]
    objects: list[dict[str, Any]]
    dx: Place | None = None
    dy: Place | None = None
    of_parameters: bool = True  # whether parameters move
    target_bytes: int = 0  # of a row


def jacobian_product(
    structure: Structure, storage: Storage, rows: int, *, of_x: bool, of_parameters: bool
) -> Products:
    """The plan of y and ẏ = J·(ẋ, θ̇) for up to so many rows."""
    graph, compiler = _opened(structure, storage, rows)
    moves = Moves(compiler, moving=of_parameters)
    x, output = structure.x, structure.output.root
    moved = Tensor(x.shape, times=x.times) if of_x else None
    moves.put(x, moved)
    for node in graph.nodes:
        _with(moves, compiler.step(node, "forward"), [])
    result = moves.of(output)
    wanted = {output} if result is None else {output, result}
    steps = _needed(moves.steps, wanted)
    pins = [(-1, moved)] if moved is not None else []
    pins += [(len(steps), t) for t in (output, result) if t is not None]
    made = _plan(structure, graph, compiler, steps, [], pins, output)
    made.of_parameters = of_parameters
    made.dx = None if moved is None else compiler.place(moved)
    made.dy = None if result is None else compiler.place(result)
    return made


def curvature_product(
    structure: Structure, storage: Storage, rows: int, *, gauss_newton: bool, penalty: float = 1.0
) -> Products:
    """The plan of the loss and of its Hessian, or Gauss–Newton matrix, times a direction.

    It is in two parts, of which the second runs as often as there are directions. penalty: what the
    penalties of parameters count times.
    """
    nodes = [_weighed(node, penalty) for node in structure.graph.nodes]
    structure = changed(structure, graph=Graph(nodes=nodes))
    graph, compiler = _opened(structure, storage, rows)
    loss, output = structure.loss, structure.output.root
    assert loss is not None
    moves = Moves(compiler)
    primal: list[Step] = []
    grads: dict[Tensor, Tensor] = {}
    forward = [compiler.step(node, "forward") for node in graph.nodes]
    backward = compiler.differentiated(graph, grads, loss, set())
    split = _split(structure.graph, output)
    of_loss = {id(node) for node in graph.nodes[split:]}
    outputs = {n.arguments[name] for n in graph.nodes for name in n.op.outputs}
    for step in forward:
        _with(moves, step, primal)
    for step in backward:
        # In the Gauss–Newton matrix only the loss is curved: the model is as at this point.
        flat = gauss_newton and id(step.node) not in of_loss
        moves.moving, moves.still = not flat, outputs if flat else set()
        _with(moves, step, primal)
    _drop_gradients(primal)
    steps = _needed(moves.steps, {loss})
    ours = {id(step) for step in primal}
    first = [step for step in steps if id(step) in ours]
    second = [step for step in steps if id(step) not in ours]
    _accumulate(second)
    end = len(first) + 1 + len(second)
    made_before = {t for s in first for t in s.operands if isinstance(t, Tensor)}
    read_after = {t for s in second for t in s.operands if isinstance(t, Tensor)}
    pins = [(len(first), loss), *((end, t) for t in made_before & read_after)]
    made = _plan(structure, graph, compiler, first, second, pins, output)
    if structure.target is not None:
        dtype = np.dtype(structure.target.dtype or storage.dtype)
        made.target_bytes = structure.target.elements(1) * dtype.itemsize
    return made


def _weighed(node: Node, penalty: float) -> Node:
    """A node, of a penalty with this many times its strength."""
    if node.op is not l2_penalty or penalty == 1:
        return node
    return changed(node, arguments={**node.arguments, "alpha": penalty * node.arguments["alpha"]})


def _opened(structure: Structure, storage: Storage, rows: int) -> tuple[Graph, Compiler]:
    graph = expanded(structure.graph)
    for node in graph.nodes:
        if reason := refuses(node):
            raise NoSecondDerivatives(
                f"{node.label or node.op.name} has no second derivatives, nor products of its Jacobian: "
                f"{reason}"
            )
    number = {id(node): k for k, node in enumerate(graph.nodes)}
    compiler = Compiler(storage, rows, number)
    compiler.adds_in_place = False  # what is differentiated reads both parts, and may do so later
    return graph, compiler


def _with(moves: Moves, step: Step, primal: list[Step]) -> None:
    """Emit a step and its tangent, or raise where its kernel has none."""
    if not has_rule(step):
        raise NoSecondDerivatives(
            f"{step.node.label or step.node.op.name}: fastnet has no second derivative of "
            f"{step.node.op.name}; leave this layer or loss out, or use differences of gradients"
        )
    moves.steps.append(step)
    primal.append(step)
    through(moves, step)


def _split(graph: Graph, output: Tensor) -> int:
    """The number of nodes of the model when all are expanded; the others are the loss's.

    The negative log-likelihood of log-probabilities takes their log-softmax along: it is linear in these.
    """
    at = next((k for k, n in enumerate(graph.nodes) if n.output is output), -1) + 1
    if at and graph.nodes[at - 1].op in (log_softmax, tree_log_softmax):
        at -= 1
    return len(expanded(Graph(nodes=graph.nodes[:at])).nodes)


def _drop_gradients(primal: list[Step]) -> None:
    """Leave out the gradients of parameters, which no product needs."""
    for step in primal:
        step.operands = [None if isinstance(o, Gradient) else o for o in step.operands]


def _needed(steps: list[Step], results: set[Tensor]) -> list[Step]:
    """The steps without those whose results nobody reads; of the others' gradients only those read."""
    live, found = set(results), list[Step]()
    for step in reversed(steps):
        arguments = step.arguments
        written = [n for n in step.written if arguments[n] is not None]
        wanted = [n for n in written if isinstance(arguments[n], Gradient) or arguments[n] in live]
        if not wanted:
            continue
        if step.kernel.phase == "vjp":
            unread = set(written) - set(wanted)
            names = step.kernel.tensors
            step.operands = [
                None if n in unread else o for n, o in zip(names, step.operands, strict=True)
            ]
        live |= {o for o in step.operands if isinstance(o, Tensor)}
        found.append(step)
    return found[::-1]


def _accumulate(steps: list[Step]) -> None:
    """Let steps add to what earlier ones have written of the result."""
    known: set[int] = set()
    for step in list(steps):
        names = [
            n
            for n, o in step.arguments.items()
            if isinstance(o, Gradient) and o.segment == "grads" and n in step.written
        ]
        if not names:
            continue
        keys = {n: id(step.arguments[n].parameter) for n in names}
        fresh = [n for n in names if keys[n] not in known]
        step.accumulate = len(fresh) < len(names)
        if fresh and step.accumulate:  # a kernel adds to all or to none
            others = set(step.written) - set(fresh)
            both = zip(step.kernel.tensors, step.operands, strict=True)
            alone = Step(step.kernel, [None if n in others else o for n, o in both], step.node)
            both = zip(step.kernel.tensors, step.operands, strict=True)
            step.operands = [None if n in fresh else o for n, o in both]
            steps.insert(steps.index(step), alone)
        known |= set(keys.values())


def _plan(
    structure: Structure,
    graph: Graph,
    compiler: Compiler,
    first: list[Step],
    second: list[Step],
    pins: list[tuple[int, Tensor]],
    output: Tensor,
) -> Products:
    boundary = len(first)
    compiler.pack(list(enumerate(first)) + list(enumerate(second, boundary + 1)), pins)
    programs = compiler.encode(first), compiler.encode(second)
    storage, x = compiler.storage, structure.x
    plan = Plan(
        dtype=storage.dtype,
        max_rows=compiler.max_rows,
        forward=programs[0],
        backward=programs[1],
        step=programs[0][:0],
        workspace_bytes=compiler.workspace_bytes,
        stage_bytes=0,
        x_shape=_row(x),
        output_shape=_row(structure.output),
        output=compiler.place(output),
        loss=compiler.place(structure.loss) if structure.loss is not None else None,
        y_dtype=None,
        derived_bytes=compiler.derived_bytes,
        derived=[(k, offset) for k, (_, offset) in enumerate(compiler.derived.values())],
        scheduled=list(enumerate(compiler.scheduled.values())),
        schedule_bytes=compiler.schedule_bytes,
        nodes=tuple(np.full(len(program), -1) for program in (*programs, programs[0][:0])),
        calls=tuple(compiler.calls),
    )
    objects = [{n: node.arguments[n] for n in node.op.objects} for node in graph.nodes]
    return Products(plan, list(compiler.derived), list(compiler.scheduled), objects)


def _row(tensor: Tensor) -> tuple[int, ...]:
    assert tensor.shape[0] == ROWS
    return tuple(int(d) for d in tensor.shape[1:])
