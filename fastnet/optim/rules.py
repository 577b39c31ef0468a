"""What all update rules share.

w is a parameter, g its gradient; the other vectors of a rule start at zero where the optimizer does not say
otherwise. Numbers may change from step to step. Every rule adds weight_decay·w to the gradient and
begins with shrink·w in place of w; of these at most one has an effect.

What decays would end at a denormal number that rounding keeps where it is, and each step with it is
slow on most processors. So a velocity or first moment below the smallest normal number ε₀ becomes 0, and a
second moment below ε₀ once what moves it is so small too. That alters a step by less than ε₀·lr (of Adam
and its like, ε₀·lr/eps).
"""

from __future__ import annotations

from typing import ClassVar

from fastnet.formulas.language import Real, formula, is_tiny, madd, where
from fastnet.op import Op


@formula
def larger(a: Real, b: Real) -> Real:
    """The greater one, or NaN where either is."""
    return where((a > b) | (a != a), a, b)


@formula
def settled(v: Real) -> Real:
    """What has decayed: v, or 0 where that is tiny."""
    return where(is_tiny(v), 0, v)


@formula
def settled_with(v: Real, mover: Real) -> Real:
    """The same of a second moment; what moves it must be tiny too, as its root scales a step."""
    return where(is_tiny(v) & is_tiny(mover), 0, v)


@formula
def mean(m: Real, d: Real, beta: float) -> Real:
    """The moving mean β·m + (1 − β)·d."""
    return madd(1.0 - beta, d, beta * m)


@formula
def mean_square(v: Real, d: Real, beta: float) -> Real:
    """The same of squares, β·v + (1 − β)·d²."""
    return madd((1.0 - beta) * d, d, beta * v)


class Rule(Op):
    """Base of all rules: an update of w and of vectors as long as it, from the gradient g."""

    inputs: ClassVar = {"g": "N"}
    dims = ("N",)


def vectors_of(rule: type[Op]) -> set[str]:
    """The names of the vectors that a rule keeps beside w."""
    return rule.state.keys() - {"w"}


def family_vectors(rule: type[Op]) -> set[str]:
    """Those of all rules of its file, between which the hyper-parameters of an optimizer choose."""
    family = [rule, *(r for r in Rule.__subclasses__() if r.__module__ == rule.__module__)]
    return set().union(*map(vectors_of, family))
