"""Parts that all update rules share.

w is a parameter, g its gradient. The other vectors of a rule start at zero unless the optimizer says
otherwise. Numbers may change from step to step. Every rule adds weight_decay·w to the gradient and
replaces w by shrink·w first; at most one of these has an effect.

A decaying vector would end at a subnormal number that rounding keeps constant, and most processors are slow
on subnormal numbers. So a velocity or first moment below the smallest normal number ε₀ becomes 0, and a
second moment below ε₀ does once its increment is below ε₀ too. That changes a step by less than ε₀·lr (for
Adam and its relatives, ε₀·lr/eps).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from fastnet.formulas.language import Real, formula, is_tiny, madd, where
from fastnet.op import Op

ALONG = {"N": 1, "I": 1, "O": 1}  # the dims over parameters, here those of a single element


@formula
def larger(a: Real, b: Real) -> Real:
    """The larger one, or NaN where either is NaN."""
    return where((a > b) | (a != a), a, b)


@formula
def settled(v: Real) -> Real:
    """A decayed value: v, or 0 where v is tiny."""
    return where(is_tiny(v), 0, v)


@formula
def settled_with(v: Real, mover: Real) -> Real:
    """The same for a second moment; `mover` must be tiny too, because the root of v scales a step."""
    return where(is_tiny(v) & is_tiny(mover), 0, v)


@formula
def mean(m: Real, d: Real, beta: float) -> Real:
    """The moving average β·m + (1 − β)·d."""
    return madd(1.0 - beta, d, beta * m)


@formula
def mean_square(v: Real, d: Real, beta: float) -> Real:
    """The moving average of squares, β·v + (1 − β)·d²."""
    return madd((1.0 - beta) * d, d, beta * v)


class Rule(Op):
    """Base of all rules: they update w, and vectors of its length, from the gradient g."""

    inputs: ClassVar = {"g": "N"}
    dims: ClassVar[tuple[str, ...]] = ("N",)


def vectors_of(rule: type[Op]) -> set[str]:
    """The names of the vectors that a rule keeps beside w."""
    return rule.state.keys() - {"w"}


def width_of(op: type[Op], name: str, sizes: Mapping[str, int]) -> int:
    """The numbers that a tensor has for each element of the parameters; 0 where it is one for all of them.

    sizes: the dims of the op besides those that the parameters give.
    """
    if ALONG.keys().isdisjoint(op.tensors[name].dims):
        return 0
    return math.prod(map(int, op.shape(name, {**ALONG, **sizes})))


def family_vectors(rule: type[Op]) -> set[str]:
    """The vectors of all rules in its file; an optimizer's hyper-parameters choose among these rules."""
    family = [rule, *(r for r in Rule.__subclasses__() if r.__module__ == rule.__module__)]
    return set().union(*map(vectors_of, family))
