"""Weights of rows, and threads."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

from fastnet import parallel
from fastnet.data import arrays
from fastnet.errors import DataError, HyperparameterError, check_int, shown
from fastnet.op import Array


def row_weights(
    sample_weight: Any, class_weight: Any, y: Array, *, incremental: bool = False
) -> Array | None:
    """The weight of each row, float64 (n,): that of the sample times that of its class; None: all are 1."""
    weight: Array | None = None
    if sample_weight is not None:
        given = np.asarray(sample_weight)
        if given.ndim == 0:
            given = np.full(len(y), given)
        weight = arrays.weights("sample_weight", given, len(y), np.float64)
    if class_weight is not None:
        if incremental and class_weight == "balanced":
            raise HyperparameterError(
                "class_weight is 'balanced', which partial_fit cannot know; expected a dict {label: number}"
            )
        of_class = compute_sample_weight(class_weight, y)
        if not (np.isfinite(of_class) & (of_class >= 0)).all():
            raise HyperparameterError(
                f"class_weight is {shown(class_weight)}; expected finite numbers of at least 0"
            )
        weight = of_class if weight is None else weight * of_class
    if weight is not None and not weight.any():
        raise DataError(
            "sample_weight is zero for all rows; expected a positive weight of at least one row"
        )
    return weight


def threads_of(n_threads: Any) -> AbstractContextManager[None]:
    """So many threads within a block; None: a share of the process's, as estimators may run at once."""
    if n_threads is None:
        return parallel.sharing()
    return parallel.threads(check_int("n_threads", n_threads, low=1, high=parallel.MAX_THREADS))
