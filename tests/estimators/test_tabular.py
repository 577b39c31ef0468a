"""Nets for tables: all kinds of columns, faults of data, folds, ensembles and calibration."""

from __future__ import annotations

import pickle
from typing import ClassVar

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")

from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.metrics import log_loss
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastnet as fn
from fastnet.errors import HyperparameterError
from fastnet.sklearn import TabularClassifier, TabularRegressor

PRESETS = ["small", "full", "tabm"]


def options(preset, **more):
    net = {"width": 32, "k": 4} if preset == "tabm" else {"hidden": (48, 48)}
    return {"preset": preset, "random_state": 0, "recipe_params": net, **more}


@parametrize_with_checks(
    [
        TabularClassifier("small", epochs=60),
        TabularRegressor("small", epochs=60),
    ]
)
def test_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("preset", PRESETS)
def test_classes_and_numbers(preset):
    X, y = load_breast_cancer(return_X_y=True)
    model = TabularClassifier(**options(preset, epochs=30)).fit(X[::2], y[::2])
    assert model.score(X[1::2], y[1::2]) > 0.93
    p = model.predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    again = clone(model).fit(X[::2], y[::2])
    np.testing.assert_array_equal(again.predict_proba(X), p)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), p)
    X, y = load_diabetes(return_X_y=True)
    model = TabularRegressor(**options(preset, epochs=30)).fit(X[::2], y[::2])
    assert model.score(X[1::2], y[1::2]) > 0.2
    both = TabularRegressor(**options(preset, epochs=30)).fit(X, np.stack([y, -2 * y], 1))
    assert both.predict(X).shape == (442, 2)
    assert both.score(X, np.stack([y, -2 * y], 1)) > 0.3


@pytest.mark.parametrize("preset", PRESETS)
def test_frames_with_gaps_constants_and_categories(preset):
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(1)
    n = 400
    X = pd.DataFrame(
        {
            "number": rng.normal(size=n),
            "letter": rng.choice(list("abc"), n),
            "flag": rng.choice([True, False], n),
            "code": rng.integers(0, 15, n).astype(str),
            "constant": np.full(n, 2.5),
            "empty": np.full(n, np.nan),
            "count": rng.integers(0, 5, n),
            "kind": pd.Categorical(rng.choice(["u", "v"], n)),
        }
    )
    y = (X["letter"] == "a") ^ X["flag"]
    X.loc[::7, "number"] = np.nan
    X.loc[::13, "letter"] = None
    model = TabularClassifier(**options(preset, epochs=40)).fit(X, y)
    assert model.score(X, y) > 0.9
    assert list(model.feature_names_in_) == list(X.columns)
    new = X.copy()
    new["letter"], new["code"], new["kind"] = "z", "99", "w"
    new["count"] = np.nan
    assert np.isfinite(model.predict_proba(new)).all()
    named = TabularClassifier(**options(preset, epochs=5), categorical_features=["count", 6])
    assert np.isfinite(named.fit(X, y).predict_proba(new)).all()
    with pytest.raises(ValueError, match=r"feature names"):
        model.predict(X[list(X.columns)[::-1]])
    words = X.assign(number="many")
    with pytest.raises(ValueError, match=r"^X holds 'many' in 'number'; expected numbers"):
        model.predict(words)
    dates = X.assign(count=pd.Timestamp("2026-01-01"))
    with pytest.raises(ValueError, match=r"^X has dates or times in 'count'"):
        TabularClassifier().fit(dates, y)
    endless = X.assign(number=np.inf)
    with pytest.raises(ValueError, match=r"^X holds an infinite number in 'number'"):
        TabularClassifier().fit(endless, y)


def test_frames_of_other_libraries_are_the_same():
    pd = pytest.importorskip("pandas")
    pl = pytest.importorskip("polars")
    pa = pytest.importorskip("pyarrow")
    rng = np.random.default_rng(2)
    X = pd.DataFrame({"a": rng.normal(size=60), "b": rng.choice(["u", "v", "w"], 60)})
    y = (X["a"] > 0).to_numpy()
    made = options("small", epochs=4)
    expected = TabularClassifier(**made).fit(X, y).predict_proba(X)
    for frame in (pl.from_pandas(X), pa.Table.from_pandas(X)):
        found = TabularClassifier(**made).fit(frame, y).predict_proba(frame)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("preset", PRESETS)
def test_folds_and_ensembles(preset):
    X, y = load_iris(return_X_y=True)
    model = TabularClassifier(**options(preset, epochs=40), n_cv=3, n_ens=2).fit(X, y)
    assert len(model.histories_) == 6
    assert model.score(X, y) > 0.9
    held = np.sort(np.concatenate([fold.rest for fold in model._folds]))
    np.testing.assert_array_equal(held, np.arange(150))
    one = TabularClassifier(**options(preset, epochs=15)).fit(X, y)
    assert len(one.histories_) == 1


def test_a_temperature_lowers_the_loss_of_the_rows_held_back():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(600, 5))
    y = (X[:, 0] + rng.normal(size=600) > 0).astype(int)
    made = options("small", epochs=60, metric="accuracy")
    plain = TabularClassifier(**made, calibrate=False).fit(X, y)
    tempered = TabularClassifier(**made).fit(X, y)
    rest = plain._folds[0].rest
    assert tempered.temperature_ > 1 == plain.temperature_
    losses = [log_loss(y[rest], m.predict_proba(X[rest])) for m in (tempered, plain)]
    assert losses[0] < losses[1]
    np.testing.assert_array_equal(tempered.predict(X), plain.predict(X))


@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "auc", "balanced_accuracy", "f1"])
def test_the_best_epoch_is_that_of_the_metric(metric):
    X, y = load_breast_cancer(return_X_y=True)
    model = TabularClassifier(**options("small", epochs=10, metric=metric)).fit(X, y)
    scores = model.histories_[0].history[f"val_{metric}"]
    best = min(scores) if metric == "log_loss" else max(scores)
    trainer_free = model._folds[0].models[0]
    x = model._folds[0].encoded(model._columns.table(model._read(X, reset=False)[0]), "small")
    rest = model._folds[0].rest
    if metric == "accuracy":
        assert np.mean(trainer_free.predict_classes(x[rest]) == y[rest]) == pytest.approx(best)


def test_few_rows_and_many_columns():
    rng = np.random.default_rng(4)
    for rows, columns in ((3, 2), (4, 1), (12, 5000)):
        X, y = rng.normal(size=(rows, columns)), np.arange(rows) % 2
        model = TabularClassifier(**options("small", epochs=3)).fit(X, y)
        assert np.isfinite(model.predict_proba(X)).all()
        assert np.isfinite(
            TabularRegressor(**options("small", epochs=3)).fit(X, y).predict(X)
        ).all()


def test_predictions_of_numbers_stay_within_the_targets():
    rng = np.random.default_rng(5)
    X = rng.uniform(-1, 1, (200, 1))
    y = 3 * X[:, 0]
    far = np.array([[1e6], [-1e6]])
    model = TabularRegressor(**options("small", epochs=20)).fit(X, y)
    assert y.min() <= model.predict(far).min() <= model.predict(far).max() <= y.max()


def test_a_time_limit_ends_the_training():
    X, y = load_breast_cancer(return_X_y=True)
    model = TabularClassifier(**options("full", epochs=100_000, time_limit=0.5)).fit(X, y)
    assert 1 <= model.n_iter_ < 100_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "large"}, r"^preset is 'large'; expected"),
        ({"metric": "rmse"}, r"^metric is 'rmse'; expected"),
        ({"n_cv": 0}, r"^n_cv is 0"),
        ({"n_ens": 0}, r"^n_ens is 0"),
        ({"epochs": 0}, r"^epochs is 0"),
        ({"batch_size": 0}, r"^batch_size is 0"),
        ({"time_limit": -1}, r"^time_limit is -1"),
        ({"calibrate": "no"}, r"^calibrate is 'no'; expected True or False"),
        ({"callbacks": fn.Timer(9)}, r"^callbacks is Timer\(.*expected a list of callbacks"),
        ({"categorical_features": "a"}, r"^categorical_features is 'a'; expected a list"),
        ({"categorical_features": [9]}, r"^categorical_features has 9; X has 4 columns"),
        ({"recipe_params": [1]}, r"^recipe_params is .*expected a dict"),
    ],
)
def test_errors(change, message):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(HyperparameterError, match=message):
        TabularClassifier(**{**options("small"), **change}).fit(X, y)


def test_clamp_is_a_flag():
    with pytest.raises(HyperparameterError, match=r"^clamp is 'no'; expected True or False"):
        TabularRegressor("small", clamp="no").fit([[0.0], [1.0]], [0.0, 1.0])


class Counting(fn.Callback):
    ends: ClassVar = []

    def on_epoch_end(self, epoch, logs):
        self.ends.append((epoch, logs["loss"]))


def test_callbacks_are_copied_for_each_net():
    X, y = load_iris(return_X_y=True)
    Counting.ends.clear()
    model = TabularClassifier(**options("small", epochs=3), n_ens=2, callbacks=[Counting()])
    model.fit(X, y)
    expected = [(r["epoch"], r["loss"]) for history in model.histories_ for r in history.records]
    assert sorted(Counting.ends) == sorted(expected) and len(expected) == 6
