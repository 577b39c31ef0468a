"""`fastnet predict`: the predictions of a saved model for the rows of a file, as CSV."""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from typing import Any

import fastnet as fn
from fastnet import tabular
from fastnet.cli.cells import Cells, as_categories, as_known, as_numbers
from fastnet.cli.main import note
from fastnet.cli.reading import Data, frame_of, read
from fastnet.data.labels import listed
from fastnet.errors import DataError, shown
from fastnet.op import Array
from fastnet.tabular import TableModel
from fastnet.terminal import Output

SHOWN = 3  # values of a column that are named


def run(options: argparse.Namespace) -> None:
    """Print a line for each row."""
    model = tabular.load(options.model)
    if options.threads is not None:
        fn.set_num_threads(options.threads)
    columns = columns_for(model, options.data, options)
    names, results = _results(model, columns)
    write = csv.writer(Output(), lineterminator="\n")
    write.writerow(names)
    write.writerows(zip(*results, strict=True))


def columns_for(model: TableModel, path: str, options: argparse.Namespace) -> dict[str, Array]:
    """The columns of a file that a model needs, as its predictions take them."""
    data = read(path, options)
    missing = {*options.missing, *model.missing}
    return _columns(model, data, Cells.of(data, options.decimal, missing, model.decimal))


def _columns(model: TableModel, data: Data, cells: Cells) -> dict[str, Array]:
    """The columns that the model needs; DataError names those that are missing."""
    missing = [name for name in model.names if name not in data.columns]
    if missing:
        raise DataError(
            f"{data.path} lacks {listed(missing)}, which the model needs; it has "
            f"{listed([*data.columns])}"
        )
    others = [name for name in data.columns if name not in model.names]
    if others:
        note(f"{data.path}: the model does not know, and ignores, {', '.join(others)}")
    found = {}
    for name, known in zip(model.names, model.columns.known, strict=True):
        if known is None:
            hint = ", as in the training: correct it, or write --missing TEXT"
            found[name] = as_numbers(data, name, cells, hint)
        else:
            found[name], lacking = as_known(as_categories(data, name, cells), known)
            if lacking:
                _tell_unknown(data, name, lacking)
    return found


def _tell_unknown(data: Data, name: str, lacking: Counter[Any]) -> None:
    first = [shown(value) for value, _ in lacking.most_common(SHOWN)]
    more = ", …" if len(lacking) > SHOWN else ""
    note(
        f"{data.path}: column {shown(name)} has values that the training has not seen, in "
        f"{lacking.total()} rows: {', '.join(first)}{more}"
    )


def _results(model: TableModel, columns: dict[str, Array]) -> tuple[list[str], list[list[Any]]]:
    """The names and the columns of the output; numbers have the digits that tell them apart."""
    X = frame_of(columns)
    target, found = model.target or "prediction", model.predict(X)
    if model.classes is not None:
        p = model.predict_proba(X)
        names = [target, *(f"p({label})" for label in model.classes.tolist())]
        return names, [found.tolist(), *p.T.tolist()]
    parts = [found] if found.ndim == 1 else list(found.T)
    names = [target] if len(parts) == 1 else [f"{target} {i + 1}" for i in range(len(parts))]
    return names, [part.tolist() for part in parts]
