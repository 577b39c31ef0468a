"""The rules of softmax and its relatives."""

from __future__ import annotations

from fastnet.layers.members import spread, sum_members
from fastnet.layers.softmax import softmax
from fastnet.plan.compiler import Step
from fastnet.plan.graph import Tensor
from fastnet.tangents.rules import RULES, Moves, by_vjp, rule, seen_as

RULES["softmax_forward"] = by_vjp


@rule("softmax_vjp")
def of_softmax(moves: Moves, step: Step) -> None:
    """With s = Σ y·dy, dx = y·(dy − s): the tangent is V(dẏ) + ẏ·(dy − s) − y·Σ ẏ·dy."""
    arguments = moves.arguments(step)
    out, dy, y = (arguments[name] for name in ("dx", "dy", "y"))
    along, moved = moves.of(dy), moves.of(y)
    found: Tensor | None = None
    if along is not None:
        found = moves.like(out)
        moves.again(step, dx=found, dy=along)
    if moved is not None:
        mean = moves.row_sum(moves.product(y, dy), -1.0)
        centred = moves.sum(dy, moves.repeated(mean, out))
        assert centred is not None
        found = moves.sum(found, moves.product(moved, centred))
        other = moves.row_sum(moves.product(moved, dy), -1.0)
        found = moves.sum(found, moves.product(y, moves.repeated(other, out)))
    moves.put(out, found)


@rule("log_softmax_forward")
def of_log_softmax(moves: Moves, step: Step) -> None:
    """ẏ = ẋ − Σ p·ẋ with p = softmax(x)."""
    arguments = moves.arguments(step)
    x, y = arguments["x"], arguments["y"]
    moved = moves.of(x)
    if moved is not None:
        p = moves.apply(softmax, x=y)  # of x, as they differ by a number for each row
        mean = moves.row_sum(moves.product(p, moved), -1.0)
        moved = moves.sum(moved, moves.repeated(mean, y))
    moves.put(y, moved)


@rule("log_softmax_vjp")
def of_its_vjp(moves: Moves, step: Step) -> None:
    """dx = dy − eʸ·Σ dy: the tangent is V(dẏ) − eʸ·ẏ·Σ dy."""
    arguments = moves.arguments(step)
    out, dy, y = (arguments[name] for name in ("dx", "dy", "y"))
    along, moved = moves.of(dy), moves.of(y)
    found: Tensor | None = None
    if along is not None:
        found = moves.like(out)
        moves.again(step, dx=found, dy=along)
    if moved is not None:
        p = moves.apply(softmax, x=y)
        total = moves.repeated(moves.row_sum(dy, -1.0), out)
        found = moves.sum(found, moves.product(moves.product(p, moved), total))
    moves.put(out, found)


@rule("log_mean_exp_forward")
def of_log_mean_exp(moves: Moves, step: Step) -> None:
    """ẏ = Σ q_n·ẋ_n with q_n = e^(x_n − y)/N, the vjp of ones."""
    arguments = moves.arguments(step)
    x, y = arguments["x"], arguments["y"]
    moved, made = moves.of(x), None
    if moved is not None:
        shares = moves.like(x)
        moves.emit(step.node, "vjp", dx=shares, dy=moves.filled(y, 1.0))
        weighed = seen_as(moves.product(shares, moved), x)
        made = moves.apply(sum_members, x=weighed, factor=1.0)
    moves.put(y, made)


@rule("log_mean_exp_vjp")
def of_shares(moves: Moves, step: Step) -> None:
    """dx_n = dy·q_n: the tangent is V(dẏ) + dx_n·(ẋ_n − ẏ)."""
    arguments = moves.arguments(step)
    out, dy, x, y = (arguments[name] for name in ("dx", "dy", "x", "y"))
    along, moved, of_y = moves.of(dy), moves.of(x), moves.of(y)
    found: Tensor | None = None
    if along is not None:
        found = moves.like(out)
        moves.again(step, dx=found, dy=along)
    if moved is not None:
        assert of_y is not None
        dx = moves.like(out)
        moves.again(step, dx=dx)
        members = int(x.shape[1])
        mean = moves.apply(spread, x=moves.scaled(of_y, -1.0), N=members, factor=1.0)
        centred = moves.sum(moved, mean)
        assert centred is not None
        found = moves.sum(found, moves.product(dx, centred))
    moves.put(out, found)
