"""The base of losses of class labels: integer targets, and weights of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet.data import arrays
from fastnet.errors import DataError, HyperparameterError, ShapeError, check_int, shown
from fastnet.layers.base import Shape
from fastnet.losses import links
from fastnet.losses.base import Loss
from fastnet.losses.metrics import ClassAccuracy, Metric
from fastnet.op import Array
from fastnet.parameter import Derived


def check_columns(
    name: str, value: Any, wanted: str, *, low: float, open_low: bool = False, single: bool = True
) -> Array:
    """A float64 vector of finite numbers ≥ low, one for each column, or a single one if allowed.

    Raises HyperparameterError for anything else; `wanted` is what it expected.
    """
    try:
        array = arrays.as_array(name, value)
    except DataError:  # a ragged list
        array = np.empty(0)
    good = array.size > 0 and array.dtype.kind in "fiu" and bool(np.isfinite(array).all())
    good = good and array.ndim in ((0, 1) if single else (1,))
    if not good or array.min() < low or (open_low and array.min() == low):
        raise HyperparameterError(f"{name} is {shown(value)}; expected {wanted}")
    made = np.atleast_1d(array.astype(np.float64))
    made.flags.writeable = False
    return made


def constant(value: Array | None) -> Derived | None:
    """A hyper-parameter's array as the argument of an op."""
    return None if value is None else Derived(value.shape, lambda: value, constant=True)


class LabelLoss(Loss, base=True):
    """Base of losses for integer labels t (n,) in [0, C) and outputs (n, C)."""

    link = links.MARGINS

    def __init__(self, reduction: str, weight: Any = None, **config: Any) -> None:
        wanted = "a vector of finite numbers of at least 0"
        config["weight"] = (
            None if weight is None else check_columns("weight", weight, wanted, low=0, single=False)
        )
        if "ignore_index" in config:
            config["ignore_index"] = check_int(
                "ignore_index", config["ignore_index"], low=-(2**53), high=2**53
            )
        super().__init__(reduction, **config)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Accuracy over the rows that count in the loss."""
        return {"accuracy": ClassAccuracy(self.ignore_index, self.weight)}

    @property
    def ignore_index(self) -> int | None:  # type: ignore[override]
        """The label of ignored rows."""
        return self._config.get("ignore_index")

    def classes_of(self, shape: Shape) -> int:
        """One for each output."""
        return shape[0] if len(shape) == 1 and shape[0] > 1 else 0

    def column(self, y: Array, shape: Shape) -> Array:
        """Return labels as they are, (n,)."""
        return y

    def target(self, y: Any, shape: Shape | None, name: str = "y") -> Array:
        """Labels as an int64 array (n,), each in [0, C) for an output shape (C,), or ignore_index."""
        labels, kind = np.asarray(y), type(self).__name__
        if labels.ndim != 1:
            raise ShapeError(
                f"{name} has shape {labels.shape}; {kind} takes integer labels of shape (n,)"
            )
        if labels.size and labels.dtype.kind not in "iub":
            remedy = (
                "convert them with y.astype('int64')"
                if labels.dtype.kind == "f"
                else "classes, y = np.unique(y, return_inverse=True) numbers the classes"
            )
            raise DataError(
                f"{name} has dtype {labels.dtype}; {kind} takes integer labels: {remedy}"
            )
        if shape is not None:
            self._check_classes(shape)
            kept = labels if self.ignore_index is None else labels[labels != self.ignore_index]
            low, high = (int(kept.min()), int(kept.max())) if kept.size else (0, 0)
            if low < 0 or high >= shape[0]:
                raise DataError(
                    f"{name} holds labels from {low} to {high}; expected 0 to {shape[0] - 1}, "
                    f"as the model's output has {shape[0]} columns"
                )
        return labels.astype(np.int64, copy=False)

    def _check_classes(self, shape: Shape) -> None:
        if shape[-1] < 2:
            raise ShapeError(
                f"the model's output has {shape[-1]} column; {type(self).__name__} takes one for each of "
                "at least two classes. For two classes by one output take BCEWithLogitsLoss"
            )
        if self.weight is not None and self.weight.shape != shape:
            raise ShapeError(
                f"weight has shape {self.weight.shape}; expected {shape}, a number for each column "
                "of the model's output"
            )

    def counts(self, target: Array) -> Array | None:
        """The weight of each row's class."""
        if self.weight is None or target.ndim != 1:
            return None
        counts = self.weight[np.where(target == self.ignore_index, 0, target)]
        return np.where(target == self.ignore_index, 0, counts)
