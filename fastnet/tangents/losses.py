"""The rules of losses: the tangent of the gradient with respect to the output.

Values of losses have no tangents here, as nothing reads them: a rule of a loss's forward has to know only
what the gradient reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.layers.joining import concat
from fastnet.layers.scale import scale, shift
from fastnet.layers.softmax import softmax
from fastnet.losses.binary import kl_div
from fastnet.losses.cross_entropy import nll
from fastnet.losses.gaussian import gaussian_curve
from fastnet.losses.labels import constant
from fastnet.plan.compiler import Step
from fastnet.plan.graph import Node, Tensor
from fastnet.tangents.rules import RULES, Moves, bilinear, rule, still

STILL = (
    *("weighted_loss_forward", "weighted_loss_vjp", "mean_of_losses_forward", "mean_of_losses_vjp"),
    *("l2_penalty_forward", "nll_forward", "nll_vjp", "mse_forward"),
    *("gaussian_nll_forward", "multi_margin_forward", "one_vs_rest_forward"),
)
RULES.update(dict.fromkeys(STILL, still))
RULES["l2_penalty_vjp"] = bilinear({"dw": "w"})


@rule("softmax_nll_forward", "cross_entropy_forward", "soft_cross_entropy_forward")
def probabilities(moves: Moves, step: Step) -> None:
    """The tangent of p = softmax(z), which the gradient reads."""
    arguments = moves.arguments(step)
    z, p = arguments["z"], arguments["p"]
    moved = moves.of(z)
    if moved is None:
        moves.put(p, None)
        return
    made = moves.like(p)
    node = Node(softmax, {}, {"N": int(p.shape[1])}, times=p.times)
    moves.emit(node, "vjp", dx=made, dy=moved, y=p)
    moves.put(p, made)


@rule("softmax_nll_vjp")
def of_softmax_nll(moves: Moves, step: Step) -> None:
    """dz = (p − onehot(t))/n is computed linearly in p: at the label as −Σ of the others."""
    arguments = moves.arguments(step)
    out, moved = arguments["dz"], moves.of(arguments["p"])
    made = None
    if moved is not None:
        made = moves.like(out)
        moves.again(step, dz=made, p=moved)
    moves.put(out, made)


@rule("mse_vjp")
def of_mse(moves: Moves, step: Step) -> None:
    """dy = 2·(y − t)/(n·k): with ẏ and 0 in place of y and t."""
    arguments = moves.arguments(step)
    out, moved = arguments["dy"], moves.of(arguments["y"])
    made = None
    if moved is not None:
        made = moves.like(out)
        moves.again(step, dy=made, y=moved, t=moves.nothing(moved))
    moves.put(out, made)


@rule("cross_entropy_vjp")
def of_cross_entropy(moves: Moves, step: Step) -> None:
    """dz = d·(p·Σq − q), of which d·Σq·ṗ moves, d = drow_loss.

    d·Σq = d·v_t·(1 − s) + d·(s/C)·Σv, both 0 for ignored rows: the sums of rows of the gradients of nll.
    """
    arguments, numbers = moves.arguments(step), step.node.arguments
    out, p, t = (arguments[name] for name in ("dz", "p", "t"))
    moved = moves.of(p)
    if moved is None:
        moves.put(out, None)
        return
    v, smoothing, width = arguments["v"], float(numbers["smoothing"]), int(p.shape[1])

    def shares(weights: Any, factor: float) -> Tensor:
        made = moves.like(p)
        given = {"v": weights, "ignored": numbers["ignored"]}
        node = Node(nll, given, {"C": width}, times=p.times)
        operands = {"dy": made, "drow_loss": arguments["drow_loss"], "t": t}
        moves.emit(node, "vjp", **operands)
        return moves.row_sum(made, -factor)

    total = shares(v, 1 - smoothing)
    if smoothing:
        mass = float(v.compute().sum()) if v is not None else width
        more = moves.sum(total, shares(None, smoothing * mass / width))
        assert more is not None
        total = more
    moves.put(out, moves.product(moved, moves.repeated(total, out)))


@rule("soft_cross_entropy_vjp")
def of_soft_cross_entropy(moves: Moves, step: Step) -> None:
    """dz = d·(p·Σq − q) with q_c = v_c·((1 − s)·t_c + s/C), of which d·Σq·ṗ moves."""
    arguments, numbers = moves.arguments(step), step.node.arguments
    out, p, t, v = (arguments[name] for name in ("dz", "p", "t", "v"))
    moved = moves.of(p)
    if moved is None:
        moves.put(out, None)
        return
    smoothing, width = float(numbers["smoothing"]), int(p.shape[1])
    q = moves.scaled(t, 1 - smoothing)
    if smoothing:
        q = moves.apply(shift, x=q, b=constant(np.full(width, smoothing / width)))
    if v is not None:
        q = moves.apply(scale, x=q, w=v)
    shared = moves.product(moved, moves.repeated(moves.row_sum(q), out))
    moves.put(out, by_row_losses(moves, shared, arguments["drow_loss"]))


@rule("gaussian_nll_vjp")
def of_gaussian_nll(moves: Moves, step: Step) -> None:
    """By `gaussian_curve`, for the columns of the means and those of the variances."""
    arguments, numbers = moves.arguments(step), step.node.arguments
    out, y, t = (arguments[name] for name in ("dy", "y", "t"))
    moved = moves.of(y)
    if moved is None:
        moves.put(out, None)
        return
    half = int(y.shape[1]) // 2
    parts = range(half), range(half, 2 * half)
    given = {"t": t, "eps": numbers["eps"]}
    for name, tensor in (("", y), ("t", moved)):
        for what, places in zip(("mean", "variance"), parts, strict=True):
            given[name + what] = moves.columns(tensor, places)
    of_mean = moves.apply(gaussian_curve, **given)
    of_variance = moves.steps[-1].arguments["of_variance"]
    both = moves.apply(concat, a=of_mean, b=of_variance)
    drow_loss, divisor = arguments["drow_loss"], float(numbers["divisor"])
    moves.put(out, by_row_losses(moves, both, drow_loss, divisor))


def by_row_losses(moves: Moves, x: Tensor, drow_loss: Tensor, divisor: float = 1.0) -> Tensor:
    """x·d/divisor, where d is the gradient of each row's loss: that of kl_div with targets x is −x·d."""
    made = moves.like(x)
    node = Node(kl_div, {"divisor": -divisor}, {"N": int(x.shape[1])}, times=x.times)
    operands = {"dy": made, "drow_loss": drow_loss, "y": x, "t": x}
    moves.emit(node, "vjp", **operands)
    return made
