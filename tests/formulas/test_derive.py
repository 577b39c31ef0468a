"""Derivatives of formulas: against those written by hand, against differences, and differentiated again."""

from __future__ import annotations

import ast

import gradcheck
import numpy as np
import pytest

from fastnet.errors import FormulaError
from fastnet.formulas import derive
from fastnet.formulas.derive import derivative, vjp_of
from fastnet.formulas.language import (
    PRIMITIVES,
    Formula,
    Numbers,
    Real,
    each,
    erf,
    exp,
    exp_below_0,
    expm1,
    formula,
    log,
    log1p,
    log1p_exp,
    madd,
    maximum,
    minimum,
    sigmoid,
    sign,
    sqrt,
    tanh,
    where,
)
from fastnet.formulas.portable import horner
from fastnet.layers.pointwise import Elementwise
from fastnet.losses.pointwise import Pointwise
from fastnet.op import KERNELS

OPS = list(dict.fromkeys(k.op for k in KERNELS.values() if k.formula is not None))
# A formula that draws has a hand-written vjp; it says in its docstring what the gradient of noise is.
DRAWS = {"noisy_relu", "gaussian_noise"}
ACTIVATIONS = [
    op for op in OPS if issubclass(op, Elementwise) and op.name not in DRAWS and not op.guest
]
LOSSES = [op for op in OPS if issubclass(op, Pointwise)]
SPECIAL = [-1e30, -800.0, -60.0, -1e-30, 1e-30, 0.5, 60.0, 800.0, 1e30]


def by_name(op):
    return op.name


def given_to(formula, values):
    return [values[name] for name in formula.parameters]


def forward_values(op):
    """Points of every kind, the outputs there, and the op's numbers."""
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(scale=s, size=500) for s in (0.3, 3, 30)] + [SPECIAL])
    numbers = {name: gradcheck.NUMBERS[name] for name in op.scalars}
    forward = op.kernels["forward"].formula
    y = forward(*given_to(forward, {"x": x, **numbers}))
    outputs = dict(zip(op.outputs, y if len(op.outputs) > 1 else [y], strict=True))
    return {"x": x, "dy": random.normal(size=x.shape), **outputs, **numbers}


@pytest.mark.parametrize("op", ACTIVATIONS, ids=by_name)
def test_the_vjp_of_an_activation_is_the_one_written_by_hand(op):
    values = forward_values(op)
    forward, written = op.kernels["forward"].formula, op.kernels["vjp"].formula
    with np.errstate(all="ignore"):
        want = written(*given_to(written, values))
        derived = vjp_of(forward, tuple(op.outputs), "x")
        got = derived(*given_to(derived, values))
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("op", LOSSES, ids=by_name)
def test_the_slope_of_a_loss_is_the_one_written_by_hand(op):
    sizes = gradcheck.named(op, (7,), 60)
    tensors = gradcheck.vjp_operands(op, 60, sizes)
    tensors |= {name: gradcheck.NUMBERS[name] for name in op.scalars}
    want = op.slope(*given_to(op.slope, tensors))
    derived = derivative(op.value, "y")
    got = derived(*given_to(derived, {**tensors, "seed": np.ones(tensors["y"].shape)}))
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


def test_all_formulas_of_ops_are_compared():
    assert len(ACTIVATIONS) >= 18 and len(LOSSES) >= 16
    others = {op.name for op in OPS} - {op.name for op in (*ACTIVATIONS, *LOSSES)}
    forwards = {name for name in others if f"{name}_forward" in KERNELS}
    formulas = {n for n in forwards if KERNELS[f"{n}_forward"].formula is not None}
    assert {
        n for n in formulas if f"{n}_vjp" in KERNELS
    } == DRAWS  # sums and products have adjoints


COEFFICIENTS, HALF = (0.5, -1.5, 2.0, 0.25), 0.5


@formula
def squared(x: Real) -> Real:
    return x * x


@formula
def both(x: Real, by: float) -> tuple[Real, Real]:
    t = tanh(by * x)
    return t, squared(t) + HALF


@each
def everything(x: Real, u: Real, a: float) -> Real:
    """One of each kind of what the language has."""
    t, s = both(x, a)
    series = horner(COEFFICIENTS, t)
    root = sqrt(s + 1)
    logs = log(s) + log1p(s) + log1p_exp(-s) / (2 + u)
    bells = exp_below_0(-s) * expm1(t) - exp(0.1 * x) + erf(u * t)
    kinks = abs(x - 5) + maximum(x, -4) + minimum(x, 4) + sign(x)
    return where((x > 3) & ~(u < 0), madd(series, bells, logs), kinks / root) + sigmoid(x) * -u


def differences(f, at, h=1e-5):
    return (f(at + h) - f(at - h)) / (2 * h)


@pytest.mark.parametrize("by", ["x", "u"])
def test_first_and_second_derivatives_equal_central_differences(by):
    random = np.random.default_rng(1)
    x = random.uniform(-6, 8, 400)
    x = x[np.abs(x[:, None] - [-4, 0, 3, 4, 5]).min(axis=1) > 1e-3]  # away from kinks
    values = {"x": x, "u": random.choice([-1, 1], x.shape) * random.uniform(0.1, 1, x.shape)}
    one = np.ones_like(x)

    def at(f, *seeds):
        def of(value):
            given = {**values, by: value}
            return f(*seeds, given["x"], given["u"], 0.7)

        return of

    first = derivative(everything, by)
    np.testing.assert_allclose(
        at(first, one)(values[by]), differences(at(everything), values[by]), rtol=1e-7, atol=1e-7
    )
    second = derivative(first, by, "again")
    np.testing.assert_allclose(
        at(second, one, one)(values[by]),
        differences(at(first, one), values[by]),
        rtol=1e-7,
        atol=1e-7,
    )


# A formula for each rule, of x in [−2, 2] and u in ±[0.1, 1]; both arguments of the rule have a slope.
OF_RULES = {
    "Add": "u * x * x + 3 * x",
    "Sub": "3 * u * u - u * x * x",
    "Mult": "x * x * (x + u)",
    "Div": "(u + x * x) / (4 + u * x)",
    "USub": "-(x * x * u * u)",
    "abs": "abs(x * u - 0.3) * x * u",
    "exp": "exp(u * x)",
    "exp_below_0": "exp_below_0(-(x * x) - u * u)",
    "expm1": "expm1(u * x)",
    "log": "log(4 + u * x)",
    "log1p": "log1p(2 + u * x)",
    "sqrt": "sqrt(4 + u * x)",
    "tanh": "tanh(u * x)",
    "sin": "sin(2 * u * x)",
    "cos": "cos(2 * u * x)",
    "sigmoid": "sigmoid(3 * u * x)",
    "erf": "erf(u * x)",
    "log1p_exp": "log1p_exp(-(x * x) - u * u)",
    "madd": "madd(x * u, sin(x) + u, x * x * u * u)",
    "horner": "horner(COEFFICIENTS, u) * horner(COEFFICIENTS, x)",
    "where": "where(x > 0.3, u * x * x, sin(x + u))",
    "maximum": "maximum(x * x, 3 * u * u)",
    "minimum": "minimum(x * x, 3 * u * u)",
}


def points(count=200):
    """x and u away from the kinks of these formulas."""
    random = np.random.default_rng(2)
    x, u = (
        random.uniform(-2, 2, count),
        random.uniform(0.1, 1, count) * random.choice([-1, 1], count),
    )
    kinks = [x * u - 0.3, x - 0.3, x * x - 3 * u * u]
    away = np.abs(kinks).min(axis=0) > 1e-3
    return {"x": x[away], "u": u[away]}


@pytest.mark.parametrize("by", ["x", "u"])
@pytest.mark.parametrize("rule", OF_RULES)
def test_each_rule_equals_central_differences_and_so_does_its_derivative(rule, by):
    (tree,) = ast.parse(f"def {rule.lower()}(x, u): return {OF_RULES[rule]}").body
    f = Formula.of(tree, {**PRIMITIVES, "horner": horner, "COEFFICIENTS": COEFFICIENTS})
    at = points()
    one = np.ones_like(at["x"])
    assert len(one) > 150

    def of(function, *seeds):
        return lambda value: function(*seeds, *{**at, by: value}.values())

    first = derivative(f, by)
    slope, second = of(first, one), of(derivative(first, by, "again"), one, one)
    np.testing.assert_allclose(slope(at[by]), differences(of(f), at[by]), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(second(at[by]), differences(slope, at[by]), rtol=1e-8, atol=1e-8)


def test_every_rule_is_compared_with_differences():
    assert set(OF_RULES) == set(derive._RULES)


@pytest.mark.parametrize("by", ["x", "u"])
def test_the_derivative_of_a_constant_polynomial_is_zero(by):
    (tree,) = ast.parse("def constant(x, u): return horner(ONLY, x) * u + horner(LINE, x)").body
    f = Formula.of(tree, {"horner": horner, "ONLY": (0.5,), "LINE": (3.0, 1.0)})
    x, u, seed = np.array([0.3, -2.0]), np.array([0.7, 0.1]), np.array([1.0, 2.0])
    want = {"x": 3.0, "u": 0.5}[by] * seed
    np.testing.assert_array_equal(derivative(f, by)(seed, x, u), want)


def test_every_primitive_has_a_rule_or_no_slope():
    assert set(PRIMITIVES) == (set(derive._RULES) & set(PRIMITIVES)) | set(derive.FLAT)
    assert not set(derive._RULES) & set(derive.FLAT)


def text(formula):
    return ast.unparse(formula.tree).split("\n    ", 1)[1]


def test_a_vjp_takes_the_outputs_where_they_spare_it_the_input():
    of = {
        op.name: vjp_of(op.kernels["forward"].formula, tuple(op.outputs), "x") for op in ACTIVATIONS
    }
    assert of["tanh"].parameters == ("dy", "y") and text(of["tanh"]) == "return (1.0 - y * y) * dy"
    assert of["linear_tanh"].parameters == ("dy", "t", "a")
    assert of["silu"].parameters == ("dy", "x")
    assert text(of["relu"]) == "return where(x <= 0.0, 0.0, dy)"


@each
def twice(x: Real) -> Real:
    s = sigmoid(x)
    return s + x * s


def test_values_that_are_used_again_have_names():
    assert text(derivative(squared, "x")) == "return 2.0 * x * seed"
    assert text(derivative(twice, "x")) == (
        "s = sigmoid(x)\n    v = s * (1.0 - s) * seed\n    return v + (s * seed + x * v)"
    )


@each
def clamped(x: Real, a: float) -> Real:
    return minimum(maximum(x, -a), a)


@each
def leaky(x: Real) -> Real:
    return where(x > 0, x, 0.25 * x)


@each
def flat(x: Real, a: float) -> Real:
    return where(x > a, sign(x), 2 * a + 0 * abs(sign(x)))


def test_at_kinks_it_follows_the_branch_that_the_formula_takes():
    one = np.ones(3)
    x = np.array([-1.0, 0.0, 1.0])
    np.testing.assert_array_equal(derivative(clamped, "x")(one, x, 1.0), [1, 1, 1])  # as clamp
    np.testing.assert_array_equal(derivative(leaky, "x")(one, x), [0.25, 0.25, 1])
    np.testing.assert_array_equal(derivative(flat, "x")(one, x, 0.5), [0, 0, 0])


def test_nan_passes_through():
    nan = np.array([np.nan])
    for op in ACTIVATIONS:
        values = dict.fromkeys(("x", *op.outputs), nan) | {"dy": np.array([1.0])}
        values |= {name: gradcheck.NUMBERS[name] for name in op.scalars}
        for made in (vjp_of(op.kernels["forward"].formula, tuple(op.outputs), "x"),):
            with np.errstate(all="ignore"):
                hand = op.kernels["vjp"].formula
                want, got = hand(*given_to(hand, values)), made(*given_to(made, values))
            assert np.isnan(got) or not np.isnan(want), op.name


def test_what_has_no_derivative_is_told():
    with pytest.raises(TypeError, match=r"formula clamped: 'b' is not one of \('x', 'a'\)"):
        derivative(clamped, "b")
    noisy = KERNELS["noisy_relu_forward"].formula
    with pytest.raises(TypeError, match="draws; expected a vjp of its own"):
        vjp_of(noisy, ("y",), "x")


def test_an_op_with_a_forward_alone_gets_its_vjp(passing_ops):
    class cubed(Elementwise):  # noqa: N801
        @each
        def forward(x: Real) -> Real:
            return x * x * x

    kernel = cubed.kernels["vjp"]
    assert kernel.arguments == ("dx", "dy", "x")
    dx, x = np.empty(3), np.array([1.0, -2.0, 3.0])
    kernel.function(dx, np.ones(3), x)
    np.testing.assert_array_equal(dx, 3 * x * x)


def test_the_numbers_of_a_record_are_constants():
    @formula
    def moved(x: Real, n: Numbers) -> Real:
        return n.lr * (x * x)

    made = derivative(moved, "x")
    assert made.parameters == ("seed", "x", "n")
    assert text(made) == "return n.lr * (2.0 * x * seed)"


def test_formula_errors_are_type_errors():
    assert issubclass(FormulaError, TypeError)
