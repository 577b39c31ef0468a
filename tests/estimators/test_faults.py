"""Where scikit-learn's MLP is wrong, ours is not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")

from sklearn import neural_network as theirs
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

import fastnet as fn
from fastnet.sklearn import MLPClassifier, MLPRegressor, NetRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
RNG = np.random.default_rng(1)
X, Y = load_iris(return_X_y=True)
X = scale(X)


def test_weights_have_an_effect_on_minibatches_of_one_row():
    weight = np.where(Y == 0, 0.0, 1.0)
    model = MLPClassifier(batch_size=1, random_state=0, max_iter=5).fit(X, Y, weight)
    plain = MLPClassifier(batch_size=1, random_state=0, max_iter=5).fit(X, Y)
    assert (model.predict(X) != 0).all()
    assert (plain.predict(X) == 0).any()


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("batch", [150, 17])
def test_a_weight_is_a_repetition_of_the_row(solver, batch):
    weight = RNG.integers(0, 4, len(X))
    options = {"solver": solver, "random_state": 0, "max_iter": 20, "shuffle": False}
    options |= {"hidden_layer_sizes": 8, "batch_size": batch}
    model = MLPClassifier(**options).fit(X, Y, weight)
    again = MLPClassifier(**{**options, "batch_size": batch}).fit(X, Y, 3.5 * weight)
    if batch == 150:
        repeated = np.repeat(np.arange(len(X)), weight)
        options["batch_size"] = len(repeated)
        other = MLPClassifier(**options).fit(X[repeated], Y[repeated])
        np.testing.assert_allclose(model.predict_proba(X), other.predict_proba(X), rtol=1e-4)
    else:  # the penalty alone knows the size of weights
        np.testing.assert_allclose(
            model.predict_proba(X), again.predict_proba(X), rtol=0.1, atol=0.01
        )


def test_weights_that_are_all_zero_are_refused():
    for estimator in (MLPClassifier(), MLPRegressor(), MLPClassifier(solver="lbfgs")):
        with pytest.raises(ValueError, match=r"^sample_weight is zero for all rows"):
            estimator.fit(X, Y, np.zeros(len(X)))


def test_lbfgs_trains_many_outputs():
    many = X @ RNG.normal(size=(4, 1200)) + 0.5
    options = {"solver": "lbfgs", "random_state": 0, "max_iter": 60, "hidden_layer_sizes": 20}
    score = MLPRegressor(**options).fit(X, many).score(X, many)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert score > 0.9 > theirs.MLPRegressor(**options).fit(X, many).score(X, many)


def test_early_stopping_with_warm_start_keeps_the_best_epoch():
    images, digits = load_digits(return_X_y=True)
    images = images / 16
    options = {"early_stopping": True, "warm_start": True, "random_state": 0, "max_iter": 40}
    model = MLPClassifier(**options).fit(images, digits)
    before, best = model.score(images, digits), model.best_validation_score_
    assert before > 0.95
    model.set_params(learning_rate_init=5.0, max_iter=5).fit(images, digits)
    assert model.best_validation_score_ >= best
    assert model.score(images, digits) >= before - 0.01


def test_partial_fit_has_another_order_in_each_call():
    options = {"random_state": 3, "hidden_layer_sizes": 6, "batch_size": 10, "alpha": 0.0}
    model = MLPClassifier(**options)
    for _ in range(3):
        model.partial_fit(X, Y, classes=[0, 1, 2])
    whole = MLPClassifier(**options, max_iter=3).fit(X, Y)
    for a, b in zip(model.coefs_, whole.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    repeated = MLPClassifier(**options)
    repeated.partial_fit(X, Y, classes=[0, 1, 2])
    first = repeated._epochs.trainer.epoch
    repeated.partial_fit(X, Y)
    assert (first, repeated._epochs.trainer.epoch) == (1, 2)


class Failing(fn.Callback):
    """Fails after an epoch."""

    def on_epoch_end(self, epoch, logs):
        raise RuntimeError("no more")


def net_of(n_inputs, n_outputs):
    return [fn.Linear(n_inputs, 5), fn.BatchNorm1d(5), fn.Tanh(), fn.Linear(5, n_outputs)]


@pytest.mark.parametrize("incremental", [False, True], ids=["warm", "partial"])
@pytest.mark.parametrize(
    "model",
    [
        MLPRegressor(hidden_layer_sizes=5, max_iter=3, random_state=0, warm_start=True),
        NetRegressor(net_of, epochs=3, random_state=0, warm_start=True),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_fit_that_goes_on_and_fails_changes_nothing(model, incremental):
    model, twin = (clone(model).fit(X, X[:, :2]) for _ in range(2))
    before = model.predict(X)
    fit = model.partial_fit if incremental else model.fit
    model.callbacks = [Failing()]
    with pytest.raises(RuntimeError, match="no more"):
        fit(X, X[:, :2] + 5)
    np.testing.assert_array_equal(model.predict(X), before)
    model.callbacks = ()
    for one in (model, twin):  # optimizer and counts are those of before, too
        one.partial_fit(X, X[:, :2]) if incremental else one.fit(X, X[:, :2])
    np.testing.assert_array_equal(model.predict(X), twin.predict(X))
    assert model.n_iter_ == twin.n_iter_
