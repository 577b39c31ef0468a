"""The rules of kernels that are linear or bilinear, or a map of columns."""

from __future__ import annotations

import math

import numpy as np

from fastnet.layers.scale import scale
from fastnet.layers.scale import shift as shift_op
from fastnet.op import ROWS
from fastnet.plan.compiler import Step
from fastnet.plan.graph import Node, Tensor
from fastnet.tangents.rules import (
    RULES,
    Moves,
    affine,
    bilinear,
    by_vjp,
    linear_in,
    rule,
    still,
)

PRODUCTS = ("linear", "transposed_linear", "linear_ensemble", "grouped_linear")
ALL_BY_DY = {"dx": "dy", "dw": "dy", "db": "dy"}

RULES.update({f"{op}_forward": affine("x", "w", "b") for op in PRODUCTS})
RULES.update({f"{op}_vjp": bilinear(ALL_BY_DY, {"dx": "w", "dw": "x"}) for op in PRODUCTS})
RULES.update(
    {
        "angles_vjp": bilinear({"dx": "dy", "dw": "dy", "dp": "dy"}, {"dx": "w", "dw": "x"}),
        "scale_forward": affine("x", "w", None),
        "scale_vjp": bilinear({"dx": "dy", "dw": "dy"}, {"dx": "w", "dw": "x"}),
        "shift_vjp": bilinear({"dx": "dy", "db": "dy"}),
        "affine_vjp": bilinear(ALL_BY_DY, {"dx": "w", "dw": "x"}),
        "embedding_vjp": bilinear({"dx": "dy", "dw": "dy"}),
        "concat_forward": linear_in("a", "b"),
        "concat_vjp": linear_in("dy"),
        "take_columns_forward": linear_in("x"),
        "take_columns_vjp": linear_in("dy"),
        "spread_forward": linear_in("x"),
        "sum_members_forward": linear_in("x"),
        "move_image_forward": linear_in("x"),
        "move_image_vjp": linear_in("dy"),
        "mirror_image_forward": linear_in("x"),
        "mirror_image_vjp": linear_in("dy"),
        "contrast_forward": linear_in("x"),
        "contrast_vjp": linear_in("dy"),
        "dropout_forward": by_vjp,
        "dropout_vjp": linear_in("dy"),
        "scheduled_dropout_forward": by_vjp,
        "scheduled_dropout_vjp": linear_in("dy"),
        "alpha_dropout_forward": by_vjp,
        "alpha_dropout_vjp": linear_in("dy"),
        "relu_dropout_forward": by_vjp,
        "rescale_forward": by_vjp,
        "rescale_vjp": linear_in("dy"),
        "interpolate_forward": by_vjp,
        "interpolate_vjp": linear_in("dy"),
        "one_hot_vjp": linear_in("dy"),
        "piecewise_vjp": linear_in("dy"),
        "spread_labels_forward": still,
        "decision_forward": still,
    }
)


@rule("angles_forward")
def of_angles(moves: Moves, step: Step) -> None:
    """ẏ = 2π·(ẋ_i·w_ik + x_i·ẇ_ik) + ṗ, from which no whole turns are taken off."""
    arguments = moves.arguments(step)
    x, y, w, p = (arguments[name] for name in ("x", "y", "w", "p"))
    moved, of_w, of_p = moves.of(x), moves.of(w), moves.of(p)
    inputs, waves = (int(d) for d in w.shape)
    width, inner = int(y.shape[1]), inputs * waves
    node, total = Node(scale, {}, {"N": inner}, times=y.times), None
    for numbers, frequencies in ((moved, w), (x, of_w)):
        if numbers is not None and frequencies is not None:
            part = Tensor((ROWS, inner), times=y.times)
            each = moves.columns(numbers, np.repeat(np.arange(inputs), waves))
            moves.emit(node, "forward", y=part, x=each, w=frequencies)
            total = moves.sum(total, part)
    if total is not None:
        # The columns of an input are its waves, for one phase after the other.
        places = np.arange(inner).reshape(inputs, 1, waves)
        places = np.broadcast_to(places, (inputs, width // inner, waves))
        total = moves.columns(moves.scaled(total, 2 * math.pi), places.ravel())
    if of_p is not None:
        total = moves.apply(shift_op, x=moves.nothing(y) if total is None else total, b=of_p)
    moves.put(y, total)


@rule("add_forward")
def total(moves: Moves, step: Step) -> None:
    """ẏ = ȧ + ḃ."""
    arguments = moves.arguments(step)
    moves.put(arguments["y"], moves.sum(*(moves.of(arguments[name]) for name in ("a", "b"))))


@rule("shift_forward")
def shift(moves: Moves, step: Step) -> None:
    """ẏ = ẋ + ḃ."""
    arguments = moves.arguments(step)
    moved, of_bias = moves.of(arguments["x"]), moves.of(arguments["b"])
    if of_bias is not None:
        made = moves.like(arguments["y"])
        moved = moves.nothing(arguments["x"]) if moved is None else moved
        moves.again(step, y=made, x=moved, b=of_bias)
        moved = made
    moves.put(arguments["y"], moved)


@rule("affine_forward")
def scale_and_shift(moves: Moves, step: Step) -> None:
    """ẏ = ẋ·w + ḃ + x·ẇ."""
    arguments = moves.arguments(step)
    x, w, b = (moves.of(arguments[name]) for name in ("x", "w", "b"))
    found = None
    if x is not None or b is not None:
        made = moves.like(arguments["y"])
        moved = moves.nothing(arguments["x"]) if x is None else x
        if b is None:
            made = moves.apply(scale, x=moved, w=arguments["w"])
        else:
            moves.again(step, y=made, x=moved, b=b)
        found = made
    if w is not None:
        found = moves.sum(found, moves.apply(scale, x=arguments["x"], w=w))
    moves.put(arguments["y"], found)


@rule("multiply_forward")
def product(moves: Moves, step: Step) -> None:
    """ẏ = ȧ·b + a·ḃ."""
    arguments = moves.arguments(step)
    a, b = arguments["a"], arguments["b"]
    da, db = moves.of(a), moves.of(b)
    left = None if da is None else moves.product(da, b)
    right = None if db is None else moves.product(a, db)
    moves.put(arguments["y"], moves.sum(left, right))
