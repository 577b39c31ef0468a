"""Formulas: what their language takes and refuses."""

from __future__ import annotations

import ast
import copy
import math

import numpy as np
import pytest

from fastnet.formulas import language
from fastnet.formulas.language import PRIMITIVES, Formula, Real, is_tiny, where
from fastnet.formulas.portable import horner
from fastnet.formulas.translate import Translator

HALF = 0.5


def text(formula, numbers=()):
    return Translator({name: name for name in PRIMITIVES}).text(formula, "R", numbers)


@language.formula
def squared(x: Real) -> Real:
    return x * x


NAMES = {**vars(language), "math": math, "squared": squared, "HALF": HALF}


def test_numbers_are_computed_in_float64_and_rounded_once():
    @language.formula
    def f(x, a, b):
        """Not part of it."""
        scale = 1 - a
        return x * (scale * b) + HALF, where((x > a) & ~(x == 2), -x, 0), squared(x) / 3

    found = text(f, ("a", "b"))
    assert found.assignments == [("scale", "1.0 - a", "number")]
    assert found.results == [
        "x * R(scale * b) + R(0.5)",
        "where((x > R(a)) & ((x == R(2.0)) == 0), -x, R(0.0))",
        "squared(x) / R(3.0)",
    ]


COEFFICIENTS = (2.0, 0.5, 1.0)


def test_polynomials_are_written_out():
    @language.formula
    def f(x):
        return horner(COEFFICIENTS, x)

    assert text(f).results == ["madd(madd(R(2.0), x, R(0.5)), x, R(1.0))"]
    assert f(np.array([3.0])) == 2 * 9 + 0.5 * 3 + 1


REFUSED = {
    "a loop": "for _ in range(3):\n  x = x + 1\n return x",
    "a name twice": "y = x\n y = y + 1\n return y * y",
    "no result": "x + 1",
    "a power": "return x**2",
    "a function that is no formula": "return math.sin(x)",
    "a method": "return x.sum()",
    "a function of numbers alone": "return x * sqrt(2.0)",
    "a choice between numbers": "return x * where(x > 0, 1, 2)",
    "a choice without a condition": "return where(x, x, 0)",
    "a condition as a result": "return x > 0",
    "arithmetic of conditions": "return where((x > 0) + is_tiny(x), x, 0)",
    "logic of elements": "return x & x",
    "a chain of comparisons": "return where(0 < x < 1, x, 0)",
    "an unknown name": "return x + math",
    "a keyword": "return squared(x=x)",
}


def definition(text):
    (tree,) = ast.parse(text).body
    return tree


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_part_of_the_language_is_refused(what):
    with pytest.raises(TypeError, match="formula f: "):
        text(Formula.of(definition(f"def f(x):\n {REFUSED[what]}"), NAMES))


def test_the_tree_of_a_function_is_its_definition():
    assert ast.unparse(squared.tree) == "def squared(x: Real) -> Real:\n    return x * x"


def test_a_formula_can_be_made_of_a_tree_and_of_one_that_was_changed():
    made = Formula.of(definition("def f(x):\n y = 2 * x\n return squared(y) - HALF"), NAMES)
    assert (made(3.0), text(made).results) == (35.5, ["squared(y) - R(0.5)"])
    tree = copy.deepcopy(squared.tree)
    tree.body[-1].value.op = ast.Add()
    doubled = Formula.of(tree, NAMES)
    assert (doubled(3.0), text(doubled).results) == (6.0, ["x + x"])


def test_primitives_are_exact_where_they_must_be():
    x = np.array([-np.inf, -1e-40, -0.0, 0.0, 1e-40, 3.0, np.inf, np.nan], np.float32)
    assert language.erf(x).dtype == np.float32
    np.testing.assert_array_equal(language.erf(x[[0, 2, 3, 6]]), [-1, 0, 0, 1])
    np.testing.assert_array_equal(is_tiny(x), [False, True, True, True, True, False, False, False])
