"""Every kernel has a rule, an expansion or a reason; own formulas of curvatures agree with derived ones."""

from __future__ import annotations

import importlib
import pkgutil

import directions
import numpy as np
import pytest

import fastnet as fn
from fastnet.formulas.derive import tangent_of
from fastnet.op import GUESTS, KERNELS
from fastnet.tangents import curves, program
from fastnet.tangents.curves import tangent_name
from fastnet.tangents.expand import EXPANSIONS
from fastnet.tangents.rules import RULES

SECOND = "is of second derivatives itself, which no product differentiates"
REFUSED = {
    "add_to_forward": "plans of products add gradients into new tensors",
    "gaussian_slope_forward": SECOND,
    "gaussian_curve_forward": SECOND,
    "bfloat16_linear_forward": "plans of products multiply in float32",
    "bfloat16_linear_vjp": "plans of products multiply in float32",
    "bfloat16_pairs_forward": "plans of products multiply in float32",
    "bfloat16_pairs_linear_forward": "plans of products multiply in float32",
    "sparse_linear_forward": "plans of products read rows as dense ones",
    "sparse_linear_vjp": "plans of products read rows as dense ones",
}


def all_ops() -> None:
    """Load what holds ops."""
    for room in ("layers", "losses", "preprocess", "plan", "tangents"):
        package = importlib.import_module(f"fastnet.{room}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"fastnet.{room}.{module.name}")


def test_every_kernel_has_a_rule():
    all_ops()
    kernels = [k for k in KERNELS.values() if k.phase != "update"]
    kernels = [k for k in kernels if k.op.__module__ != curves.__name__]
    known = {k.name for k in kernels if k.name in RULES or k.op in EXPANSIONS}
    known |= {
        k.name
        for k in kernels
        if k.formula is not None and (k.phase == "vjp" or "vjp" in k.op.kernels)
    }
    assert {k.name for k in kernels} - known == set(REFUSED)
    assert not known & set(REFUSED)


def test_no_rule_is_of_a_kernel_that_is_not():
    all_ops()
    assert {name for name in RULES if name not in KERNELS} <= set(GUESTS)


OWN = [k for k in KERNELS.values() if k.phase == "vjp" and hasattr(k.op, "curve")]


@pytest.mark.parametrize("kernel", OWN, ids=lambda kernel: kernel.op.name)
def test_own_curvatures_are_derivatives(kernel):
    """Of the formula of the gradient, by its derivative, away from kinks and the ends of the line."""
    curves.every()
    own, formula = kernel.op.curve, kernel.formula
    loss = "drow_loss" in kernel.tensors
    moving = ["y"] if loss else [n for n in formula.elements if n in kernel.tensors]
    seeds = {n: tangent_name(n) for n in moving}
    derived = tangent_of(formula, seeds, "derived")
    random = np.random.default_rng(0)
    points = random.uniform(0.05, 0.95, 400) if kernel.op.name == "bce" else random.normal(size=400)
    given = {n: random.normal(size=400) for n in ("dy", "tdy", "tx", "ty")}
    given |= {"x": 3 * points, "y": points, "t": random.uniform(size=400), "u": np.full(400, 2.0)}
    numbers = {"alpha": 0.7, "beta": 1.3, "bound": 2.0, "delta": 0.4, "width": 0.6}
    results = [f(*(given.get(n, numbers.get(n)) for n in f.parameters)) for f in (own, derived)]
    np.testing.assert_allclose(*results, rtol=1e-9, atol=1e-12)


def test_own_curvatures_of_kinks_are_0():
    """Derived ones would take a side."""
    for layer, at in ((fn.ELU(0.7), 0.0), (fn.SELU(), 0.0), (fn.Softplus(2.0, 3.0), 1.5)):
        model = fn.Sequential(fn.Scale(1), layer, dtype="float64", backend="reference")
        with model.edit() as values:
            values["0.weight"][...] = at
        one = np.ones((1, 1))
        got = model.hvp(fn.KLDivLoss("sum"), one, one, directions.direction(model))
        assert got["0.weight"][0] == 0


def test_rules_are_known_to_the_plans():
    """A room of rules that `program` does not load would be missing in programs that load nothing else."""
    loaded = {name for name in vars(program) if hasattr(vars(program)[name], "RULES")}
    assert loaded >= {"linear", "losses", "norms", "softmax"}
