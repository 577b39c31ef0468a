"""scikit-learn's callbacks, where it has them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn.callback")
pytest.importorskip("scipy")

from sklearn.callback import ProgressBar
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import scale

from fastnet.sklearn import MLPClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)
X = scale(X)


class Recording:
    """Notes all calls; ends the training after an epoch."""

    def __init__(self, last=None):
        self.calls, self.last, self.scores = [], last, []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
        self.calls.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.calls.append(("end", context.task_name))
        self.scores.append(fitted_estimator.score(X, y))
        return self.last is not None and self.calls.count(("end", "epoch")) >= self.last


def test_they_hear_of_the_fit_and_of_its_epochs():
    seen = Recording()
    model = MLPClassifier(random_state=0, max_iter=4).set_callbacks(seen).fit(X, Y)
    epoch = [("begin", "epoch"), ("end", "epoch")]
    assert seen.calls == ["setup", ("begin", "fit"), *4 * epoch, ("end", "fit"), "teardown"]
    assert seen.scores[-1] == model.score(X, Y)
    assert len(set(seen.scores)) > 1
    plain = MLPClassifier(random_state=0, max_iter=4).fit(X, Y)
    np.testing.assert_array_equal(plain.coefs_[0], model.coefs_[0])


def test_they_may_end_the_training():
    model = MLPClassifier(random_state=0, max_iter=50).set_callbacks(Recording(last=3)).fit(X, Y)
    assert model.n_iter_ == 3


def test_a_bar_of_progress_in_a_search(capsys):
    pytest.importorskip("rich")
    bar = ProgressBar()
    search = GridSearchCV(MLPClassifier(random_state=0, max_iter=3), {"alpha": [0.1, 1.0]}, cv=2)
    search.set_callbacks(bar).fit(X, Y)
    assert search.best_score_ > 0
