"""Formulas: what their language takes and refuses."""

from __future__ import annotations

import ast
import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest

from fastnet.formulas import language
from fastnet.formulas.language import PRIMITIVES, Formula, Numbers, Real, is_tiny, where
from fastnet.formulas.portable import horner
from fastnet.formulas.translate import Translator
from fastnet.op import Op

HALF = 0.5


def text(formula, numbers=()):
    return Translator({name: name for name in PRIMITIVES}).text(formula, "R", numbers)


@language.formula
def squared(x: Real) -> Real:
    return x * x


@language.formula
def spread(x: Real, scale: float, n: Numbers) -> tuple[Real, Real, Real]:
    d = n.rate * x
    low = d - scale * HALF
    return d, squared(low), low


@language.formula
def scaled(x: Real, by: float) -> Real:
    return x * (1 - by)


FUNCTIONS = {f.function.__name__: f for f in (squared, spread, scaled)}
NAMES = {**vars(language), **FUNCTIONS, "math": math, "HALF": HALF}


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


def test_a_formula_of_several_values_is_written_out_where_it_is_called():
    @language.formula
    def f(x: Real, a: float, n: Numbers) -> tuple[Real, Real]:
        low, square, _ = spread(x / 2, a - 1, n)
        d = low + square
        return d, scaled(d, n.rate)

    found = text(f.with_record(("rate", "other")), ("a", "rate", "other"))
    assert found.assignments == [
        ("x1", "x / R(2.0)", "element"),
        ("scale", "a - 1.0", "number"),
        ("d", "R(rate) * x1", "element"),
        ("low", "d - R(scale * 0.5)", "element"),
        ("square", "squared(low)", "element"),
        ("d1", "d + square", "element"),
    ]
    assert found.results == ["d1", "d1 * R(1.0 - rate)"]  # 1 − rate in float64, as the reference
    known = {"x": 3.0, "a": 2.0, "rate": 0.25, "R": float, "squared": squared}
    for name, value, _ in found.assignments:
        known[name] = eval(value, known)
    results = f(3.0, 2.0, SimpleNamespace(rate=0.25))
    assert tuple(eval(value, known) for value in found.results) == results


def test_a_record_holds_the_numbers_that_the_op_declares():
    f = language.each(lambda x, n: x * n.lr)
    assert f.with_record(("lr", "eps")).arguments == ("x", "lr", "eps")
    with pytest.raises(TypeError, match="does not fit its declaration"):
        type("no_numbers", (Op,), {"state": {"w": "N"}, "dims": ("N",), "update": f})


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
    "an argument too many": "return squared(x, x)",
    "an argument too few": "return scaled(x)",
    "a record as a number": "return x * n",
    "a copy of a record": "m = n\n return x * m.rate",
    "a number that the record lacks": "return x * n.lr",
    "a number of what is no record": "return x.rate",
    "several values as one": "return x + spread(x, 2, n)",
    "more values than names": "a, b = spread(x, 2, n)\n return a * b",
    "more names than values": "a, b = scaled(x, 2)\n return a * b",
    "values that no formula returns": "a, b = x, x\n return a * b",
    "a name twice among several": "x, a, b = spread(x, 2, n)\n return a",
    "what is no name": "a, n.rate, b = spread(x, 2, n)\n return a",
}


def definition(text):
    (tree,) = ast.parse(text).body
    return tree


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_part_of_the_language_is_refused(what):
    with pytest.raises(TypeError, match="formula f: "):
        text(Formula.of(definition(f"def f(x, n):\n {REFUSED[what]}"), NAMES), ("rate",))


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
