"""The rules of hinge losses: squared ones are curved where an output is short, others nowhere."""

from __future__ import annotations

from typing import Any

from fastnet.losses.cross_entropy import nll
from fastnet.losses.regression import absolute_error
from fastnet.plan.compiler import Step
from fastnet.plan.graph import Node, Tensor
from fastnet.tangents.rules import Moves, rule


def _flat(moves: Moves, step: Step) -> bool:
    """Whether the gradient does not move; then it is known that it does not."""
    arguments = moves.arguments(step)
    flat = moves.of(arguments["y"]) is None or float(step.node.arguments["power"]) < 2
    if flat:
        moves.put(arguments["dy"], None)
    return flat


def _of_power_1(moves: Moves, step: Step, numbers: dict[str, Any], **operands: Any) -> Tensor:
    """The vjp with other numbers, of the hinge that is not squared."""
    like = moves.arguments(step)["dy"]
    made = moves.like(like)
    given = {**step.node.arguments, "power": 1.0, **numbers}
    node = Node(step.node.op, given, step.node.sizes, times=step.node.times)
    moves.emit(node, "vjp", **{**step.arguments, "dy": made, **operands})
    return made


def _ones_of_rows(moves: Moves, y: Tensor) -> Tensor:
    """1 for each row, as losses of rows: float64."""
    one, none = moves.filled(y, 1.0), moves.nothing(y)
    return moves.apply(absolute_error, y=one, t=none, divisor=float(int(y.shape[1])))


@rule("one_vs_rest_vjp")
def of_one_vs_rest(moves: Moves, step: Step) -> None:
    """2·share·ẏ_j where output j is short: −s_j·share of power 1, times −s_j, times 2·ẏ_j."""
    if _flat(moves, step):
        return
    arguments = moves.arguments(step)
    out, y = arguments["dy"], arguments["y"]
    shares = _of_power_1(moves, step, {})
    rows = _ones_of_rows(moves, y)
    everywhere = {"margin": 1.0, "divisor": 1.0}
    signs = _of_power_1(moves, step, everywhere, y=moves.nothing(y), v=None, drow_loss=rows)
    moved = moves.scaled(moves.of(y), 2.0)
    moves.put(out, moves.product(moves.product(shares, signs), moved))


@rule("multi_margin_vjp")
def of_multi_margin(moves: Moves, step: Step) -> None:
    """2·m_j·(ẏ_j − ẏ_t) for j ≠ t, and minus their sum at t, where m is the gradient of power 1."""
    if _flat(moves, step):
        return
    arguments = moves.arguments(step)
    out, y, t = (arguments[name] for name in ("dy", "y", "t"))
    moved = moves.of(y)
    shares = _of_power_1(moves, step, {})
    label = moves.like(out)  # −1 at the label, else 0
    node = Node(nll, {"ignored": -1.0}, {"C": int(y.shape[1])}, times=y.times)
    moves.emit(node, "vjp", dy=label, drow_loss=_ones_of_rows(moves, y), t=t)
    at_label = moves.repeated(moves.row_sum(moves.product(label, moved)), out)  # −ẏ_t
    ahead = moves.sum(moved, at_label)
    assert ahead is not None
    others = moves.product(shares, moves.scaled(ahead, 2.0))
    total = moves.repeated(moves.row_sum(others), out)
    moves.put(out, moves.sum(others, moves.product(label, total)))
