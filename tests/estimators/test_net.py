"""Any Sequential as an estimator."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")

from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import scale

import fastnet as fn
from fastnet.errors import HyperparameterError, UsageError
from fastnet.sklearn import NetClassifier, NetRegressor

X, Y = load_iris(return_X_y=True)
X = scale(X)
P, T = load_diabetes(return_X_y=True)
P, T = scale(P), (T - T.mean()) / T.std()


def build(n_inputs, n_outputs, width=16, dropout=0.0):
    return [
        fn.Linear(n_inputs, width),
        fn.ReLU(),
        fn.Dropout(dropout),
        fn.Linear(width, n_outputs),
    ]


def branched(n_inputs, n_outputs):
    return fn.Sequential(
        fn.Concat(fn.Linear(n_inputs, 6), fn.Identity()),
        fn.Tanh(),
        fn.Linear(6 + n_inputs, n_outputs),
        dtype="float64",
    )


FAST = {"epochs": 40, "random_state": 0, "optimizer": fn.Adam(lr=0.02)}


@pytest.mark.parametrize("made", [build, branched])
def test_it_is_a_fit_of_the_trainer(made):
    model = NetClassifier(made, **FAST).fit(X, Y)
    assert model.score(X, Y) > 0.9
    seed = model.model_.seed if made is branched else None
    assert seed is None or model.model_.dtype == np.float64
    twin = fn.Trainer(
        model.model_, fn.CrossEntropyLoss(), fn.Adam(lr=0.02), {}, seed=model._trainer.seed
    )
    twin.model.reset_parameters(model._trainer.seed)
    twin.fit(X, Y, 40, 32, verbose=0)
    np.testing.assert_array_equal(twin.model.predict_proba(X), model.predict_proba(X))
    assert model.history_.history["loss"] == twin.history.history["loss"]


def test_arguments_of_build_are_parameters():
    model = NetClassifier(build, **FAST)
    assert model.get_params()["build__width"] == 16
    model.set_params(build__width=5, epochs=3)
    assert model.get_params()["build__width"] == 5
    fitted = clone(model).fit(X, Y)
    assert fitted.model_[0].out_features == 5
    with pytest.raises(ValueError, match=r"^build has no argument 'depth'; it has width, dropout"):
        model.set_params(build__depth=3)
    grid = {"build__width": [2, 12], "build__dropout": [0.0, 0.1]}
    search = GridSearchCV(NetClassifier(build, **FAST), grid, cv=3).fit(X, Y)
    assert search.best_score_ > 0.9
    assert search.best_params_["build__width"] == 12


def test_labels_truths_numbers_and_sparse_rows():
    names = np.array(["a", "b", "c"])[Y]
    model = NetClassifier(build, **FAST).fit(sparse.csr_matrix(X), names)
    assert set(model.predict(X)) == {"a", "b", "c"}
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1, rtol=1e-6)
    binary = NetClassifier(build, **FAST).fit(X, names == "a")
    assert binary.predict_proba(X).shape == (150, 2)
    assert binary.decision_function(X).shape == (150,)
    np.testing.assert_array_equal(binary.decision_function(X) > 0, binary.predict(X))
    truths = np.stack([Y == 0, Y == 2], 1).astype(int)
    several = NetClassifier(build, **FAST).fit(X, truths)
    assert several.predict(X).shape == truths.shape
    assert several.score(X, truths) > 0.9
    numbers = NetRegressor(build, **FAST).fit(P, np.stack([T, -T], 1))
    assert numbers.predict(P).shape == (442, 2)
    assert NetRegressor(build, **FAST).fit(P, T).score(P, T) > 0.5


def test_early_stopping_and_eval_sets():
    options = {**FAST, "epochs": 500, "early_stopping": True, "patience": 5}
    model = NetRegressor(build, **options).fit(P, T)
    assert model.n_iter_ < 500
    losses = model.history_.history["val_loss"]
    assert losses.index(min(losses)) == len(losses) - 6
    given = NetRegressor(build, **options).fit(P[::2], T[::2], eval_set=(P[1::2], T[1::2]))
    score = fn.MSELoss().forward(given.predict(P[1::2])[:, None], T[1::2, None])
    assert min(given.history_.history["val_loss"]) == pytest.approx(score, rel=1e-5)


def test_partial_fit_and_pickles():
    model = NetClassifier(build, **FAST)
    with pytest.raises(ValueError, match=r"^classes is None in the first call"):
        model.partial_fit(X, Y)
    for _ in range(30):
        model.partial_fit(X[:100], Y[:100], classes=[0, 1, 2])
    twin = pickle.loads(pickle.dumps(model))
    assert twin.model_ is twin._trainer.model
    a, b = model.partial_fit(X, Y), twin.partial_fit(X, Y)
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))
    with pytest.raises(ValueError, match=r"classes not in `self.classes_`"):
        model.partial_fit(X, Y + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"build": lambda i, o: [fn.Linear(i, o + 1)]}, "^build returned a model whose outputs"),
        ({"build": lambda i, o: 3}, "^build returned 3; expected a Sequential"),
        ({"loss": "mse"}, "^loss is 'mse'; expected a Loss"),
        ({"optimizer": 1}, "^optimizer is 1; expected an Optimizer"),
        ({"epochs": 0}, "^epochs is 0"),
        ({"batch_size": 0}, "^batch_size is 0"),
        ({"build_params": [1]}, "^build_params is .*expected a dict"),
        ({"warm_start": 1}, "^warm_start is 1"),
        ({"callbacks": fn.Timer(9)}, r"^callbacks is Timer\(.*expected a list of callbacks"),
        ({"callbacks": None}, "^callbacks is None; expected a list of callbacks"),
        ({"n_threads": 0}, "^n_threads is 0"),
        ({"class_weight": {0: -1.0}}, "^class_weight is {0: -1.0}; expected finite numbers"),
    ],
)
def test_errors(change, message):
    with pytest.raises(HyperparameterError, match=message):
        NetClassifier(build, **FAST).set_params(**change).fit(X, Y)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match=r"^y has 1 class, 0; expected at least two classes"):
        NetClassifier(build, **FAST).fit(X[:50], Y[:50])
    with pytest.raises(ValueError, match=r"^classes has 1 class, 0; expected"):
        NetClassifier(build, **FAST).partial_fit(X[:50], Y[:50], classes=[0])


def test_losses_without_probabilities():
    model = NetClassifier(build, **FAST, loss=fn.MultiMarginLoss()).fit(X, Y)
    assert model.score(X, Y) > 0.9
    with pytest.raises(UsageError, match=r"^predict_proba: .*MultiMarginLoss"):
        model.predict_proba(X)
