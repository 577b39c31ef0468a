"""What a fit is given: its data set, the validation, and what both are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet.data import arrays, class_weight
from fastnet.data.dataset import Dataset
from fastnet.data.split import split_rows
from fastnet.data.terms import Terms
from fastnet.errors import DataError, HyperparameterError, shown
from fastnet.op import Array


@dataclass(eq=False, repr=False)
class Given:
    """Checked data of a fit.

    data: a Dataset, or a Source of minibatches. rows: those of the data set that are the fit's, sorted;
    None: all. arguments: what the steps depend on, as files keep it.
    """

    terms: Terms
    data: Any
    validation: Dataset | None = None
    rows: Array | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    counts: Array | None = None  # of several ranks with rows of their own, the rows of each


def given(
    trainer: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    validation_data: Any = None,
    validation_split: Any = None,
    class_weights: Any = None,
    kept: Mapping[str, Any] | None = None,
) -> Given:
    """The arguments of `fit` about data, checked; nothing has changed then.

    kept: the `arguments` of an earlier fit with which this one goes on.
    """
    x, y, terms = trainer._named(X, y)
    data_of, loss = trainer.model.data, trainer.loss
    made = Given(terms, data_of(loss, x, y, "X", "y", sample_weight, by_rows=True))
    weights = None
    if kept is not None:
        validation_split, weights = kept.get("validation_split"), kept.get("class_weight")
    if validation_data is not None:
        if validation_split is not None:
            raise HyperparameterError(
                f"validation_split is {shown(validation_split)} and there are validation_data; expected "
                "one of both"
            )
        made.validation = validation(trainer, validation_data, terms)
    if validation_split is None and class_weights is None and weights is None:
        return made
    classes, w = classes_of(trainer, made.data), sample_weight
    if w is not None:
        w = arrays.as_array("sample_weight", trainer.model.on_host("sample_weight", w))
    if validation_split is not None:
        made.rows, held = split_rows(validation_split, made.data.rows, trainer.seed, classes)
        part, names = arrays.as_array("y", y)[held], ("validation X", "validation y")
        of_held = None if w is None else w[held]
        made.validation = data_of(loss, x[held], part, *names, of_held, by_rows=True)
        share = isinstance(validation_split, (float, np.floating))
        made.arguments["validation_split"] = (float if share else int)(validation_split)
    if class_weights is not None or weights is not None:
        weights, of_rows = weights_of_classes(
            trainer, terms, classes, made.rows, class_weights, weights
        )
        made.arguments["class_weight"] = weights
        w = of_rows if w is None else of_rows * w
    made.data = data_of(loss, x, y, "X", "y", w, by_rows=True, rows=made.rows)
    return made


def weights_of_classes(
    trainer: Any,
    terms: Terms,
    classes: Array | None,
    rows: Array | None,
    given: Any,
    checked: Any = None,
) -> tuple[str | list[float], Array]:
    """The checked argument class_weight, and the weight of each row.

    classes: the number of each row's class; None: they have none, which is an error. rows: see `of_rows`.
    checked: the argument, where it has been checked before.
    """
    if classes is None:
        raise HyperparameterError(
            f"class_weight is {shown(given)} and y holds no labels for {type(trainer.loss).__name__}; "
            "give weights of rows as sample_weight"
        )
    named = terms.classes or (0, 1)  # which may have come as floats
    weights = class_weight.checked(given, named) if checked is None else checked
    return weights, class_weight.of_rows(weights, classes, len(named), rows)


def validation(trainer: Any, given: Any, terms: Terms) -> Dataset:
    """The checked data set of `validation_data`."""
    data: Dataset
    x, y, w = validation_parts(given)
    names = "validation X", "validation y"
    data, _ = trainer._checked(x, y, w, *names, terms, learn=False)
    return data


def validation_parts(given: Any) -> tuple[Any, Any, Any]:
    """Inputs, targets and weights (or None) of `validation_data`."""
    try:
        x, y, *weights = given
        (w,) = weights or (None,)
    except (TypeError, ValueError):
        raise DataError("validation_data must be a pair (X, y), or (X, y, sample_weight)") from None
    return x, y, w


def classes_of(trainer: Any, data: Dataset) -> Array | None:
    """The number of each row's class; None where rows have none."""
    if data.classes:
        return data.y
    count = trainer.loss.classes_of(trainer.model.output_shape(data.row_shape))
    if not count or data.y.shape[1:] != (1,):
        return None
    truths = data.y[:, 0]
    return truths.astype(np.int64) if np.isin(truths, (0, 1)).all() else None
