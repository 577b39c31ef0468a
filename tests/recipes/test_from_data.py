"""init_from_data: what weights and biases become, and on what they depend."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError

RNG = np.random.default_rng(5)
X = RNG.normal(size=(300, 4)) * [1, 5, 0.1, 2] + [0, 3, 0, -1]
init = fn.recipes.init_from_data


def net(backend="reference", **more):
    layers = fn.NTKLinear(4, 30), fn.Tanh(), fn.Dropout(0.5), fn.Linear(30, 20), fn.ReLU()
    return fn.Sequential(
        *layers, fn.NTKLinear(20, 3, bias=False), dtype="float64", backend=backend, seed=3, **more
    )


def outputs(model, count, **zeroed):
    """The outputs of the first layers, with parameters of the last one set to 0."""
    part = fn.Sequential(*map(copy.deepcopy, model[:count]), dtype="float64", backend="reference")
    if zeroed:
        with part.edit() as values:
            values[f"{count - 1}.bias"][...] = 0.0
    return part.predict(X)


def test_outputs_of_every_linear_layer_have_deviation_one(backend):
    model = net(backend)
    before = model.state_dict()
    init(model, X)
    for count in (1, 4, 6):
        np.testing.assert_allclose(outputs(model, count).std(axis=0), 1, rtol=1e-12)
    for name, value in model.state_dict().items():  # rows of weights are scaled, and no more
        if name.endswith("weight"):
            ratio = value / before[name]
            np.testing.assert_allclose(ratio, ratio[:, :1] * np.ones(ratio.shape), rtol=1e-12)


def test_each_output_is_zero_somewhere_within_the_data():
    model = net()
    init(model, X)
    for count in (1, 4):
        z = outputs(model, count, bias=True)
        bias = model[count - 1].bias
        assert ((-bias > z.min(axis=0)) & (-bias < z.max(axis=0))).all()
        # A mean of 5 rows by random shares varies as Σ s², which is 1/3 on average.
        assert np.mean((bias + z.mean(axis=0)) ** 2) == pytest.approx(1 / 3, abs=0.2)
    one = net()
    init(one, X, bias_rows=1)
    z = outputs(one, 1, bias=True)
    assert (np.abs(z + one[0].bias).min(axis=0) < 1e-12).all()  # the number of one row


def test_it_depends_on_seed_and_rows_alone(backend):
    found = []
    for seed, rows in ((None, X), (3, X), (3, X.tolist()), (4, X), (3, X[:200])):
        model = net(backend)
        init(model, rows, seed=seed)
        found.append(model.state_dict())
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name])
        np.testing.assert_array_equal(value, found[2][name])
    assert not np.array_equal(found[0]["0.bias"], found[3]["0.bias"])
    np.testing.assert_array_equal(found[0]["0.weight"], found[3]["0.weight"])
    assert not np.array_equal(found[0]["0.weight"], found[4]["0.weight"])


def test_of_many_rows_some_are_drawn():
    one, other = net(), net()
    init(one, X, max_rows=50)
    init(other, X)
    assert np.allclose(one[0].weight, other[0].weight, rtol=0.5)
    assert not np.array_equal(one[0].weight, other[0].weight)


def test_constant_outputs_keep_their_weights():
    model = net()
    before = np.array(model[0].weight)
    init(model, np.zeros((9, 4)))
    np.testing.assert_array_equal(model[0].weight, before)
    assert all(np.isfinite(value).all() for value in model.state_dict().values())


def test_what_stays_as_it_is():
    shared = fn.Linear(4, 4)
    model = fn.Sequential(fn.Residual(fn.Linear(4, 4)), shared, fn.Tanh(), shared, fn.Linear(4, 2))
    model[4].freeze()
    before = model.state_dict()
    init(model, X.astype("f"))
    for name, value in model.state_dict().items():
        assert np.array_equal(value, before[name]) == (not name.startswith("1.")), name


def test_nested_models_and_copies(backend):
    one = net(backend)
    parts = fn.Sequential(fn.NTKLinear(4, 30), fn.Tanh()), fn.Dropout(0.5), fn.Linear(30, 20)
    other = fn.Sequential(
        *parts, fn.ReLU(), fn.NTKLinear(20, 3, bias=False), dtype="float64", backend=backend, seed=3
    )
    for model in (one, other):
        init(model, X)
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bad_arguments():
    model = net()
    before = model.state_dict()
    refused(lambda: init(model, X[:0]), DataError, "^X has shape")
    refused(lambda: init(model, np.full((3, 4), np.nan)), DataError, "^X ")
    refused(lambda: init(model, X[:, :3]), fn.errors.ShapeError, "^X has shape")
    refused(lambda: init(model, X, bias_rows=0), HyperparameterError, "^bias_rows is 0")
    refused(lambda: init(model, X, max_rows=0), HyperparameterError, "^max_rows is 0")
    refused(lambda: init([], X), HyperparameterError, "^model is")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
