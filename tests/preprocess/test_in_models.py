"""Preprocessing as the first layer of a model: raw data, files, copies, resumed training, refusals."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import StateDictError, UsageError
from fastnet.model.structure import graph_of

P = fn.preprocess
RNG = np.random.default_rng(0)
X = RNG.gamma(2.0, size=(200, 4)) * [1, 10, 0.1, 5] + [0, 100, -3, 1000]
X[:, 3] = np.round(X[:, 3] / 4)
Y = (X[:, :1] - 2) * 0.5
KINDS = {
    "Center": P.Center,
    "StandardScaler": P.StandardScaler,
    "MinMaxScaler": lambda **n: P.MinMaxScaler(clip=True, **n),
    "RobustScaler": P.RobustScaler,
    "QuantileTransformer": lambda **n: P.QuantileTransformer(50, **n),
    "PCA": lambda **n: P.PCA(4, whiten=True, **n),
    "ZCA": P.ZCA,
}
kinds = pytest.mark.parametrize("name", KINDS)


def net(first, backend="reference", **more):
    return fn.Sequential(
        first, fn.Linear(4, 3), fn.Tanh(), fn.Linear(3, 1), seed=1, backend=backend, **more
    )


@kinds
def test_raw_data_go_in(name, backend):
    """Training and predictions are those of a net without it on transformed data."""
    layer = KINDS[name]().fit(X)
    plain = fn.Sequential(
        fn.Identity(),
        fn.Linear(4, 3),
        fn.Tanh(),
        fn.Linear(3, 1),
        seed=1,
        dtype="float64",
        backend=backend,
    )
    model = net(copy.deepcopy(layer), backend, dtype="float64")
    transformed = layer._output(X)
    for one, data in ((model, X), (plain, transformed)):
        fn.Trainer(one, fn.MSELoss(), fn.Adam(0.01), seed=2).fit(data, Y, epochs=2, verbose=0)
    np.testing.assert_allclose(model.predict(X), plain.predict(transformed), rtol=1e-8, atol=1e-9)
    before, after = layer.state_dict(), model[0].state_dict()
    for key in before:
        np.testing.assert_array_equal(before[key], after[key])


@kinds
def test_a_model_whose_layer_is_not_fitted_refuses(name, tmp_path):
    lone = KINDS[name]()
    refused(lambda: net(lone), UsageError, "does not know its number of features; fit it first")
    model = net(KINDS[name](num_features=4))
    what = r"^layer 0 \(.*\) is not fitted; call model\.layers\[0\]\[1\]\.fit\(X\)"
    trainer = fn.Trainer(model, fn.MSELoss())
    for call in (
        lambda: model.predict(X),
        lambda: model.forward(X),
        lambda: model.value_and_grad(fn.MSELoss(), X, Y),
        lambda: trainer.fit(X, Y, verbose=0),
        lambda: trainer.evaluate(X, Y),
        lambda: model.save(tmp_path / "net"),
        lambda: model[0].transform(X),
        lambda: model[0].forward(X),
    ):
        refused(call, UsageError, what)
    fitted = net(KINDS[name]().fit(X))
    empty = model.state_dict()
    expected = fitted.predict(X)
    refused(lambda: fitted.load_state_dict(empty), StateDictError, "n_samples_seen_.* below 1")
    np.testing.assert_array_equal(fitted.predict(X), expected)
    model.load_state_dict(fitted.state_dict())
    np.testing.assert_array_equal(model.predict(X), expected)


@kinds
def test_a_fit_within_a_model_shows_at_once(name, backend):
    model = net(KINDS[name](num_features=4), backend)
    assert model.layers[0][1].fit(X) is model[0]
    first = model.predict(X)
    again = net(KINDS[name]().fit(X), backend)
    np.testing.assert_array_equal(first, again.predict(X))
    model[0].fit(X[:50] * 2)
    second = model.predict(X)
    assert np.abs(second - first).max() > 1e-3
    again = net(KINDS[name]().fit(X[:50] * 2), backend)
    np.testing.assert_array_equal(second, again.predict(X))


@kinds
def test_files_and_copies_have_the_numbers(name, tmp_path):
    model = net(KINDS[name]().fit(X))
    expected = model.predict(X)
    model.save(tmp_path / "net")
    found = fn.load(tmp_path / "net").to("reference")
    others = [found, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for other in others:
        np.testing.assert_array_equal(other.predict(X), expected)
        assert repr(other[0]) == repr(model[0])
    np.testing.assert_array_equal(
        found[0].inverse_transform(found[0].transform(X)),
        model[0].inverse_transform(model[0].transform(X)),
    )


@kinds
def test_a_new_draw_of_parameters_leaves_them(name):
    model = net(KINDS[name]().fit(X))
    before = model[0].state_dict()
    weight = model.state_dict()["1.weight"]
    model.reset_parameters(seed=5)
    for key, value in model[0].state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    assert (model.state_dict()["1.weight"] != weight).any()
    lone = KINDS[name]().fit(X)
    lone.reset_parameters()
    np.testing.assert_array_equal(lone.transform(X), KINDS[name]().fit_transform(X))


@kinds
def test_a_training_goes_on_from_its_file(name, tmp_path):
    def trainer(epochs):
        made = fn.Trainer(net(KINDS[name]().fit(X)), fn.MSELoss(), fn.Adam(0.01), seed=2)
        made.fit(X, Y, epochs=epochs, verbose=0)
        return made

    trainer(2).save(tmp_path / "run")
    resumed = fn.Trainer.load(tmp_path / "run")
    resumed.model.to("reference")
    resumed.fit(X, Y, epochs=2, verbose=0)
    expected = trainer(4).model.state_dict()
    for key, value in resumed.model.state_dict().items():
        np.testing.assert_array_equal(value, expected[key])


@kinds
def test_an_exporter_finds_ops_and_numbers(name):
    """It walks the graph, whose arguments hold the parameters."""
    model = net(KINDS[name]().fit(X))
    modes = {id(layer): False for _, layer in model.layers}
    nodes = graph_of(model, (4,), modes, fold=True).graph.nodes
    first = nodes[0]
    assert first.op.__name__ in ("rescale", "interpolate")
    held = {p.name: p for p in model[0]._parameters.values()}
    given = [a for a in first.arguments.values() if a in held.values()]
    assert given and all(np.isfinite(p.value).all() for p in given)


def test_columns_of_both_kinds(backend):
    """Numbers and categories through OneHot, then everything scaled."""
    first = P.OneHot([3]).fit(X)
    second = P.StandardScaler().fit(first.transform(X))
    width = first.output_shape((4,))[0]
    model = fn.Sequential(first, second, fn.Linear(width, 1), backend=backend, seed=0)
    history = fn.Trainer(model, fn.MSELoss(), fn.Adam(0.05), seed=0).fit(X, Y, epochs=20, verbose=0)
    assert history.records[-1]["loss"] < 0.2 * history.records[0]["loss"]
    unseen = X[:3].copy()
    unseen[:, 3] = -77
    assert np.isfinite(model.predict(unseen)).all()


def test_a_batchnorm_behind_it_folds():
    layers = P.PCA(3, whiten=True).fit(X), fn.BatchNorm1d(3), fn.Linear(3, 1)
    model = fn.Sequential(*layers, seed=0)
    fn.Trainer(model, fn.MSELoss(), seed=0).fit(X, Y, epochs=2, verbose=0)
    expected = model.eval().forward(X)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-4, atol=1e-5)
