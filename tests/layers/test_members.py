"""Layers of an ensemble whose members share a net: what each member computes, and how it begins."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet import init
from fastnet.errors import HyperparameterError, ShapeError

K, RNG = 4, np.random.default_rng(2)


def members(rows, k=K):
    """Rows of members side by side as (n, k, features)."""
    return rows.reshape(len(rows), k, -1)


def values(model):
    return {name.partition(".")[2]: value for name, value in model.state_dict().items()}


def ensemble(backend, *layers):
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=7)


def test_each_member_sees_each_row(backend):
    x = RNG.normal(size=(5, 3))
    y = ensemble(backend, fn.EnsembleView(K)).predict(x)
    np.testing.assert_array_equal(members(y), np.repeat(x[:, None], K, axis=1))


@pytest.mark.parametrize("rows", [1, 5, 150, 700])
@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_ensemble_is_a_linear_layer_with_factors_of_each_member(backend, rows, bias):
    layer = fn.LinearBatchEnsemble(3, 5, K, bias, init.Normal(), init.Normal(1, 0.3))
    model = ensemble(backend, layer)
    p, x = values(model), RNG.normal(size=(rows, K * 3))
    assert {name: value.shape for name, value in p.items()} == {
        "weight": (5, 3),
        "r": (K, 3),
        "s": (K, 5),
        **({"bias": (K, 5)} if bias else {}),
    }
    want = (members(x) * p["r"]) @ p["weight"].T * p["s"] + p.get("bias", 0)
    np.testing.assert_allclose(members(model.predict(x)), want, atol=1e-13)
    dy = RNG.normal(size=(rows, K * 5))
    model.forward(x)
    dx = model.backward(dy)
    slopes = members(dy) * p["s"]
    scaled = members(x) * p["r"]
    close = {"rtol": 0, "atol": 1e-11 * rows}
    np.testing.assert_allclose(members(dx), (slopes @ p["weight"]) * p["r"], **close)
    grads = {name.partition(".")[2]: g for name, g in model.grads.items()}
    np.testing.assert_allclose(grads["weight"], np.einsum("nko,nki->oi", slopes, scaled), **close)
    factors = (slopes @ p["weight"]) * members(x)
    np.testing.assert_allclose(grads["r"], factors.sum(axis=0), **close)
    products = members(dy) * (scaled @ p["weight"].T)
    np.testing.assert_allclose(grads["s"], products.sum(axis=0), **close)
    if bias:
        np.testing.assert_allclose(grads["bias"], members(dy).sum(axis=0), **close)


@pytest.mark.parametrize("rows", [1, 5, 150, 700])
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (40, 1), (70, 33)])
def test_members_with_weights_of_their_own(backend, rows, inputs, outputs):
    model = ensemble(backend, fn.LinearEnsemble(inputs, outputs, K))
    p, x = values(model), RNG.normal(size=(rows, K * inputs))
    assert p["weight"].shape == (K, inputs, outputs) and p["bias"].shape == (K, outputs)
    want = np.einsum("nki,kio->nko", members(x), p["weight"]) + p["bias"]
    np.testing.assert_allclose(members(model.predict(x)), want, atol=1e-12)
    dy = RNG.normal(size=(rows, K * outputs))
    for _ in range(2):  # the second one adds
        model.forward(x)
        dx = model.backward(dy)
    close = {"rtol": 0, "atol": 1e-12 * rows}
    wanted = np.einsum("nko,kio->nki", members(dy), p["weight"])
    np.testing.assert_allclose(members(dx), wanted, atol=1e-12)
    weight = np.einsum("nki,nko->kio", members(x), members(dy))
    np.testing.assert_allclose(model.grads["0.weight"], 2 * weight, **close)
    np.testing.assert_allclose(model.grads["0.bias"], 2 * members(dy).sum(axis=0), **close)


def test_the_mean_of_outputs_and_of_probabilities(backend):
    x = RNG.normal(size=(6, K * 3))
    mean = ensemble(backend, fn.EnsembleMean(K)).predict(x)
    np.testing.assert_allclose(mean, members(x).mean(axis=1), atol=1e-15)
    e = np.exp(members(x))
    p = (e / e.sum(axis=2, keepdims=True)).mean(axis=1)
    logs = ensemble(backend, fn.EnsembleMean(K, "probabilities")).predict(x)
    np.testing.assert_allclose(np.exp(logs), p, rtol=1e-14)


def test_probabilities_far_below_the_smallest_number(backend):
    x = np.array([[0.0, -3000.0, 0.0, -2000.0]])
    logs = ensemble(backend, fn.EnsembleMean(2, "probabilities")).predict(x)
    np.testing.assert_allclose(logs, [[0.0, -2000.0 - np.log(2)]], rtol=1e-15)


def test_what_all_members_rule_out_has_probability_0_and_no_slope():
    layer = fn.EnsembleMean(2, "probabilities")
    logs = layer.forward(np.array([[1.0, -np.inf, 2.0, -np.inf]]))
    np.testing.assert_array_equal(logs, [[0.0, -np.inf]])
    np.testing.assert_array_equal(layer.backward(np.array([[0.0, 1.0]]))[0, 1::2], 0)


def test_members_begin_alike_but_for_the_first_factors():
    layers = (
        fn.LinearBatchEnsemble(6, 5, K, r_init=init.RandomSigns(), groups=[1, 3, 2]),
        fn.LinearBatchEnsemble(5, 5, K),
    )
    model = ensemble("reference", *layers)
    first, second = (
        {n.partition(".")[2]: v for n, v in model.state_dict().items() if n.startswith(f"{i}.")}
        for i in range(2)
    )
    assert set(np.unique(first["r"])) == {-1.0, 1.0}
    assert len({tuple(row) for row in first["r"]}) > 1
    for group in (slice(1, 4), slice(4, 6)):
        assert (first["r"][:, group] == first["r"][:, group][:, :1]).all()
    assert (first["r"][:, 0] != first["r"][:, 1]).any()
    for values in (first, second):
        np.testing.assert_array_equal(values["s"], 1)
        assert (values["bias"] == values["bias"][0]).all() and values["bias"].any()
    np.testing.assert_array_equal(second["r"], 1)
    bound = 1 / np.sqrt(6)
    for value in (first["weight"], first["bias"]):
        assert bound / 2 < np.abs(value).max() < bound


def test_random_signs_are_as_often_1_as_minus_1():
    drawn = init.RandomSigns().sample((100, 1000), 1, 1, init.Draw(seed=1, stream=2, step=3))
    assert set(np.unique(drawn)) == {-1.0, 1.0} and abs(drawn.mean()) < 0.02


def test_other_widths_are_refused():
    for layer, width, message in (
        (fn.LinearBatchEnsemble(3, 2, K), 3, r"k·in_features = 4·3 = 12: put EnsembleView\(4\)"),
        (fn.LinearEnsemble(3, 2, K), 13, r"k·in_features = 4·3 = 12"),
        (fn.EnsembleMean(K), 13, "a multiple of k = 4"),
        (fn.EnsembleMean(K, "probabilities"), 4, "one output .* take two outputs"),
    ):
        refused(lambda la=layer, w=width: la.forward(np.zeros((2, w))), ShapeError, message)
    view = fn.EnsembleView(K)
    refused(lambda: view.output_shape((3, 3)), ShapeError, r"put Flatten\(\) before it")
    for groups, message in (
        ([1, 1], "groups has the sum 2"),
        ([0, 3], r"groups\[0\] is 0"),
        (3, "groups is 3"),
    ):
        refused(
            lambda g=groups: fn.LinearBatchEnsemble(3, 2, K, groups=g), HyperparameterError, message
        )


def test_a_model_is_known_by_the_width_of_its_inputs():
    layers = fn.EnsembleView(3), fn.LinearBatchEnsemble(5, 4, 3), fn.LinearEnsemble(4, 2, 3)
    model = fn.Sequential(*layers, fn.EnsembleMean(3), backend="reference")
    assert model.input_shape == (5,) and model.output_shape((5,)) == (2,)
