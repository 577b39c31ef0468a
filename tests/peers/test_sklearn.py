"""Full-batch fits against scikit-learn's, on the digits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastnet as fn

pytest.importorskip("sklearn")
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

(X, LABELS), (TEST_X, TEST_LABELS) = fn.datasets.digits()
X, TEST_X = (np.asarray(x, float).reshape(len(x), -1) / np.max(x) for x in (X, TEST_X))
ROWS = len(X)


def fit(model, alpha, **options):
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), seed=0)
    decay = {"weight_decay": alpha, "decay_biases_and_norms": False}
    return trainer.fit_full_batch(X, LABELS, **decay, **options)


@pytest.mark.parametrize("method", ["L-BFGS-B", "Newton-CG"])
def test_multinomial_regression_ends_where_scikit_learns_does(method):
    alpha = 0.01
    theirs = LogisticRegression(C=1 / (ROWS * alpha), tol=1e-7, max_iter=1000).fit(X, LABELS)
    model = fn.Sequential(fn.Linear(64, 10), dtype="float64", seed=0)
    history = fit(model, alpha, method=method, max_iter=1000, tol=1e-7)
    assert history.result.success
    state = model.state_dict()
    np.testing.assert_allclose(state["0.weight"], theirs.coef_, atol=2e-4)
    # A number added to all biases changes no probability.
    biases = [b - b.mean() for b in (state["0.bias"], theirs.intercept_)]
    np.testing.assert_allclose(*biases, atol=2e-4)


def test_a_net_of_scikit_learns_has_the_loss_that_it_says_and_others_as_good_are_found():
    alpha = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = MLPClassifier((30,), solver="lbfgs", alpha=alpha, max_iter=300, random_state=0)
        theirs.fit(X, LABELS)
    model = fn.Sequential(fn.Linear(64, 30), fn.ReLU(), fn.Linear(30, 10), dtype="float64", seed=0)
    own = fit(model, alpha / ROWS, max_iter=300).records[-1]["loss"]
    assert own == pytest.approx(theirs.loss_, 0.1)
    accuracies = [
        np.mean(np.argmax(model.predict(TEST_X), 1) == TEST_LABELS),
        theirs.score(TEST_X, TEST_LABELS),
    ]
    assert min(accuracies) > 0.93 and abs(accuracies[0] - accuracies[1]) < 0.02
    parts = zip(theirs.coefs_, theirs.intercepts_, (0, 2), strict=True)
    loaded = {}
    for weight, bias, place in parts:
        loaded |= {f"{place}.weight": weight.T, f"{place}.bias": bias}
    model.load_state_dict(loaded)
    start = fit(model, alpha / ROWS, max_iter=1).records[0]
    assert start["loss"] == pytest.approx(theirs.loss_, 1e-9)
