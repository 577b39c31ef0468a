"""The checks that scikit-learn has for every estimator."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")

from sklearn.utils.estimator_checks import parametrize_with_checks

import fastnet as fn
from fastnet.sklearn import MLPClassifier, MLPRegressor, NetClassifier, NetRegressor


class Build:
    """A function whose repr is the same in all processes, which the names of tests contain."""

    def __call__(self, n_inputs, n_outputs, width=24):
        layers = fn.Linear(n_inputs, width), fn.ReLU(), fn.Linear(width, n_outputs)
        return fn.Sequential(*layers, dtype="float64")

    def __repr__(self):
        return "build"


pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = [
    MLPClassifier(max_iter=100),
    MLPClassifier(solver="lbfgs", max_iter=100),
    MLPRegressor(max_iter=100),
    MLPRegressor(solver="lbfgs", max_iter=100),
    NetClassifier(Build(), epochs=40, optimizer=fn.Adam(lr=0.01)),
    NetRegressor(Build(), epochs=40, optimizer=fn.Adam(lr=0.01)),
]


@parametrize_with_checks(ESTIMATORS)
def test_checks(estimator, check):
    check(estimator)
