"""What a fit is given: its data set, the validation, and what both are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastnet.data.dataset import Dataset
from fastnet.data.terms import Terms
from fastnet.errors import DataError
from fastnet.op import Array


@dataclass(eq=False, repr=False)
class Given:
    """Checked data of a fit; rows: those of the data set that are the fit's, sorted; None: all."""

    terms: Terms
    data: Dataset
    validation: Dataset | None = None
    rows: Array | None = None


def given(trainer: Any, X: Any, y: Any, sample_weight: Any, validation_data: Any = None) -> Given:
    """The arguments of `fit` about data, checked; nothing has changed then."""
    data, terms = trainer._checked(X, y, sample_weight)
    held = None if validation_data is None else validation(trainer, validation_data, terms)
    return Given(terms, data, held)


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
