"""From the same initial weights the losses of all epochs are scikit-learn's, in float64."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")

from scipy import sparse
from sklearn import neural_network as theirs
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

from fastnet import sklearn as mine

RNG = np.random.default_rng(0)
IRIS = load_iris(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)
FLOWERS, SPECIES = scale(IRIS[0]), np.array(["setosa", "versicolor", "virginica"])[IRIS[1]]
PATIENTS, PROGRESS = scale(DIABETES[0]), (DIABETES[1] - 152.0) / 77.0
TRUTHS = np.stack([IRIS[1] == 0, IRIS[0][:, 0] > 5.8, IRIS[0][:, 1] > 3], axis=1).astype(int)
COUNTS = RNG.poisson(np.exp(0.5 * PATIENTS[:, 2] + 0.3))
SAME = {"random_state": 3, "shuffle": False, "hidden_layer_sizes": (9, 7)}


def both(kind, X, y, weight=None, **options):
    """Theirs and ours after a fit."""
    made = []
    for module in (theirs, mine):
        estimator = getattr(module, kind)(**{**SAME, "max_iter": 40, **options})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            made.append(estimator.fit(X, y) if weight is None else estimator.fit(X, y, weight))
    return made


def compare(expected, found, tolerance=1e-9):
    """The same curve and the same weights."""
    assert found.n_iter_ == expected.n_iter_
    np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=tolerance)
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(expected, name), getattr(found, name), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-8)
    for name in ("n_layers_", "n_outputs_", "out_activation_", "t_", "n_features_in_"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.best_loss_ == pytest.approx(expected.best_loss_, rel=tolerance)
    assert found.loss_ == pytest.approx(expected.loss_, rel=tolerance)


@pytest.mark.parametrize(
    ("solver", "activation", "batch"),
    [*product(["adam", "sgd"], ["relu", "tanh", "logistic", "identity"], ["auto", 32, 1])][::1],
)
def test_classes(solver, activation, batch):
    rows = slice(None) if batch != 1 else slice(40, 70)
    options = {"solver": solver, "activation": activation, "batch_size": batch, "alpha": 0.01}
    compare(*both("MLPClassifier", FLOWERS[rows], SPECIES[rows], **options))


SETTINGS = [
    {"solver": "adam", "alpha": 3.0, "batch_size": 47},
    {"solver": "adam", "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-2, "alpha": 0.0},
    {"solver": "adam", "learning_rate_init": 0.03, "hidden_layer_sizes": ()},
    {"solver": "sgd", "momentum": 0.0, "learning_rate_init": 0.1},
    {"solver": "sgd", "momentum": 0.7, "nesterovs_momentum": False, "batch_size": 60},
    {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.3, "batch_size": 32},
    {
        "solver": "sgd",
        "learning_rate": "adaptive",
        "tol": 5e-3,
        "n_iter_no_change": 2,
        "max_iter": 150,
    },
    {"solver": "adam", "tol": 0.05, "n_iter_no_change": 3, "max_iter": 200},
    {"solver": "sgd", "tol": 1.0, "n_iter_no_change": 1},
    {"solver": "adam", "hidden_layer_sizes": 5, "n_iter_no_change": np.inf, "tol": 10.0},
]


@pytest.mark.parametrize("options", SETTINGS)
def test_options(options):
    compare(*both("MLPClassifier", FLOWERS, SPECIES, **options))


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("batch", ["auto", 50])
def test_truths_numbers_and_counts(solver, batch):
    options = {"solver": solver, "batch_size": batch}
    compare(*both("MLPClassifier", FLOWERS, SPECIES == "setosa", **options))
    compare(*both("MLPClassifier", FLOWERS, TRUTHS, **options))
    compare(*both("MLPRegressor", PATIENTS, PROGRESS, **options))
    compare(*both("MLPRegressor", PATIENTS, COUNTS, loss="poisson", **options))
    compare(*both("MLPClassifier", sparse.csr_matrix(FLOWERS), SPECIES, **options))


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_weights_of_a_whole_batch(solver):
    """scikit-learn divides by the weights of a minibatch, we by those of the data: here they are equal."""
    weight = RNG.uniform(0, 3, len(FLOWERS)) * (RNG.random(len(FLOWERS)) < 0.9)
    compare(*both("MLPClassifier", FLOWERS, SPECIES, weight, solver=solver, alpha=0.5))
    weight = RNG.uniform(0, 3, len(PATIENTS))
    options = {"solver": solver, "batch_size": len(PATIENTS)}
    compare(*both("MLPRegressor", PATIENTS, PROGRESS, weight, **options))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_lbfgs(kind, activation):
    data = (FLOWERS, SPECIES) if kind == "MLPClassifier" else (PATIENTS, PROGRESS)
    options = {"solver": "lbfgs", "alpha": 0.3, "activation": activation, "max_iter": 25}
    expected, found = both(kind, *data, **options)
    assert found.n_iter_ == expected.n_iter_
    assert found.loss_ == pytest.approx(expected.loss_, rel=1e-6)
    for a, b in zip(expected.coefs_, found.coefs_, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_early_stopping_holds_back_the_same_rows(kind, solver):
    data = (FLOWERS, SPECIES) if kind == "MLPClassifier" else (PATIENTS, PROGRESS)
    options = {"solver": solver, "early_stopping": True, "tol": 1e-3, "max_iter": 300}
    options |= {"validation_fraction": 0.25, "learning_rate_init": 0.01, "n_iter_no_change": 6}
    expected, found = both(kind, *data, **options)
    assert found.n_iter_ == expected.n_iter_
    np.testing.assert_allclose(found.validation_scores_, expected.validation_scores_, atol=1e-9)
    np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=1e-9)
    assert found.best_loss_ is None
    assert found.best_validation_score_ == pytest.approx(expected.best_validation_score_)
    for a, b in zip(expected.coefs_, found.coefs_, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("rate", ["constant", "invscaling", "adaptive"])
def test_partial_fit(solver, rate):
    made = []
    for module in (theirs, mine):
        estimator = module.MLPClassifier(**SAME, solver=solver, learning_rate=rate, batch_size=20)
        for begin in (0, 50, 100, 0, 25, 75):
            rows = slice(begin, begin + 50)
            estimator.partial_fit(FLOWERS[rows], SPECIES[rows], classes=np.unique(SPECIES))
        made.append(estimator)
    compare(*made)


def test_fit_goes_on_by_partial_fit_and_warm_start():
    made = []
    for module in (theirs, mine):
        estimator = module.MLPRegressor(**SAME, solver="adam", max_iter=12, warm_start=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            estimator.fit(PATIENTS, PROGRESS)
            estimator.partial_fit(PATIENTS[:100], PROGRESS[:100])
            estimator.fit(PATIENTS, PROGRESS)
        made.append(estimator)
    compare(*made)


def test_predictions():
    expected, found = both("MLPClassifier", FLOWERS, SPECIES)
    np.testing.assert_array_equal(found.predict(FLOWERS), expected.predict(FLOWERS))
    for name in ("predict_proba", "predict_log_proba"):
        a, b = getattr(expected, name)(FLOWERS), getattr(found, name)(FLOWERS)
        np.testing.assert_allclose(b, a, rtol=1e-7)
    expected, found = both("MLPClassifier", FLOWERS, TRUTHS)
    np.testing.assert_array_equal(found.predict(FLOWERS), expected.predict(FLOWERS))
    np.testing.assert_allclose(
        found.predict_proba(FLOWERS), expected.predict_proba(FLOWERS), rtol=1e-7
    )
    expected, found = both("MLPRegressor", PATIENTS, COUNTS, loss="poisson")
    np.testing.assert_allclose(found.predict(PATIENTS), expected.predict(PATIENTS), rtol=1e-7)
