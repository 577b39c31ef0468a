"""grid_fit: a whole grid of MLPs on all folds, trained together in one process."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.base import clone, is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import ParameterGrid, check_cv

from fastnet.errors import DivergenceError, HyperparameterError, check_kind, outside, shown
from fastnet.op import Array
from fastnet.sklearn.base import BaseMLP, Fitting
from fastnet.sklearn.settings import Settings
from fastnet.sklearn.training import Job
from fastnet.sklearn.weights import threads_of
from fastnet.train import fit_many


@dataclass(eq=False)
class _Candidate:
    """One setting on one fold."""

    estimator: Any
    train: Array
    test: Array
    fitting: Fitting | None = None
    job: Job | None = None
    error: Exception | None = None
    seconds: float = 0.0
    score: float = field(default=float("nan"))
    scoring_seconds: float = 0.0


def grid_fit(
    estimator: BaseMLP,
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]],
    X: Any,
    y: Any,
    cv: Any = None,
    *,
    scoring: Any = None,
    n_threads: int | None = None,
) -> dict[str, Any]:
    """The scores of all settings of a grid on all folds: `cv_results_` in scikit-learn's form.

    estimator: MLPClassifier or MLPRegressor. grid: as GridSearchCV takes it. X, y: arrays.
    cv: None (default: five folds), an integer, or a splitter. scoring: None (default: the estimator's
        `score`), a name or a function, as for GridSearchCV.
    n_threads: integer ≥ 1 or None (default), over which the nets are shared.

    Each net has the fit that GridSearchCV would give it, and its bits on backend "c"; one call of
    `fn.fit_many` trains all of them. Settings with solver "lbfgs" or with class weights are fitted one
    after the other. A net that diverges has the score NaN, with a warning.
    """
    check_kind("estimator", estimator, BaseMLP)
    settings = list(ParameterGrid(grid))
    if not settings:
        raise HyperparameterError(f"grid is {shown(grid)}; expected at least one setting")
    X, y = np.asarray(X), np.asarray(y)
    folds = list(check_cv(cv, y, classifier=is_classifier(estimator)).split(X, y))
    made = [
        _Candidate(clone(estimator).set_params(**clone(one, safe=False)), train, test)
        for one in settings
        for train, test in folds
    ]
    with threads_of(n_threads):
        _train(made, X, y)
    scorer = check_scoring(estimator, scoring)
    for one in made:
        _score(one, scorer, X, y)
    return _results(settings, made, len(folds))


def _train(made: list[_Candidate], X: Array, y: Array) -> None:
    """Begin all fits, run what waits, and end them."""
    groups: dict[Any, list[_Candidate]] = {}
    for one in made:
        begun = time.perf_counter()
        known = Settings.of(one.estimator)
        fitting = one.estimator._fitting(known, X[one.train], y[one.train], None)
        one.job = next(fitting, None)
        one.seconds = time.perf_counter() - begun
        if one.job is None:
            continue
        one.fitting = fitting
        alike = one.job.shuffle, one.job.restore_best, str(one.job.rows.X.dtype)
        alone = one.job.rows.weight is not None or not _same_classes(one, y)
        groups.setdefault(id(one) if alone else alike, []).append(one)
    for group in groups.values():
        if len(group) == 1:
            begun = time.perf_counter()
            _end(group[0], group[0].job.run() if group[0].job else None)
            group[0].seconds += time.perf_counter() - begun
        else:
            _together(group, X, y)


def _same_classes(one: _Candidate, y: Array) -> bool:
    """Whether the fold has all labels, so that these have the same numbers in all folds."""
    classes = getattr(one.estimator, "classes_", None)
    return classes is None or y.ndim > 1 or len(np.setdiff1d(y, classes)) == 0


def _together(group: list[_Candidate], X: Array, y: Array) -> None:
    """Train the nets of several fits in one call."""
    jobs = [one.job for one in group if one.job is not None]
    encoded = group[0].estimator._targets.encoded(y, jobs[0].rows.X.dtype)
    rows, rest = [], []
    for one, job in zip(group, jobs, strict=True):
        own, held = job.rows.index, None if job.validation is None else job.validation.index
        rows.append(one.train if own is None else one.train[own])
        rest.append(None if held is None else one.train[held])
    histories = fit_many(
        [job.trainer for job in jobs],
        X.astype(jobs[0].rows.X.dtype, copy=False),
        encoded,
        rows=rows,
        validation=rest if any(one is not None for one in rest) else None,
        epochs=[job.epochs for job in jobs],
        batch_size=[job.batch_size for job in jobs],
        shuffle=jobs[0].shuffle,
        restore_best=jobs[0].restore_best,
        callbacks=[job.callbacks for job in jobs],
        errors="return",
    )
    for one, history in zip(group, histories, strict=True):
        one.seconds += sum(record["seconds"] for record in history.records)
        _end(one, history.error)  # type: ignore[arg-type]


def _end(one: _Candidate, error: DivergenceError | None) -> None:
    """Go on with a fit whose training has ended."""
    try:
        if one.fitting is not None:
            one.fitting.send(error)
    except StopIteration:
        pass
    except ValueError as failed:  # it has diverged
        one.error = failed
        warnings.warn(f"a fit has failed: {failed}", FitFailedWarning, stacklevel=outside())


def _score(one: _Candidate, scorer: Any, X: Array, y: Array) -> None:
    if one.error is None:
        begun = time.perf_counter()
        one.score = float(scorer(one.estimator, X[one.test], y[one.test]))
        one.scoring_seconds = time.perf_counter() - begun


def _results(settings: list[dict[str, Any]], made: list[_Candidate], folds: int) -> dict[str, Any]:
    """The dict of GridSearchCV.cv_results_."""
    shape = len(settings), folds
    found: dict[str, Any] = {}
    for name, attribute in (("fit", "seconds"), ("score", "scoring_seconds")):
        times = np.array([getattr(one, attribute) for one in made]).reshape(shape)
        found[f"mean_{name}_time"], found[f"std_{name}_time"] = times.mean(1), times.std(1)
    for name in sorted({name for one in settings for name in one}):
        column = np.ma.MaskedArray(np.empty(len(settings), object), mask=True)
        for i, one in enumerate(settings):
            if name in one:
                column[i] = one[name]
        found[f"param_{name}"] = column
    found["params"] = settings
    scores = np.array([one.score for one in made]).reshape(shape)
    for k in range(folds):
        found[f"split{k}_test_score"] = scores[:, k]
    found["mean_test_score"], found["std_test_score"] = scores.mean(1), scores.std(1)
    mean = np.where(np.isnan(scores.mean(1)), -np.inf, scores.mean(1))
    found["rank_test_score"] = rankdata(-mean, method="min").astype(np.int32)
    return found
