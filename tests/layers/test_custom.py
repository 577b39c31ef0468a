"""Layers, losses and ops of one's own: where they run, and what is said where something is missing."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import BackendUnavailable
from fastnet.formulas.language import Real, each
from fastnet.layers.base import Layer
from fastnet.layers.elementwise import Elementwise

X = np.arange(6.0).reshape(3, 2)
MAKES = ("numba", "cuda", "reference")  # backends that make kernels of formulas


@pytest.fixture
def cube(passing_ops):
    """A layer whose op is a formula that was written after the backends were first used."""
    for name in MAKES:
        if fn.backends()[name].available:
            fn.Sequential(fn.Tanh(), backend=name).predict(X)

    class cubed(Elementwise):  # noqa: N801
        @each
        def forward(x: Real) -> Real:
            return x * x * x

        @each
        def vjp(dy: Real, x: Real) -> Real:
            return dy * (3 * (x * x))

    class Cube(Layer):
        def emit(self, g, x):
            return g.apply(cubed, x=x)

    return Cube()


@pytest.mark.contract
@pytest.mark.parametrize("name", MAKES)
def test_a_formula_of_ones_own_runs(name, cube):
    if not fn.backends()[name].available:
        pytest.skip(f"no backend {name}")
    model = fn.Sequential(cube, dtype="float64", backend=name)
    np.testing.assert_array_equal(model.forward(X), X**3)
    np.testing.assert_array_equal(model.backward(X), 3 * X**3)
    trainer = fn.Trainer(model, fn.MSELoss())
    assert trainer.evaluate(X, X**3)["loss"] == 0


def test_the_c_backend_names_those_that_have_it(cube):
    if not fn.backends()["c"].available:
        pytest.skip("no backend c")
    model = fn.Sequential(cube, backend="c")
    message = r"'c' has no kernel cubed_forward; use model\.to\('numba'\), .*\('reference'\)"
    with pytest.raises(BackendUnavailable, match=message):
        model.predict(X)


class Bare:
    class Layer(fn.layers.Layer):
        pass

    class Loss(fn.Loss):
        pass

    class Draw(fn.init.Initializer):
        pass

    class Curve(fn.schedules.Schedule):
        pass


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Bare.Layer().forward(X), r"^Layer defines no emit\(self, g, x\): it "),
        (lambda: fn.Sequential(Bare.Layer()).predict(X), r"^Layer defines no emit\("),
        (
            lambda: Bare.Loss().forward(X, X),
            r"^Loss defines no target\(self, y, shape, name\): it ",
        ),
        (
            lambda: fn.Linear(2, 2, weight_init=Bare.Draw()).forward(X),
            r"^Draw defines no sample\(self, shape, fan_in, fan_out, draw\): it ",
        ),
        (lambda: Bare.Curve()(3), r"^Curve defines no values\(self, t\): it "),
    ],
)
def test_what_a_class_of_ones_own_lacks_is_told(call, message):
    with pytest.raises(NotImplementedError, match=message):
        call()
