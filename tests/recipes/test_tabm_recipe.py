"""TabM as a recipe: what it makes, that it learns, and which arguments it takes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError
from fastnet.layers.piecewise import quantile_bins

RNG = np.random.default_rng(4)
X = RNG.normal(size=(240, 4)).astype("f")
CODE = RNG.integers(0, 3, 240)
ROWS = np.column_stack([X, np.eye(3)[CODE]])
Y = np.sin(2 * X[:, 0]) * X[:, 1] + 0.5 * (CODE == 1)
LABELS = np.digitize(Y, [-0.3, 0.4])
SMALL = {"k": 4, "width": 24, "seed": 1}


def kinds(model):
    return [type(layer).__name__ for _, layer in model.layers]


def test_the_net_of_a_classification():
    model, loss, optimizer = fn.recipes.tabm(4, 3, onehot=(3,))
    block = ["LinearBatchEnsemble", "ReLU", "Dropout"]
    assert kinds(model) == ["EnsembleView", *3 * block, "LinearEnsemble", "EnsembleMean"]
    assert model[1].config() | {"r_init": None} == {
        "in_features": 7,
        "out_features": 256,
        "k": 16,
        "bias": True,
        "r_init": None,
        "s_init": None,
        "groups": [1, 1, 1, 1, 3],
    }
    assert model[1].r_init == fn.init.RandomSigns() and model[4].r_init is None
    assert model[3].p == 0.1 and model[-1].average == "probabilities"
    assert repr(loss) == "EnsembleLoss(CrossEntropyLoss())"
    assert repr(optimizer) == "AdamW(lr=0.002, weight_decay=0.0003)"


def test_the_net_of_a_regression_with_embeddings():
    bins = quantile_bins(X, 6)
    given = {"bins": bins, "embedding_dim": 5, "dropout": 0, **SMALL}
    model, loss, _ = fn.recipes.tabm(4, 2, task="regression", onehot=[3], **given)
    assert kinds(model)[:4] == ["Columns", "PiecewiseLinear", "Columns", "EnsembleView"]
    assert kinds(model)[4:] == [
        *2 * ["LinearBatchEnsemble", "ReLU"],
        "LinearEnsemble",
        "EnsembleMean",
    ]
    first = model[2]
    assert first.groups == [5, 5, 5, 5, 3] and first.r_init == fn.init.Normal()
    assert model[-1].average == "outputs" and repr(loss) == "EnsembleLoss(MSELoss())"
    assert model.predict(ROWS).shape == (240, 2)


@pytest.mark.parametrize("embedded", [False, True])
def test_it_learns_classes(backend, embedded):
    bins = quantile_bins(X, 8) if embedded else None
    recipe = fn.recipes.tabm(4, 3, onehot=(3,), bins=bins, backend=backend, **SMALL)
    trainer = fn.Trainer(*recipe, seed=0)
    trainer.fit(ROWS, LABELS, epochs=60, batch_size=40, verbose=0)
    assert trainer.evaluate(ROWS, LABELS)["accuracy"] > 0.8
    p = recipe.model.predict_proba(ROWS)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(recipe.model.predict_classes(ROWS), p.argmax(axis=1))


def test_it_learns_numbers(backend):
    recipe = fn.recipes.tabm(4, 1, task="regression", onehot=(3,), backend=backend, **SMALL)
    trainer = fn.Trainer(*recipe, seed=0, metrics=["r2"])
    trainer.fit(ROWS, (Y - Y.mean()) / Y.std(), epochs=60, batch_size=40, verbose=0)
    assert trainer.history.records[-1]["r2"] > 0.65


def test_two_threads_and_copies_compute_the_same():
    recipe = fn.recipes.tabm(4, 3, onehot=(3,), backend="c", **{**SMALL, "width": 200, "k": 8})
    fitted = []
    for threads in (1, 2):
        with fn.threads(threads):
            trainer = fn.Trainer(*copy.deepcopy(recipe), seed=0)
            trainer.fit(ROWS, LABELS, epochs=2, batch_size=80, verbose=0)
        fitted.append(trainer.model.state_dict())
    for name, value in fitted[0].items():
        np.testing.assert_array_equal(value, fitted[1][name])


def test_a_file_keeps_it(tmp_path):
    model = fn.recipes.tabm(4, 3, onehot=(3,), bins=quantile_bins(X, 5), **SMALL).model
    model.save(tmp_path / "net")
    again = fn.load(tmp_path / "net")
    np.testing.assert_array_equal(again.predict(ROWS), model.predict(ROWS))


WRONG = [
    ({"n_numeric": -1}, "^n_numeric is -1"),
    ({"n_numeric": 0}, "^n_numeric is 0 and onehot is empty"),
    ({"n_outputs": 1}, "^n_outputs is 1"),
    ({"task": "ranking"}, "^task is 'ranking'"),
    ({"k": 0}, "^k is 0"),
    ({"blocks": 0}, "^blocks is 0"),
    ({"width": 0}, "^width is 0"),
    ({"dropout": 1.5}, "^dropout is 1.5"),
    ({"bins": [[0, 1]]}, "^bins has the edges of 1 columns; expected those of n_numeric = 4"),
    ({"bins": 3}, "^bins is 3"),
    ({"bins": quantile_bins(X, 3), "embedding_dim": 0}, "^embedding_dim is 0"),
    ({"onehot": 3}, "^onehot is 3"),
    ({"onehot": [2, 0]}, r"^onehot\[1\] is 0"),
    ({"loss": "mse"}, "^loss is 'mse'"),
    ({"lr": -1}, "^lr is -1"),
    ({"weight_decay": -1}, "^weight_decay is -1"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_wrong_arguments_are_refused(given, message):
    arguments = {"n_numeric": 4, "n_outputs": 3, **given}
    refused(lambda: fn.recipes.tabm(**arguments), HyperparameterError, message)
