"""Weights of classes as weights of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet.data.labels import Classes, listed
from fastnet.errors import HyperparameterError, check_real, shown
from fastnet.op import Array

BALANCED = "balanced"


def checked(given: Any, classes: Classes) -> str | list[float]:
    """The argument class_weight: "balanced", or a weight for each class, 1 for those that are not named."""
    if isinstance(given, str) and given == BALANCED:
        return BALANCED
    if not isinstance(given, Mapping):
        raise HyperparameterError(
            f'class_weight is {shown(given)}; expected a dict of weights by label, or "{BALANCED}"'
        )
    place: dict[Any, int] = {label: number for number, label in enumerate(classes)}
    found = [1.0] * len(classes)
    for label, weight in given.items():
        if label not in place:
            raise HyperparameterError(
                f"class_weight has a weight for {shown(label)}; the classes are {listed(classes)}"
            )
        found[place[label]] = check_real(f"class_weight[{shown(label)}]", weight, low=0.0)
    return found


def of_rows(weights: str | list[float], classes: Array, count: int, rows: Array | None) -> Array:
    """The weight of each row, float64 (n,): that of its class; 1 for rows without one.

    classes: the number of each row's class, below 0 or from `count` on for rows without one. rows: those
    that are counted for "balanced", n/(k·count of the class) for k classes with rows; None: all.
    """
    has_class = (classes >= 0) & (classes < count)
    if isinstance(weights, str):
        used = classes if rows is None else classes[rows]
        used = used[has_class if rows is None else has_class[rows]]
        counts = np.bincount(used, minlength=count)
        present = max(1, int((counts > 0).sum()))
        table = len(used) / (present * np.maximum(counts, 1))
    else:
        table = np.array(weights)
    return np.where(has_class, table[np.where(has_class, classes, 0)], 1.0)
