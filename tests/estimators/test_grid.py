"""A whole grid in one call: the scores of GridSearchCV, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")

from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.preprocessing import scale

from fastnet.errors import HyperparameterError
from fastnet.sklearn import MLPClassifier, MLPRegressor, grid_fit

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)
X, NAMES = scale(X), np.array(["a", "b", "c"])[Y]
P, T = load_diabetes(return_X_y=True)
P, T = scale(P), (T - T.mean()) / T.std()

GRIDS = {
    "rates and widths": (
        MLPClassifier(random_state=0, max_iter=25),
        {"learning_rate_init": [1e-3, 1e-2], "hidden_layer_sizes": [(5,), (9, 4)]},
        (X, NAMES),
    ),
    "early stopping": (
        MLPClassifier(random_state=0, max_iter=60, early_stopping=True, learning_rate_init=0.01),
        {"alpha": [1e-4, 1.0], "solver": ["adam", "sgd"]},
        (X, NAMES),
    ),
    "two classes": (
        MLPClassifier(random_state=0, max_iter=15, hidden_layer_sizes=6),
        {"batch_size": [10, "auto"], "activation": ["tanh", "relu"], "dropout": [0.0, 0.2]},
        (X, Y == 1),
    ),
    "numbers": (
        MLPRegressor(random_state=0, max_iter=20),
        [{"alpha": [0.1, 1.0]}, {"hidden_layer_sizes": [3, (4, 4)], "shuffle": [False]}],
        (P, T),
    ),
    "several ways": (
        MLPRegressor(random_state=0, max_iter=12, hidden_layer_sizes=5),
        {
            "solver": ["adam", "lbfgs"],
            "early_stopping": [False, True],
            "loss": ["squared_error", "huber"],
        },
        (P, T),
    ),
    "weighted classes": (
        MLPClassifier(random_state=0, max_iter=10, hidden_layer_sizes=5),
        {"class_weight": [None, "balanced", {"a": 3.0}]},
        (X, NAMES),
    ),
}


@pytest.mark.parametrize("case", GRIDS)
@pytest.mark.parametrize("cv", [3, KFold(4, shuffle=True, random_state=2)], ids=["3", "KFold"])
def test_it_is_grid_search(case, cv):
    estimator, grid, (x, y) = GRIDS[case]
    found = grid_fit(estimator, grid, x, y, cv)
    expected = GridSearchCV(estimator, grid, cv=cv, refit=False).fit(x, y).cv_results_
    assert list(found) == list(expected)
    assert found["params"] == expected["params"]
    for name, column in expected.items():
        if name.endswith("_time") or name == "params":
            continue
        if name.startswith("param_"):
            assert found[name].tolist() == column.tolist()
        else:
            np.testing.assert_array_equal(found[name], column)


def test_other_scores():
    estimator, grid, (x, y) = GRIDS["rates and widths"]
    found = grid_fit(estimator, grid, x, y, 3, scoring="neg_log_loss")
    expected = GridSearchCV(estimator, grid, cv=3, scoring="neg_log_loss", refit=False).fit(x, y)
    np.testing.assert_array_equal(
        found["split1_test_score"], expected.cv_results_["split1_test_score"]
    )


def test_a_net_that_diverges_has_no_score():
    estimator = MLPRegressor(random_state=0, max_iter=30, solver="sgd", hidden_layer_sizes=5)
    with pytest.warns(match="^a fit has failed"):
        found = grid_fit(estimator, {"learning_rate_init": [1e-3, 1e6]}, P, T, 3)
    assert np.isfinite(found["mean_test_score"][0])
    assert np.isnan(found["mean_test_score"][1])
    assert found["rank_test_score"].tolist() == [1, 2]


def test_errors():
    with pytest.raises(HyperparameterError, match=r"^estimator is .*; expected a BaseMLP"):
        grid_fit(GridSearchCV, {}, X, Y)
    with pytest.raises(ValueError, match="alpha is -1"):
        grid_fit(MLPClassifier(), {"alpha": [-1]}, X, Y)
