"""Many nets at once, in a process that may use two cores: prints JSON for `run.py`.

FASTNET_BENCH_CORES=2 python bench/suites/many.py SECONDS
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/, as for a script there

from measure import pin  # isort: skip  (before NumPy loads)

import importlib.util
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import fastnet as fn
from contenders.fits import FITS, Fit
from contenders.peers import sklearn_mlp
from contenders.predictors import Predictor as Repeat
from contenders.training import FastnetChunk
from contenders.workloads import LR, SEED
from measure.timing import interleave, warm

RATES = tuple(LR * 2.0**power for power in range(-4, 4))  # of the search
FOLDS = 5
ENGINE = "the engine's own steps"  # as many as all the nets make


class Scaled(Repeat):
    """A call that does a share of a case's work; `whole` scales its seconds."""

    def __init__(self, call: Callable[[], Any], whole: float) -> None:
        super().__init__(call)
        self.whole = whole


def together(
    fit: Fit,
    count: int,
    optimizers: Any = None,
    rows: list[Any] | None = None,
) -> Any:
    """`fit_many` of new nets; making them is part of it. Returns their histories."""
    workload = fit.workload
    return fn.fit_many(
        [workload.model("auto") for _ in range(count)],
        *fit.data(),
        losses=workload.loss(),
        optimizers=optimizers or fn.Adam(lr=LR),
        seeds=[SEED] * count,
        rows=rows,
        epochs=fit.epochs,
        batch_size=workload.batch,
    )


def one_by_one(fit: Fit, count: int) -> Any:
    """The same with a trainer for each net, on one thread. Returns their histories."""
    workload, data, histories = fit.workload, fit.data(), []
    with fn.threads(1):
        for _ in range(count):
            trainer = fn.Trainer(workload.model("auto"), workload.loss(), fn.Adam(lr=LR), seed=SEED)
            trainer.fit(*data, epochs=fit.epochs, batch_size=workload.batch, verbose=0)
            histories.append(trainer.history)
    return histories


def sklearn_fits(fit: Fit, count: int) -> Any:
    """So many fits by scikit-learn in joblib's processes, one for each core."""
    from joblib import Parallel, delayed

    x, y = fit.data()
    y = y if fit.workload.classes else y[:, 0]
    options = {"max_iter": fit.epochs, "n_iter_no_change": fit.epochs + 1, "tol": 0.0}
    jobs = (delayed(_fit_quietly)(sklearn_mlp(fit.workload, **options), x, y) for _ in range(count))
    return Parallel(n_jobs=2)(jobs)


def _fit_quietly(estimator: Any, x: Any, y: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        estimator.fit(x, y)


def folds(count: int) -> list[Any]:
    """The rows to train on, one array a fold, as scikit-learn's KFold cuts them."""
    parts = np.array_split(np.arange(count), FOLDS)
    return [np.concatenate([*parts[:k], *parts[k + 1 :]]) for k in range(FOLDS)]


def search(fit: Fit, rates: tuple[float, ...]) -> Any:
    """Each learning rate on each fold, all at once."""
    each = [(rate, rows) for rate in rates for rows in folds(len(fit.data()[0]))]
    optimizers = [fn.Adam(lr=rate) for rate, _ in each]
    return together(fit, len(each), optimizers, [rows for _, rows in each])


def grid_search(fit: Fit, rates: tuple[float, ...]) -> Any:
    """The same by scikit-learn's GridSearchCV in two processes."""
    from sklearn.model_selection import GridSearchCV, KFold

    options = {"max_iter": fit.epochs, "n_iter_no_change": fit.epochs + 1, "tol": 0.0}
    grid = {"learning_rate_init": rates}
    found = GridSearchCV(
        sklearn_mlp(fit.workload, **options), grid, cv=KFold(FOLDS), n_jobs=2, refit=False
    )
    _fit_quietly(found, *fit.data())
    return found


def engine_steps(fit: Fit, count: int) -> Repeat:
    """So many of the engine's own steps, in one native call."""
    chunk = FastnetChunk(fit.workload, "auto")
    return Repeat(lambda: chunk.run(count))


def cases(quick: bool) -> dict[str, dict[str, Callable[[], Repeat]]]:
    """Who takes turns at what; quick, for tests: few nets and epochs."""
    housing = replace(FITS["housing"], epochs=1 if quick else 5)
    xor = replace(FITS["xor"], epochs=2 if quick else 1000)
    digits = replace(FITS["digits"], epochs=1 if quick else 20)
    rates = RATES[:1] if quick else RATES
    nets, many, few = (4, 10, 2) if quick else (64, 1000, 20)
    found: dict[str, dict[str, Callable[[], Repeat]]] = {
        "64 housing nets": {
            "fit_many": lambda: Repeat(partial(together, housing, nets)),
            "one by one": lambda: Repeat(partial(one_by_one, housing, nets)),
        },
        "1,000 nets 2-4-1, 1,000 epochs": {
            "fit_many": lambda: Repeat(partial(together, xor, many)),
            ENGINE: lambda: engine_steps(xor, many * xor.epochs),
        },
        "8 learning rates on 5 folds of digits": {
            "fit_many": lambda: Repeat(partial(search, digits, rates))
        },
    }
    if importlib.util.find_spec("sklearn"):
        _, alone, searched = found.values()
        alone["joblib and scikit-learn"] = lambda: Scaled(
            partial(sklearn_fits, xor, few), many / few
        )
        searched["GridSearchCV"] = lambda: Repeat(partial(grid_search, digits, rates))
    return found


def check_same_fit() -> None:
    """Assert that nets that are trained together end as those that are trained alone."""
    fit = replace(FITS["housing"], epochs=1)
    histories = [one_by_one(fit, 2), together(fit, 2)]
    alone, many = ([h.records[-1]["loss"] for h in nets] for nets in histories)
    if alone != many:
        raise AssertionError(f"losses of nets trained together differ: {many}, alone {alone}")


def main() -> None:
    """Measure, print."""
    seconds = float(sys.argv[1])
    reason = None
    if not hasattr(fn, "fit_many"):
        reason = "this fastnet has no fit_many"
    elif pin.CORES is not None and len(pin.CORES) < 2:
        reason = "there is one core only"
    if reason:
        print(json.dumps({"left_out": reason}))
        return
    # measure.pin lets everything begin with one thread, also what follows OMP_NUM_THREADS.
    fn.set_num_threads(2 if pin.CORES is None else len(pin.CORES))
    check_same_fit()
    found = {}
    for name, makers in cases(seconds < 1).items():
        ready, failed = warm(makers)
        times = interleave(ready, seconds, min_rounds=3)
        for who, contender in ready.items():
            if isinstance(contender, Scaled):
                times[who] = [taken * contender.whole for taken in times[who]]
        found[name] = {"times": times, "left_out": failed}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
