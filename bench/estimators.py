"""MLPClassifier and MLPRegressor beside scikit-learn's: scores, time of fits, searches in many jobs.

    python bench/estimators.py [--only scores,fits,lbfgs,searches] [--seeds 5] [--rounds 7] [-o FILE]

Writes ESTIMATORS.md. All have their defaults, behind a StandardScaler. `--housing FILE` names California
housing, as `fastnet.datasets.california_housing` reads it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import scipy.optimize
from sklearn import datasets
from sklearn import neural_network as theirs
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import fastnet as fn
from fastnet import sklearn as ours
from measure import machine
from measure.busy import watched
from measure.published import Results, arguments, publish
from tables.markdown import markdown

PAGE = Path(__file__).parent / "ESTIMATORS.md"
FITTED = ("iris", "wine", "breast_cancer", "digits", "diabetes")
JOBS = (1, 2, 8)


def data(name: str, housing: str = "") -> tuple[np.ndarray, np.ndarray, bool]:
    """Features, targets, and whether these are classes."""
    if name == "housing":
        x, y = fn.datasets.california_housing(housing, "float64")
        return x, y.ravel(), False
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return x, y, name != "diabetes"


def estimator(module: Any, seed: int, *, classes: bool, **arguments: Any) -> Any:
    """An MLP of scikit-learn's or of ours."""
    kind = "MLPClassifier" if classes else "MLPRegressor"
    return getattr(module, kind)(random_state=seed, **arguments)


def scores(options: argparse.Namespace) -> Results:
    """Means over five folds, for each seed, which also divides the rows."""
    found: Results = {}
    for name in (*FITTED, *(["housing"] if options.housing else [])):
        x, y, classes = data(name, options.housing)
        case: dict[str, list[float]] = {"scikit-learn": [], "fastnet": []}
        for seed in range(options.seeds):
            kind = StratifiedKFold if classes else KFold
            folds = kind(5, shuffle=True, random_state=seed)
            for who, module in (("scikit-learn", theirs), ("fastnet", ours)):
                net = estimator(module, seed, classes=classes)
                model = make_pipeline(StandardScaler(), net)
                case[who].append(float(cross_val_score(model, x, y, cv=folds).mean()))
            print(name, seed, {w: round(s[-1], 4) for w, s in case.items()}, file=sys.stderr)
        found[name] = case
    return found


def seconds(work: Callable[[], Any]) -> float:
    """The processor's time for some work."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def fits(options: argparse.Namespace) -> Results:
    """Whole fits by turns, on one thread."""
    found: Results = {}
    for name in FITTED:
        x, y, classes = data(name)
        x = StandardScaler().fit_transform(x)
        inputs = {"": x, " float32": x.astype(np.float32)}
        modules = {"scikit-learn": theirs, "fastnet": ours}
        kinds = {
            who + kind: partial(estimator(module, 0, classes=classes).fit, given, y)
            for who, module in modules.items()
            for kind, given in inputs.items()
        }
        with threadpool_limits(1), fn.threads(1):
            epochs = {who: work().n_iter_ for who, work in kinds.items()}
            times: dict[str, list[float]] = {who: [] for who in kinds}
            for _ in range(options.rounds):
                for who, work in kinds.items():
                    times[who].append(seconds(work))
        found[name] = {"rows": len(x), "columns": x.shape[1], "times": times, "epochs": epochs}
        print(name, {w: round(1e3 * min(t), 1) for w, t in times.items()}, file=sys.stderr)
    return found


@contextmanager
def clocked() -> Iterator[dict[str, float]]:
    """The time within SciPy's minimizer, without that of the objective, while this is open."""
    inside = {"scipy": 0.0, "calls": 0.0}
    minimize = scipy.optimize.minimize

    def timed(objective: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        called = 0.0

        def counted(*given: Any) -> Any:
            nonlocal called
            begun = time.process_time()
            value = objective(*given)
            called += time.process_time() - begun
            inside["calls"] += 1
            return value

        begun = time.process_time()
        result = minimize(counted, *arguments, **named)
        inside["scipy"] += time.process_time() - begun - called
        return result

    scipy.optimize.minimize = timed
    try:
        yield inside
    finally:
        scipy.optimize.minimize = minimize


def lbfgs(options: argparse.Namespace) -> Results:
    """Fits by L-BFGS, and how much of each is SciPy's own time."""
    found: Results = {}
    for name in FITTED:
        x, y, classes = data(name)
        x = StandardScaler().fit_transform(x)
        case: dict[str, list[float]] = {}
        with threadpool_limits(1), fn.threads(1):
            for turn in range(1 + options.rounds):
                for who, module in (("scikit-learn", theirs), ("fastnet", ours)):
                    net = estimator(module, 0, classes=classes, solver="lbfgs")
                    with clocked() as inside:
                        whole = seconds(partial(net.fit, x, y))
                    if turn:
                        case.setdefault(f"{who} total", []).append(whole)
                        case.setdefault(f"{who} outside", []).append(whole - inside["scipy"])
                        case.setdefault(f"{who} calls", []).append(inside["calls"])
        found[name] = case
        print(name, {w: round(1e3 * min(t), 1) for w, t in case.items()}, file=sys.stderr)
    return found


def searches(options: argparse.Namespace) -> Results:
    """A search by joblib's processes and threads: its time, and how many threads of it were busy."""
    x, y, _ = data("digits")
    x = StandardScaler().fit_transform(x)
    grid = {"alpha": [1e-4, 1e-3, 1e-2, 1e-1], "learning_rate_init": [1e-3, 1e-2]}
    found: Results = {"cores": joblib.cpu_count()}
    for backend in ("loky", "threading"):
        cases: Results = {}
        for (
            jobs
        ) in JOBS:  # loky ends the workers when their number changes, so that these take no turns
            times: list[float] = []
            busy: Counter[int] = Counter()
            shares: list[float] = []
            peers: list[float] = []
            search, peer = (
                GridSearchCV(
                    module.MLPClassifier(random_state=0, max_iter=20),
                    grid,
                    cv=5,
                    n_jobs=jobs,
                    refit=False,
                )
                for module in (ours, theirs)
            )
            with joblib.parallel_config(backend):
                search.fit(x, y)  # starts the workers
                for _ in range(max(1, options.rounds // 2)):
                    with watched() as seen:
                        begun = time.perf_counter()
                        search.fit(x, y)
                        times.append(time.perf_counter() - begun)
                    busy += seen.samples
                    shares.append(sum(seen.shares[:jobs]))
                    begun = time.perf_counter()
                    peer.fit(x, y)
                    peers.append(time.perf_counter() - begun)
            cases[str(jobs)] = {
                "times": times,
                "peers": peers,
                "busy": dict(sorted(busy.items())),
                "share": statistics.median(shares),
            }
        found[backend] = cases
        print(backend, found[backend], file=sys.stderr)
    return found


def score_table(found: Results) -> list[str]:
    """Means over seeds, and the differences' means with their standard errors."""
    rows = []
    for name, case in found.items():
        a, b = case["scikit-learn"], case["fastnet"]
        differences = [own - other for own, other in zip(b, a, strict=True)]
        error = statistics.stdev(differences) / len(differences) ** 0.5
        rows.append([name, f"{statistics.mean(a):.4f}", f"{statistics.mean(b):.4f}"])
        rows[-1].append(f"{statistics.mean(differences):+.4f} ± {error:.4f}")
    return markdown(["data set", "scikit-learn", "fastnet", "difference"], rows)


def fit_table(found: Results) -> list[str]:
    """Median times of fits, and how many times as fast ours are."""
    rows = []
    for name, case in found.items():
        times = case["times"]
        row = [f"{name}, {case['rows']:,} × {case['columns']}", str(case["epochs"]["fastnet"])]
        row += [f"{1e3 * statistics.median(taken):.4g}" for taken in times.values()]
        pairs = ("scikit-learn", "fastnet"), ("scikit-learn float32", "fastnet float32")
        rows.append([*row, *(f"{turns_ratio(times[a], times[b]):.1f}" for a, b in pairs)])
    names = next(iter(found.values()))["times"]
    head = ["data set", "epochs", *names, "times as fast", "float32"]
    return markdown(head, rows)


def turns_ratio(slow: list[float], fast: list[float]) -> float:
    """The median of the turns' ratios."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def lbfgs_table(found: Results) -> list[str]:
    """Median times in all and outside SciPy, and ratios."""
    rows = []
    for name, case in found.items():
        row = [name]
        for who in ("scikit-learn", "fastnet"):
            row.append(f"{statistics.median(case[f'{who} calls']):.0f}")
            row += [
                f"{1e3 * statistics.median(case[f'{who} {what}']):.4g}"
                for what in ("total", "outside")
            ]
        for what in ("total", "outside"):
            ratio = turns_ratio(case[f"scikit-learn {what}"], case[f"fastnet {what}"])
            row.append(f"{ratio:.1f}")
        rows.append(row)
    head = ["data set"]
    for who in ("scikit-learn", "fastnet"):
        head += [f"{who}: calls", "ms", "outside SciPy"]
    return markdown([*head, "times as fast", "outside SciPy"], rows)


def search_table(found: Results) -> list[str]:
    """Median times, and in how many samples so many threads were busy."""
    rows = []
    for backend in ("loky", "threading"):
        for jobs, case in found[backend].items():
            seen = {int(busy): samples for busy, samples in case["busy"].items()}
            whole = sum(seen.values())
            more = sum(samples for busy, samples in seen.items() if busy > found["cores"])
            row = [f"{backend}, n_jobs={jobs}"]
            row += [f"{statistics.median(case[key]):.3f}" for key in ("times", "peers")]
            row.append("–" if jobs == "1" else f"{100 * case['share']:.0f} %")
            rows.append([*row, str(max(seen)), f"{100 * more / whole:.1f} %"])
    return markdown(
        [
            "search",
            "seconds",
            "scikit-learn's net",
            "of the time in as many threads",
            "most busy threads",
            f"samples with more than {found['cores']}",
        ],
        rows,
    )


def page(results: Results) -> str:
    """ESTIMATORS.md."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        "# Estimators beside scikit-learn's",
        "",
        f"`{results['command']}`; {results['machine']}; {versions}.",
        "",
    ]
    if "scores" in results:
        lines += [
            "## Scores",
            "",
            f"Means of five folds and {results['seeds']} seeds, each of which divides the rows anew: "
            "accuracy, or R² on diabetes and housing. The last column has the mean difference of a seed "
            "and its standard error. Both start from the same weights; the orders of rows differ.",
            "",
            *score_table(results["scores"]),
        ]
    if "fits" in results:
        lines += [
            "## Fits",
            "",
            "Milliseconds of processor time for one `fit` on one thread, all at their defaults, in turns. "
            "A ratio is the median over the turns.",
            "",
            *fit_table(results["fits"]),
        ]
    if "lbfgs" in results:
        lines += [
            '## Fits by solver="lbfgs"',
            "",
            "The same in milliseconds, in all and outside SciPy's minimizer: the objective's calls, the "
            "checks and the net.",
            "",
            *lbfgs_table(results["lbfgs"]),
        ]
    if "searches" in results:
        lines += [
            "## Searches in many jobs",
            "",
            "A `GridSearchCV` of 8 points and 5 folds on digits, 20 epochs each, on "
            f"{results['searches']['cores']} cores, with workers that run already. Samples every 10 ms "
            "count the threads that run or are ready to, without the main thread, which hands out the "
            "fits: those of estimators, and joblib's own, which wake for moments. The share is that of "
            "the n_jobs busiest threads in the processor time of all of these. The same search with "
            "scikit-learn's net takes turns with ours: what many jobs on few cores cost, whoever computes.",
            "",
            *search_table(results["searches"]),
        ]
    return "\n".join(lines)


def measured(options: argparse.Namespace) -> Iterator[Results]:
    """The results, section by section."""
    results: Results = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "seeds": options.seeds,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in options.only.split(","):
            results[name] = SECTIONS[name](options)
            yield results


SECTIONS = {"scores": scores, "fits": fits, "lbfgs": lbfgs, "searches": searches}


def main() -> None:
    """Measure, or read a file of results, and write the page."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--housing", default="", metavar="FILE")
    arguments(parser)
    options = parser.parse_args()
    publish(options, measured(options), page, PAGE)


if __name__ == "__main__":
    main()
