"""What all estimators share of scikit-learn's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import column_or_1d
from sklearn.utils.validation import validate_data

from fastnet.op import Array

FLOATS = [np.float64, np.float32]


def keep(estimator: BaseEstimator, given: Mapping[str, Any]) -> None:
    """Keep a constructor's arguments, its `locals()`, as they are; a fit checks them."""
    for name, value in given.items():
        if name not in ("self", "__class__"):
            setattr(estimator, name, value)


def checked_data(
    estimator: BaseEstimator, X: Any, y: Any, *, reset: bool, numeric: bool
) -> tuple[Any, Array]:
    """X, an array or CSR matrix of float64 or float32, and y (n,) or (n, k), checked by scikit-learn."""
    X, y = validate_data(
        estimator,
        X,
        y,
        accept_sparse=["csr"],
        multi_output=True,
        y_numeric=numeric,
        dtype=FLOATS,
        reset=reset,
    )
    return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def checked_rows(estimator: BaseEstimator, X: Any) -> Any:
    """X of a prediction."""
    return validate_data(estimator, X, accept_sparse=["csr"], reset=False)
