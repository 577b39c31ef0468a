"""Formulas: what their language takes and refuses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fastnet.formulas import language
from fastnet.formulas.language import PRIMITIVES, Real, is_tiny, sqrt, where
from fastnet.formulas.portable import horner
from fastnet.formulas.translate import Translator

HERE = Path(__file__).parent
HALF = 0.5


def text(function, numbers=()):
    return Translator({name: name for name in PRIMITIVES}).text(function, "R", numbers)


@language.formula
def squared(x: Real) -> Real:
    return x * x


def test_numbers_are_computed_in_float64_and_rounded_once():
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
    def f(x):
        return horner(COEFFICIENTS, x)

    assert text(f).results == ["madd(madd(R(2.0), x, R(0.5)), x, R(1.0))"]
    assert f(np.array([3.0])) == 2 * 9 + 0.5 * 3 + 1


def loop(x):
    for _ in range(3):
        x = x + 1
    return x


def twice(x):
    y = x
    y = y + 1
    return y * y


def nothing(x):
    x + 1


REFUSED = {
    "a loop": loop,
    "a name twice": twice,
    "no result": nothing,
    "a power": lambda x: x**2,
    "a function that is no formula": lambda x: math.sin(x),
    "a method": lambda x: x.sum(),
    "a function of numbers alone": lambda x: x * sqrt(2.0),
    "a choice between numbers": lambda x: x * where(x > 0, 1, 2),
    "a choice without a condition": lambda x: where(x, x, 0),
    "a condition as a result": lambda x: x > 0,
    "arithmetic of conditions": lambda x: where((x > 0) + is_tiny(x), x, 0),
    "logic of elements": lambda x: x & x,
    "a chain of comparisons": lambda x: where(0 < x < 1, x, 0),
    "an unknown name": lambda x: x + HERE,
    "a keyword": lambda x: squared(x=x),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_part_of_the_language_is_refused(what, monkeypatch):
    function = REFUSED[what]
    if function.__name__ == "<lambda>":  # its source, as a function of its own
        source = next(
            line for line in Path(__file__).read_text().splitlines() if f'"{what}"' in line
        )
        body = source.partition("lambda x: ")[2].rstrip(",")
        monkeypatch.setattr("inspect.getsource", lambda _: f"def f(x):\n    return {body}\n")
    with pytest.raises(TypeError, match="formula"):
        text(function)


def test_primitives_are_exact_where_they_must_be():
    x = np.array([-np.inf, -1e-40, -0.0, 0.0, 1e-40, 3.0, np.inf, np.nan], np.float32)
    assert language.erf(x).dtype == np.float32
    np.testing.assert_array_equal(language.erf(x[[0, 2, 3, 6]]), [-1, 0, 0, 1])
    np.testing.assert_array_equal(is_tiny(x), [False, True, True, True, True, False, False, False])
