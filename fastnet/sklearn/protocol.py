"""What all estimators share of scikit-learn's protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import column_or_1d
from sklearn.utils.validation import validate_data

from fastnet.errors import HyperparameterError, check_kind, shown
from fastnet.op import Array
from fastnet.train.callbacks import Callback

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


@contextmanager
def unchanged_on_error(estimator: BaseEstimator, *trained: Any) -> Iterator[None]:
    """A fit that raises leaves the estimator's attributes as they were: what was not fitted is not.

    trained: the model and the trainer with which the fit goes on. It changes them in place, so their states
    are kept and loaded again.
    """
    before = dict(vars(estimator))
    states = [one.state_dict() for one in trained]
    try:
        yield
    except BaseException:
        for one, state in zip(trained, states, strict=True):
            one.load_state_dict(state)
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def check_callbacks(given: Any) -> list[Callback]:
    """The callbacks of a list or tuple, or HyperparameterError."""
    if not isinstance(given, (list, tuple)):
        raise HyperparameterError(
            f"callbacks is {shown(given)}; expected a list of callbacks, such as [fn.Timer(60)]"
        )
    for i, callback in enumerate(given):
        check_kind(f"callbacks[{i}]", callback, Callback)
    return list(given)


def check_eval_set(given: Any) -> tuple[Any, Any, Any]:
    """X, y and the weights, or None, of an `eval_set`."""
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        raise HyperparameterError(
            f"eval_set is {shown(given)}; expected (X, y) or (X, y, sample_weight)"
        )
    return given[0], given[1], given[2] if len(given) == 3 else None


def checked_rows(estimator: BaseEstimator, X: Any) -> Any:
    """X of a prediction."""
    return validate_data(estimator, X, accept_sparse=["csr"], reset=False)
