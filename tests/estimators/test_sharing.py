"""Estimators that run at once share the threads of their process, or of its worker's share."""

from __future__ import annotations

import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")

import joblib
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score

import fastnet as fn
from fastnet import parallel
from fastnet.sklearn import MLPClassifier, NetClassifier

X, Y = load_iris(return_X_y=True)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def _threads():
    with fn.threads(8):
        yield
    assert not parallel._sharers


class Meeting(fn.Callback):
    """Waits within a fit for those of other threads, and notes how many threads it then has."""

    def __init__(self, barrier, seen):
        self.barrier, self.seen = barrier, seen

    def __deepcopy__(self, memo):
        return self

    def on_epoch_end(self, epoch, logs):
        if epoch == 1:
            self.barrier.wait(60)
            self.seen.append(fn.get_num_threads())
            self.barrier.wait(60)


def net(inputs, outputs):
    return fn.Sequential(fn.Linear(inputs, outputs))


def mlp(callback):
    return MLPClassifier(max_iter=2, callbacks=[callback])


def of_net(callback):
    return NetClassifier(net, epochs=2, callbacks=[callback])


@pytest.mark.parametrize("make", [mlp, of_net])
@pytest.mark.parametrize(("fits", "share"), [(1, 8), (2, 4), (3, 2)])
def test_fits_in_threads_have_equal_shares(make, fits, share):
    seen, barrier = [], threading.Barrier(fits)
    with joblib.parallel_config("threading", n_jobs=fits):
        fit = joblib.delayed(lambda: make(Meeting(barrier, seen)).fit(X, Y))
        joblib.Parallel()(fit() for _ in range(fits))
    assert seen == [share] * fits
    assert fn.get_num_threads() == 8


def test_more_fits_than_threads_have_one_each():
    seen, barrier = [], threading.Barrier(3)
    with fn.threads(2), ThreadPoolExecutor(3) as pool:
        fits = [pool.submit(mlp(Meeting(barrier, seen)).fit, X, Y) for _ in range(3)]
        for fit in fits:
            fit.result()
    assert seen == [1, 1, 1]


def test_a_number_of_its_own_is_not_shared():
    seen, barrier = [], threading.Barrier(1)
    model = mlp(Meeting(barrier, seen)).set_params(n_threads=5)
    with parallel.sharing():
        model.fit(X, Y)
    assert seen == [5]


def test_fits_within_a_fit_count_once():
    with parallel.sharing(), parallel.sharing():
        assert fn.get_num_threads() == 8
        seen = []
        mlp(Meeting(threading.Barrier(1), seen)).fit(X, Y)
        assert seen == [8]
    with ThreadPoolExecutor(1) as pool, parallel.sharing():
        assert pool.submit(fn.get_num_threads).result() == 8

        def inside():
            with parallel.sharing():
                return fn.get_num_threads()

        assert pool.submit(inside).result() == 4


def test_a_search_in_threads_gives_the_scores_of_one_without():
    grid = {"alpha": [1e-4, 1.0]}
    model = MLPClassifier(random_state=0, max_iter=5)
    with joblib.parallel_config("threading"):
        at_once = GridSearchCV(model, grid, cv=3, n_jobs=4).fit(X, Y)
    alone = GridSearchCV(model, grid, cv=3).fit(X, Y)
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(at_once.cv_results_[name], alone.cv_results_[name])


def test_a_share_is_kept_for_the_next_fit_and_then_given_back(monkeypatch):
    monkeypatch.setattr(parallel, "LINGER", 0.05)

    def short():
        with parallel.sharing():
            pass

    with ThreadPoolExecutor(1) as pool, parallel.sharing():
        pool.submit(short).result()
        soon = fn.get_num_threads()
        time.sleep(0.1)
        assert (soon, fn.get_num_threads()) == (4, 8)
    with ThreadPoolExecutor(1) as pool:
        with parallel.sharing():
            pool.submit(short).result()
        assert fn.get_num_threads() == parallel.count == 8


class Telling(ClassifierMixin, BaseEstimator):
    """Scores with the number of threads that a fit in its place would have."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def score(self, X, y):
        with parallel.sharing():
            return float(fn.get_num_threads())


def test_a_worker_of_loky_has_its_share():
    cores = joblib.cpu_count()
    found = cross_val_score(Telling(), X, Y, cv=2, n_jobs=2)
    assert set(found) == {float(max(1, cores // 2))}


def test_workers_of_dask_fit():
    distributed = pytest.importorskip("dask.distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=2, dashboard_address=None
            ) as cluster,
            distributed.Client(cluster),
            joblib.parallel_config("dask"),
        ):
            model = MLPClassifier(random_state=0, max_iter=5)
            found = cross_val_score(model, X, Y, cv=4)
            threads = cross_val_score(Telling(), X, Y, cv=4)
    np.testing.assert_array_equal(found, cross_val_score(model, X, Y, cv=4))
    assert set(threads) == {1.0}
