"""`fastnet train`: a net for a table, its file, and a report about rows that it has not seen."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from fastnet.cli.cells import Cells
from fastnet.cli.choosing import Target, inputs_of, target_of, told
from fastnet.cli.main import note
from fastnet.cli.progress import EpochBar
from fastnet.cli.reading import new_file, pandas, read
from fastnet.cli.report import NAMES, measured, page, text
from fastnet.data.folds import train_test_split
from fastnet.errors import DataError, FastnetError, HyperparameterError
from fastnet.files import atomic
from fastnet.op import Array
from fastnet.plot.figures import figure_of
from fastnet.terminal import show

LEAST_ROWS = 10


def run(options: argparse.Namespace) -> None:
    """Train, write the model and the report's page, print the report."""
    pandas()
    from fastnet.sklearn import TabularClassifier, TabularRegressor

    out = new_file("--out", options.out or f"{_stem(options.data)}.safetensors", options.data)
    report = None
    if not options.no_report:
        figure_of(None, 1, 1)  # raises where matplotlib is missing, before the training
        report = new_file("--report", options.report or out.with_suffix(".html"), options.data)
        if report == out:
            raise HyperparameterError(
                f"--report and --out are both {str(out)!r}; expected two files"
            )
    data = read(options.data, options)
    cells = Cells.of(data, options.decimal, options.missing)
    if data.of_text and (data.separator != "," or cells.decimal != "."):
        note(f"{data.path}: fields end at {data.separator!r}, numbers have a {cells.decimal!r}")
    target = target_of(data, cells, options)
    if left := len(data) - len(target.rows):
        note(f"{left} rows without {options.target} are left out")
    data = data.take(target.rows)
    inputs = inputs_of(data, cells, options)
    if inputs.left:
        note(f"left out: {told(inputs.left)}")
    X, y = inputs.frame(data, cells), target.values
    if len(X) < LEAST_ROWS:
        raise DataError(
            f"{data.path} has {len(X)} rows with a target; expected at least {LEAST_ROWS}"
        )
    training, test = _divided(target, options)
    bar = EpochBar()
    kind = TabularClassifier if target.task == "classification" else TabularRegressor
    estimator = kind(
        options.preset,
        epochs=options.epochs,
        time_limit=options.time_limit,
        categorical_features=inputs.categories,
        callbacks=[bar],
        random_state=options.seed,
        backend=options.backend,
        n_threads=options.threads,
    )
    note(f"training {NAMES[options.preset]} on {len(training):,} rows")
    begun = time.perf_counter()
    try:
        estimator.fit(X.iloc[training], y[training])
    except ValueError as error:
        if isinstance(error, FastnetError):
            raise
        raise DataError(f"{data.path}: {error}") from None
    seconds = time.perf_counter() - begun
    model = estimator.table_model(options.target, tuple(options.missing), cells.decimal)
    result = measured(estimator, X.iloc[test], y[test], y[training], inputs, options.seed)
    result.source, result.target, result.seconds = Path(data.path).name, options.target, seconds
    made = None if report is None else page(result).encode()
    # Files come last, so that a Ctrl-C before leaves none, and before the output, which may have no reader.
    model.save(out)
    if report is not None and made is not None:
        atomic.replace(report, [made])
    show(text(result))
    written = [str(path) for path in (out, report) if path is not None]
    note(f"written: {', '.join(written)}")


def _stem(path: str) -> str:
    return "model" if path == "-" else Path(path).name.split(".")[0] or "model"


def _divided(target: Target, options: argparse.Namespace) -> tuple[Array, Array]:
    """The rows to train on and those that only the report sees."""
    rows = np.arange(len(target.rows))
    if not options.test:
        return rows, rows[:0]
    of_classes = target.task == "classification"
    training, test = train_test_split(
        rows,
        test_size=options.test,
        stratify=target.values if of_classes else None,
        seed=options.seed,
    )
    if of_classes and len(np.unique(target.values[training])) < 2:
        raise DataError("the rows to train on have one class; expected more rows of each class")
    return training, test
