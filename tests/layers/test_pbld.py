"""PBLD and ParametricActivation: their formulas, columns, initial values and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, ShapeError

RNG = np.random.default_rng(0)


def made(layer, backend):
    model = fn.Sequential(layer, dtype="float64", backend=backend, seed=1)
    return model, {name: layer.state_dict()[name] for name in layer.state_dict()}


@pytest.mark.parametrize("others", [0, 2])
def test_embeddings_come_first_and_then_all_columns(backend, others):
    model, w = made(fn.PBLD(3, 5, 3, sigma=0.7, others=others), backend)
    x = RNG.normal(size=(9, 3 + others))
    want = []
    for i in range(3):
        own = slice(5 * i, 5 * i + 5)
        waves = np.cos(2 * np.pi * x[:, i : i + 1] * w["weight_1"][i] + w["bias_1"][own])
        want.append(waves @ w["weight_2"][own] + w["bias_2"][2 * i : 2 * i + 2])
    want = np.concatenate([*want, x], axis=1)
    np.testing.assert_allclose(model.predict(x), want, rtol=0, atol=1e-14)
    assert model.output_shape((3 + others,)) == (9 + others,) and model.in_width == 3 + others


def test_initial_values_of_pbld():
    layer = fn.PBLD(200)
    layer.reset_parameters(seed=2)
    shapes = {name: value.shape for name, value in layer.state_dict().items()}
    assert shapes == {
        "weight_1": (200, 16),
        "bias_1": (3200,),
        "weight_2": (3200, 3),
        "bias_2": (600,),
    }
    assert layer.weight_1.std() == pytest.approx(0.1, rel=0.05)
    for value, bound in ((layer.bias_1, np.pi), (layer.weight_2, 0.25), (layer.bias_2, 0.25)):
        assert -bound <= value.min() < -0.98 * bound and 0.98 * bound < value.max() <= bound


def test_another_width_of_pbld_is_refused():
    message = r"^layer 0 \(PBLD\): rows of shape \(4,\) came, expected in_features \+ others = 5$"
    refused(lambda: fn.Sequential(fn.PBLD(3, others=2)).output_shape((4,)), ShapeError, message)


@pytest.mark.parametrize(
    ("given", "other"),
    [
        ("selu", fn.SELU()),
        ("Mish", fn.Mish()),
        (fn.ELU(0.5), fn.ELU(0.5)),
        (fn.GELU("tanh"), fn.GELU("tanh")),
    ],
)
def test_an_activation_and_the_identity_are_mixed(backend, given, other):
    layer = fn.ParametricActivation(given, 4)
    model = fn.Sequential(layer, dtype="float64", backend=backend, seed=1)
    x = RNG.normal(size=(7, 4))
    f = fn.Sequential(other, dtype="float64", backend=backend).predict(x)
    np.testing.assert_allclose(model.predict(x), f, rtol=0, atol=1e-15)  # weights are 1 at first
    with model.edit() as values:
        values["0.weight"][...] = [0, 0.25, 1, -2]
    np.testing.assert_allclose(model.predict(x), x + layer.weight * (f - x), rtol=0, atol=1e-15)


def test_an_activation_of_ones_own(backend):
    if backend == "cuda":
        pytest.importorskip("numba")
    own = own_activation()
    model = fn.Sequential(
        fn.ParametricActivation(own(3.0), 4), dtype="float64", backend=backend, seed=1
    )
    x = RNG.normal(size=(7, 4))
    np.testing.assert_allclose(model.predict(x), 3 * x * x, rtol=1e-14)


def own_activation():
    @fn.elementwise
    def thrice(x, a=1.0):
        return a * x * x

    return thrice


def test_what_is_no_activation_is_refused():
    for bad in ("linear", "softmax", fn.Linear(2, 2), fn.ReLU, None, 3):
        message = (
            r"^activation is .*; expected an activation, such as Mish\(\), or a name, one of elu"
        )
        refused(lambda b=bad: fn.ParametricActivation(b, 2), HyperparameterError, message)
    message = (
        r"^layer 0 \(ParametricActivation\): rows of shape \(3,\) came, expected num_features = 2$"
    )
    model = fn.Sequential(fn.ParametricActivation("relu", 2))
    refused(lambda: model.output_shape((3,)), ShapeError, message)


def test_training_finds_which_features_are_linear(backend):
    x = RNG.normal(size=(400, 2))
    y = np.stack([x[:, 0], np.maximum(x[:, 1], 0)], axis=1)
    model = fn.Sequential(fn.ParametricActivation("relu", 2), backend=backend, seed=1)
    with model.edit() as values:
        values["0.weight"][...] = 0.5
    trainer = fn.Trainer(model, fn.MSELoss(), fn.Adam(0.05), seed=1)
    trainer.fit(x, y, epochs=60, verbose=0)
    np.testing.assert_allclose(model[0].weight, [0, 1], atol=1e-3)
