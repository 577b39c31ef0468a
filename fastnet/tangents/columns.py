"""The rules of forwards whose Jacobians are not square, as they select, repeat or replace columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.layers.embedding import embedding
from fastnet.layers.joining import concat
from fastnet.layers.piecewise import features_of, limits
from fastnet.layers.rectifiers import relu
from fastnet.layers.scale import scale, shift
from fastnet.losses.labels import constant
from fastnet.op import Array
from fastnet.parameter import Derived, Parameter
from fastnet.plan.compiler import Step
from fastnet.plan.graph import Node, Tensor
from fastnet.preprocess.scaling import rescale
from fastnet.tangents.rules import Moves, rule


@rule("embedding_forward")
def of_embedding(moves: Moves, step: Step) -> None:
    """[ẋ of the other columns, ẇ_c]: the op itself, of ẋ with the codes of x in its last column, and ẇ."""
    arguments, numbers = moves.arguments(step), step.node.arguments
    x, y, w = (arguments[name] for name in ("x", "y", "w"))
    moved, of_table = moves.of(x), moves.of(w)
    if moved is None and of_table is None:
        moves.put(y, None)
        return
    at, width = int(numbers["place"]), int(x.shape[1])
    others = [n for n in range(width) if n != at]
    given = moves.columns(x, [at])
    if others:
        along = moves.columns(x if moved is None else moved, others)
        along = moves.nothing(along) if moved is None else along
        given = moves.apply(concat, a=along, b=given)
    table = constant(np.zeros(w.shape)) if of_table is None else of_table
    place = {"place": float(width - 1), "unknown": numbers["unknown"], "M": int(y.shape[1])}
    moves.put(y, moves.apply(embedding, x=given, w=table, **place))


@rule("piecewise_forward")
def of_piecewise(moves: Moves, step: Step) -> None:
    """ẏ_m = scale_m·ẋ_i where low ≤ (x_i − edge_m)·scale_m < high, as the gradient has it."""
    arguments = moves.arguments(step)
    x, y, edge, slope, ends = (arguments[n] for n in ("x", "y", "edge", "scale", "ends"))
    moved = moves.of(x)
    if moved is None:
        moves.put(y, None)
        return
    of = features_of(ends.compute(), int(y.shape[1]))
    low, high = limits(ends.compute(), int(y.shape[1]))
    none = constant(np.zeros(len(of)))
    given = {"c": edge, "r": none, "f": slope, "offset": 0.0}
    place = moves.apply(rescale, x=moves.columns(x, of), **given)
    found = moves.apply(scale, x=moves.columns(moved, of), w=slope)
    below = moves.apply(shift, x=moves.scaled(place, -1.0), b=constant(high))
    found = where_positive(moves, found, below)
    short = moves.apply(shift, x=moves.scaled(place, -1.0), b=constant(low))
    outside = where_positive(moves, found, short)
    moves.put(y, moves.sum(found, moves.scaled(outside, -1.0)))


def where_positive(moves: Moves, x: Tensor, by: Tensor) -> Tensor:
    """x where another tensor is positive, else 0: the vjp of relu, which reads signs alone."""
    made = moves.like(x)
    node = Node(relu, {}, {"N": int(x.shape[1])}, times=x.times)
    moves.emit(node, "vjp", dx=made, dy=x, y=by)
    return made


@rule("one_hot_forward")
def of_one_hot(moves: Moves, step: Step) -> None:
    """The columns that are copied move with x, the others stay."""
    arguments = moves.arguments(step)
    x, y, source = (arguments[name] for name in ("x", "y", "source"))
    moved, made = moves.of(x), None
    if moved is not None:

        def places() -> Array:
            return np.asarray(np.maximum(-1 - _numbers(source), 0), np.int64)

        columns = Derived(source.shape, places, "int64")
        copied = Derived(source.shape, lambda: (_numbers(source) < 0).astype(np.float64))
        made = moves.apply(scale, x=moves.taken(moved, columns), w=copied)
    moves.put(y, made)


def _numbers(operand: Any) -> Array:
    return np.asarray(operand.value if isinstance(operand, Parameter) else operand.compute())
