"""The rules of normalisations, whose Jacobians without gamma and beta are symmetric.

Where gamma and beta are there, `expand` has made them an op of their own.
"""

from __future__ import annotations

from collections.abc import Callable

from fastnet.layers.scale import scale
from fastnet.plan.compiler import Step
from fastnet.plan.graph import Node, Tensor
from fastnet.tangents.rules import RULES, Moves, by_vjp, rule, seen_as

RULES["batchnorm_forward"] = by_vjp
RULES["layernorm_forward"] = by_vjp
RULES["rmsnorm_forward"] = by_vjp


@rule("layernorm_vjp", "rmsnorm_vjp")
def of_rows(moves: Moves, step: Step) -> None:
    """By `_curved`, with the means of rows."""
    arguments = moves.arguments(step)
    out, rstd = arguments["dx"], arguments["rstd"]

    def part(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        mean = moves.row_sum(moves.product(a, b), -1 / int(out.shape[1]))
        by = moves.product(moves.repeated(mean, out), moves.repeated(rstd, out))
        return moves.product(by, c)

    _curved(moves, step, part)


@rule("batchnorm_vjp")
def of_columns(moves: Moves, step: Step) -> None:
    """By `_curved`, with the means of columns, of which a plan knows the number of rows."""
    rows, rstd = moves.compiler.max_rows * step.node.times, moves.arguments(step)["rstd"]

    def part(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        width = {"N": int(c.shape[1])}
        node = Node(scale, {}, width, times=c.times)
        sums = Tensor((width["N"],))
        operands = {"dx": None, "dy": a, "dw": sums, "x": b, "w": rstd}
        moves.emit(node, "vjp", **operands)
        by = moves.apply(scale, x=moves.scaled(c, -1 / rows), w=rstd)
        return moves.apply(scale, x=by, w=sums)

    _curved(moves, step, part)


def _curved(moves: Moves, step: Step, part: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """The tangent of dx = V(dy) = r·(dy − m(dy) − x̂·m(dy·x̂)), in rmsnorm without m(dy).

    It is V(dẏ) − r·(m(x̂·ẋ)·dx + m(dy·x̂)·V(ẋ) + m(dy·V(ẋ))·x̂), since the tangent of x̂ is V(ẋ) and that of
    r = rstd is −r²·m(x̂·ẋ). part: −r·m(a·b)·c of a, b and c.
    """
    arguments = moves.arguments(step)
    out, dy, x = (arguments[name] for name in ("dx", "dy", "x"))
    if out is None:
        return
    along, moved = moves.of(dy), moves.of(x)
    found: Tensor | None = None
    if along is not None:
        found = moves.like(out)
        moves.again(step, dx=found, dy=along)
    if moved is not None:
        xhat = seen_as(step.node.arguments["y"], out)
        of_xhat, dx = moves.like(out), moves.like(out)
        moves.again(step, dx=of_xhat, dy=moved)
        moves.again(step, dx=dx)
        for a, b, c in ((xhat, moved, dx), (dy, xhat, of_xhat), (dy, of_xhat, xhat)):
            found = moves.sum(found, part(a, b, c))
    moves.put(out, found)
