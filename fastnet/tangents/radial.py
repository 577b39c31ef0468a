"""The rules of Gaussian bumps, by differences of inputs and centres, which are right for far ones too."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.layers.joining import concat
from fastnet.layers.radial import gaussian_basis, gaussian_slope
from fastnet.layers.scale import scale
from fastnet.losses.labels import constant
from fastnet.op import Array
from fastnet.parameter import Derived, Parameter
from fastnet.plan.compiler import Step
from fastnet.plan.graph import Node, Tensor
from fastnet.tangents.rules import Moves, rule


def _power(sigma: Parameter, factor: float, power: int) -> Derived:
    """factor/σ^power."""

    def compute() -> Array:
        return np.asarray(factor / np.asarray(sigma.value, np.float64) ** power)

    return Derived(sigma.shape, compute)


@rule("gaussian_basis_forward")
def of_bumps(moves: Moves, step: Step) -> None:
    """ḋ = 2·Σ_i (x_i − μ_i)·(ẋ_i − μ̇_i) and ẏ = y·(d·σ̇/σ³ − ḋ/(2σ²))."""
    arguments = moves.arguments(step)
    x, y, d, mu, sigma = (arguments[name] for name in ("x", "y", "d", "mu", "sigma"))
    moved, of_mu, of_sigma = moves.of(x), moves.of(mu), moves.of(sigma)
    of_d = rate = None
    if moved is not None or of_mu is not None:
        half = moves.apply(gaussian_slope, x=x, mu=mu, u=moved, nu=of_mu)
        of_d = moves.scaled(half, 2.0)
        rate = moves.apply(scale, x=half, w=_power(sigma, -1.0, 2))
    if of_sigma is not None:
        widened = moves.apply(scale, x=d, w=of_sigma)
        rate = moves.sum(rate, moves.apply(scale, x=widened, w=_power(sigma, 1.0, 3)))
    moves.put(d, of_d)
    found = None
    if rate is not None:
        found = moves.product(moves.columns(y, range(int(d.shape[1]))), rate)
        if y.shape != d.shape:  # a column of ones follows
            found = moves.apply(concat, a=found, b=moves.nothing(moves.columns(found, [0])))
    moves.put(y, found)


@rule("gaussian_basis_vjp")
def of_slopes(moves: Moves, step: Step) -> None:
    """The vjp V is linear in g = dy·y and in x − μ, and for the widths in d, which take turns.

    With G = dẏ·y + dy·ẏ − 2g·σ̇/σ it is V of G, plus V of g with ẋ, μ̇ and ḋ − d·σ̇/σ in place of x, μ and d.
    """
    arguments = moves.arguments(step)
    names = "dy", "y", "d", "x", "mu", "sigma"
    dy, y, d, x, mu, sigma = (arguments[name] for name in names)
    along, moved, of_mu, of_sigma = (moves.of(o) for o in (dy, x, mu, sigma))
    of_y, of_d = moves.of(y), moves.of(d)
    written = {name: arguments[name] for name in ("dx", "dmu", "dsigma")}
    bumps = range(int(d.shape[1]))
    sizes = {**step.node.sizes, "M": len(bumps)}
    node = Node(gaussian_basis, {"sigma": sigma}, sizes, times=step.node.times)
    dy, y = moves.columns(dy, bumps), moves.columns(y, bumps)
    found: Tensor | None = None

    def add(wanted: tuple[str, ...], **operands: Any) -> None:
        """Emit a vjp for those gradients that are wanted, and add what it makes."""
        nonlocal found
        into = {n: o if n in wanted else None for n, o in written.items()}
        if isinstance(into["dx"], Tensor):
            into["dx"] = moves.like(into["dx"])
        if any(o is not None for o in into.values()):
            moves.emit(node, "vjp", **into, **operands)
            found = moves.sum(found, into["dx"])

    total: Tensor | None = None
    if along is not None:
        total = moves.product(moves.columns(along, bumps), y)
    if of_y is not None:
        total = moves.sum(total, moves.product(dy, moves.columns(of_y, bumps)))
    if of_sigma is not None:
        narrowed = moves.apply(scale, x=moves.product(dy, y), w=of_sigma)
        total = moves.sum(total, moves.apply(scale, x=narrowed, w=_power(sigma, -2.0, 1)))
    if total is not None:
        add(tuple(written), dy=total, y=moves.filled(y, 1.0), d=d, x=x, mu=mu)
    if moved is not None or of_mu is not None or of_sigma is not None:
        change = of_d
        if of_sigma is not None:
            widened = moves.apply(scale, x=d, w=of_sigma)
            change = moves.sum(change, moves.apply(scale, x=widened, w=_power(sigma, -1.0, 1)))
        along_x = moves.nothing(x) if moved is None else moved
        along_mu = constant(np.zeros(mu.shape)) if of_mu is None else of_mu
        wanted = tuple(written) if moved is not None or of_mu is not None else ("dsigma",)
        add(wanted, dy=dy, y=y, d=change, x=along_x, mu=along_mu)
    if isinstance(written["dx"], Tensor):
        moves.put(written["dx"], found)
