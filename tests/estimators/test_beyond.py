"""What our MLPs have beyond scikit-learn's."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")

from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

import fastnet as fn
from fastnet.errors import HyperparameterError
from fastnet.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)
X = scale(X)
P, T = load_diabetes(return_X_y=True)
P, T = scale(P), (T - T.mean()) / T.std()
FAST = {"random_state": 0, "learning_rate_init": 0.02, "max_iter": 60}


def test_class_weights_are_weights_of_rows():
    weights = {0: 0.0, 1: 1.0, 2: 3.0}
    model = MLPClassifier(**FAST, class_weight=weights).fit(X, Y)
    same = MLPClassifier(**FAST).fit(X, Y, np.array([0.0, 1.0, 3.0])[Y])
    np.testing.assert_array_equal(model.coefs_[0], same.coefs_[0])
    assert (model.predict(X) != 0).all()
    labels = np.r_[np.zeros(120, int), np.ones(30, int)]
    balanced = MLPClassifier(**FAST, class_weight="balanced").fit(X, labels)
    plain = MLPClassifier(**FAST).fit(X, labels, np.where(labels == 1, 2.5, 0.625))
    np.testing.assert_array_equal(balanced.coefs_[0], plain.coefs_[0])
    with pytest.raises(
        HyperparameterError, match=r"^class_weight is 'balanced', which partial_fit"
    ):
        MLPClassifier(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])


@pytest.mark.parametrize("activation", ["GELU", fn.SiLU, fn.LeakyReLU(0.2), "tanh"])
def test_any_activation_dropout_and_batchnorm(activation):
    model = MLPClassifier((20, 10), activation, **FAST, dropout=0.1, batch_norm=True).fit(X, Y)
    kinds = [type(layer) for _, layer in model._network.model.layers]
    assert kinds.count(fn.BatchNorm1d) == kinds.count(fn.Dropout) == 2
    assert model.score(X, Y) > 0.9
    again = clone(model).fit(X, Y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "softplux"}, "^activation is 'softplux'; expected one of identity"),
        ({"activation": fn.Linear}, "^activation is .*Linear.*, which needs arguments"),
        ({"activation": fn.Concat(fn.Tanh(), fn.Tanh())}, r"^activation is Concat.*\(200,\)"),
        ({"optimizer": "adam"}, "^optimizer is 'adam'; expected an Optimizer"),
        ({"optimizer": fn.SGD(), "solver": "lbfgs"}, "^optimizer is .*solver='lbfgs'"),
        ({"callbacks": fn.Timer()}, "^callbacks is .*expected a list"),
        ({"callbacks": [3]}, r"^callbacks\[0\] is 3; expected a Callback"),
        ({"dropout": 1.0}, r"^dropout is 1.0; expected a finite number in \[0, 1\)"),
        ({"hidden_layer_sizes": (3, 0)}, "^hidden_layer_sizes must be > 0"),
        ({"hidden_layer_sizes": 2.5}, "^hidden_layer_sizes must be > 0"),
        ({"solver": "rmsprop"}, "^solver is 'rmsprop'; expected"),
        ({"alpha": -1}, "^alpha is -1"),
        ({"n_iter_no_change": 0}, "^n_iter_no_change is 0"),
        ({"max_iter": 0}, "^max_iter is 0"),
        ({"n_threads": 0}, "^n_threads is 0"),
        ({"backend": "gpu"}, "^backend 'gpu' is unknown"),
    ],
)
def test_errors_name_the_parameter(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        MLPClassifier(**options).fit(X, Y)


def test_optimizers_and_callbacks_of_fastnet():
    class Counting(fn.Callback):
        def __init__(self):
            super().__init__()
            self.epochs = []

        def on_epoch_end(self, epoch, logs):
            self.epochs.append((epoch, logs["loss"]))

    counting = Counting()
    given = fn.AdamW(lr=0.05)
    model = MLPClassifier(
        random_state=0, max_iter=12, optimizer=given, callbacks=[counting], alpha=0.1
    ).fit(X, Y)
    assert [loss for _, loss in counting.epochs] == pytest.approx(model.loss_curve_)
    assert model.score(X, Y) > 0.9
    assert len(given._states) == 0  # each fit takes a copy


def test_an_eval_set_is_scored_after_each_epoch():
    test = X[::3], Y[::3]
    model = MLPClassifier(**FAST).fit(X, Y, eval_set=test)
    assert len(model.validation_scores_) == model.n_iter_
    assert model.validation_scores_[-1] == pytest.approx(model.score(*test))
    plain = MLPClassifier(**FAST).fit(X, Y)
    np.testing.assert_array_equal(plain.coefs_[0], model.coefs_[0])
    stopped = MLPClassifier(**{**FAST, "max_iter": 300}, early_stopping=True)
    stopped.fit(X, Y, eval_set=test)
    assert stopped.best_validation_score_ == pytest.approx(stopped.score(*test))
    weights = np.linspace(0, 2, 50)
    weighted = MLPClassifier(**FAST, early_stopping=True).fit(X, Y, eval_set=(*test, weights))
    best = weighted.score(*test, sample_weight=weights)
    assert weighted.best_validation_score_ == pytest.approx(best)
    several = MLPRegressor(**FAST).fit(P, np.stack([T, -T], 1), eval_set=(P, np.stack([T, -T], 1)))
    assert several.validation_scores_[-1] == pytest.approx(several.score(P, np.stack([T, -T], 1)))
    with pytest.raises(HyperparameterError, match=r"^eval_set is "):
        MLPClassifier().fit(X, Y, eval_set=X)


def test_quantiles_and_robust_losses():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (1000, 1))
    y = x[:, 0] + rng.exponential(1.0, 1000)
    for q in (0.1, 0.5, 0.9):
        options = {"loss": "quantile", "quantile": q, "hidden_layer_sizes": 8, "tol": 0}
        options |= {"learning_rate_init": 0.02, "max_iter": 150}
        model = MLPRegressor(**options, random_state=0).fit(x, y)
        assert np.mean(y <= model.predict(x)) == pytest.approx(q, abs=0.04)
    y[::50] += 1e4
    robust = MLPRegressor("huber", 8, random_state=0, learning_rate_init=0.02, delta=0.5).fit(x, y)
    assert np.abs(np.median(robust.predict(x) - x[:, 0]) - 0.8) < 0.3


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_pickles_and_copies_go_on(kind):
    data = (X, Y) if kind is MLPClassifier else (P, T)
    model = kind(**FAST, dropout=0.1).fit(*data)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.predict(data[0]), model.predict(data[0]))
        assert other.coefs_[0] is not model.coefs_[0]
        other.partial_fit(*data)
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        twin.partial_fit(*data).coefs_[0], model.partial_fit(*data).coefs_[0]
    )
    np.testing.assert_array_equal(twin.coefs_[0], other.coefs_[0])
    parameters = sum(a.nbytes for a in (*model.coefs_, *model.intercepts_))
    assert len(pickle.dumps(model)) < 3 * parameters + 20_000  # weights and Adam's two vectors


def test_weights_may_be_replaced_and_not_written():
    model = MLPRegressor(**FAST).fit(P, T)
    with pytest.raises(ValueError, match="read-only"):
        model.coefs_[0][:] = 0
    model.coefs_[-1] = np.zeros_like(model.coefs_[-1])
    model.intercepts_[-1] = np.array([2.5])
    np.testing.assert_array_equal(model.predict(P), np.full(len(P), 2.5))
    assert pickle.loads(pickle.dumps(model)).predict(P)[0] == 2.5
    model.coefs_[0] = np.zeros((3, 3))
    with pytest.raises(ValueError, match="shape"):
        model.predict(P)


def test_in_searches_and_pipelines():
    pipe = make_pipeline(StandardScaler(), MLPClassifier(random_state=0, max_iter=30))
    grid = {"mlpclassifier__hidden_layer_sizes": [(8,), (16,)], "mlpclassifier__dropout": [0, 0.1]}
    search = GridSearchCV(pipe, grid, cv=3).fit(X, Y)
    assert search.best_score_ > 0.5
    assert len(search.cv_results_["params"]) == 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backends_agree(backend, dtype):
    options = {**FAST, "max_iter": 8, "shuffle": False}
    model = MLPClassifier(**options, backend=backend).fit(X.astype(dtype), Y)
    other = MLPClassifier(**options).fit(X.astype(dtype), Y)
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(model.loss_curve_, other.loss_curve_, rtol=tolerance)
    assert model.coefs_[0].dtype == model.predict_proba(X[:2]).dtype == dtype


@pytest.mark.parametrize("options", [{"max_iter": 2}, {"solver": "lbfgs", "max_iter": 2}])
def test_warnings_name_the_users_line(options):
    with pytest.warns(UserWarning, match=r"has not converged") as told:
        MLPClassifier(**options).fit(X, Y)
    assert [one.filename for one in told] == [__file__]


@pytest.mark.parametrize("before", [False, True])
def test_a_fit_that_fails_leaves_the_estimator_as_it_was(before):
    model = MLPClassifier(**FAST)
    if before:
        model.fit(X, Y)
        expected = model.predict_proba(X)
    for bad in ((X, Y + 1), (X[:, :2], Y), X):
        with pytest.raises(ValueError, match=r"eval_set|classes not in|features"):
            model.fit(X[::2], Y[::2], eval_set=bad)
    diverging = model.set_params(solver="sgd", learning_rate_init=1e30, activation="identity")
    with pytest.raises(ValueError, match=r"non-finite"):
        diverging.fit(1e10 * X, Y)
    if before:
        np.testing.assert_array_equal(model.predict_proba(X), expected)
    else:
        with pytest.raises(ValueError, match=r"not fitted"):
            model.predict(X)
