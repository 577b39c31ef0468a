"""Confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnet.data import arrays
from fastnet.errors import DataError, HyperparameterError, ShapeError, shown
from fastnet.op import Array
from fastnet.plot.figures import figure_of

MOST = 500  # classes of a picture
DARK = 0.72  # the share from which on white is more legible than black
LONGEST = 24  # characters of a name
WRITTEN = 25  # classes up to which counts are written in the cells


def confusion_matrix(
    y_true: Any, y_pred: Any, classes: Sequence[Any] | None = None, figure: Any = None
) -> Any:
    """How many rows of each true class (down) are predicted as each class (across).

    y_true: labels (n,), integers or strings. y_pred: labels (n,), or a model's outputs (n, C), C ≥ 2, whose
        largest is at the predicted label.
    classes: the names of the labels 0, 1, …; or where labels are strings, these labels in the order that is
        wanted (default None: all labels that occur, sorted).
    figure: a figure of matplotlib's to draw in (default None: a new one).

    A cell's shade is its share of the true class's rows; up to 25 classes it has the count in it. Returns
    the figure. Raises MissingExtra without matplotlib.
    """
    true = _labels("y_true", y_true)
    scores = arrays.as_array("y_pred", y_pred)
    columns = scores.shape[1] if scores.ndim == 2 else 0
    if scores.ndim == 2:
        if columns < 2 or scores.dtype.kind not in "fiub":
            raise ShapeError(
                f"y_pred is {shown(scores)}; expected labels (n,), or outputs (n, C) with C ≥ 2. Of one "
                "output the label is (output[:, 0] > 0).astype(int)"
            )
        predicted = scores.argmax(axis=1)
    else:
        predicted = _labels("y_pred", scores)
    if len(true) != len(predicted):
        raise ShapeError(
            f"y_true has {len(true)} rows and y_pred {len(predicted)}; expected as many"
        )
    if (true.dtype.kind == "U") != (predicted.dtype.kind == "U"):
        raise DataError(
            "y_true and y_pred have labels of different kinds; expected both as integers"
        )
    rows, across, names = _numbered(true, predicted, columns, classes)
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (rows, across), 1)
    return _draw(counts, names, figure)


def _labels(name: str, value: Any) -> Array:
    """Labels (n,): int64, or strings."""
    array = arrays.as_array(name, value)
    if array.dtype.kind == "O" and all(isinstance(item, str) for item in array.flat):
        array = array.astype(str)
    if array.ndim != 1 or not len(array):
        raise ShapeError(f"{name} is {shown(array)}; expected labels of shape (n,), at least one")
    if array.dtype.kind not in "iubU":
        raise DataError(f"{name} has dtype {array.dtype}; expected labels: integers or strings")
    return array if array.dtype.kind == "U" else array.astype(np.int64)


def _numbered(
    true: Array, predicted: Array, columns: int, classes: Any
) -> tuple[Array, Array, list[str]]:
    """The places of the labels among the classes, and the classes' names."""
    words = true.dtype.kind == "U"
    occurring = np.union1d(true, predicted)
    if classes is None:
        known = occurring
        if columns:
            known = np.union1d(occurring, np.arange(columns))
        names = known.tolist()
    else:
        try:
            names = [] if isinstance(classes, (str, bytes)) else list(classes)
        except TypeError:
            names = []
        if not names or len({str(name) for name in names}) < len(names):
            raise HyperparameterError(
                f"classes is {shown(classes)}; expected a list of different names"
            )
        known = np.array([str(name) for name in names]) if words else np.arange(len(names))
        lost = np.setdiff1d(occurring, known)
        if lost.size:
            raise HyperparameterError(
                f"classes has {len(names)} names and lacks the label {shown(lost[0].item())}; expected a "
                "name for each label"
            )
    if len(known) > MOST:
        raise DataError(
            f"y_true and y_pred have {len(known)} different labels; expected at most {MOST}"
        )
    order = np.argsort(known)
    places = [order[np.searchsorted(known, part, sorter=order)] for part in (true, predicted)]
    return places[0], places[1], [str(name) for name in names]


def _draw(counts: Array, names: list[str], figure: Any) -> Any:
    count = len(names)
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..." for name in names]
    longest = max(map(len, names))
    turned = longest > 3 and count > 3
    size = min(9.0, 2.6 + 0.45 * count) + 0.08 * longest
    made = figure_of(figure, size + 0.9, size)
    axes = made.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    if count <= WRITTEN:
        small = 9.0 if count <= 12 else 6.5
        for (i, j), number in np.ndenumerate(counts):
            color = "white" if shares[i, j] > DARK else "black" if number else "0.7"
            axes.text(j, i, f"{number}", ha="center", va="center", color=color, fontsize=small)
    step = -(-count // 30)  # so that names do not overlap
    places = range(0, count, step)
    axes.set_xticks(places, [names[i] for i in places], rotation=90 if turned else 0)
    axes.set_yticks(places, [names[i] for i in places])
    right, rows = int(np.trace(counts)), int(counts.sum())
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"accuracy {right / rows:.4g}  ({right:,} of {rows:,} rows)", fontsize=11)
    made.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    return made
