"""What outputs stand for: classes, truths or numbers; targets for the loss, predictions, scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.multiclass import check_classification_targets, type_of_target

import fastnet.losses as fn_losses
from fastnet.errors import DataError, shown
from fastnet.losses import links
from fastnet.losses.metrics import Metric
from fastnet.op import Array
from fastnet.sklearn.stopping import Record


@dataclass(frozen=True, eq=False)
class Scoring:
    """How the record of an epoch tells the score on given rows."""

    metrics: Mapping[str, Metric]  # that the trainer is to record
    monitor: str
    mode: str  # "max" where the greatest of what is monitored is the best
    value: Callable[[Record], float]


class Targets(Protocol):
    """What outputs stand for."""

    width: int
    activation: str  # scikit-learn's name for that of the outputs

    def encoded(self, y: Array, dtype: Any) -> Array:
        """Targets of the loss."""
        ...

    def decoded(self, outputs: Array) -> Array:
        """Predictions in terms of y."""
        ...

    def scoring(self, rows: Array, weight: Array | None) -> Scoring | None:
        """How records tell the score; None: only outputs do."""
        ...

    def score(self, y: Array, outputs: Array, weight: Array | None) -> float:
        """The score of outputs."""
        ...


def check_several(name: str, classes: Array) -> None:
    """Raise ValueError where labels are all the same."""
    if len(classes) < 2:
        raise ValueError(
            f"{name} has 1 class, {shown(classes.tolist()[0])}; expected at least two classes"
        )


class Labels:
    """One of several classes, as a softmax; one of two, as a logistic function; or several truths.

    classes: sorted labels; for truths 0, 1, …
    """

    def __init__(self, classes: Array, *, several: bool = False) -> None:
        self.classes, self.several = classes, several
        one = not several and len(classes) <= 2
        self.width = 1 if one else len(classes)
        self.activation = "softmax" if self.width > 1 and not several else "logistic"

    def as_columns(self) -> Labels:
        """The same with a column for each class, also of two."""
        made = Labels(self.classes, several=self.several)
        if not self.several:
            made.width, made.activation = max(2, len(self.classes)), "softmax"
        return made

    @classmethod
    def of(cls, y: Array) -> Labels:
        """Those of a fit's y."""
        kind = type_of_target(y, input_name="y")
        if kind not in ("binary", "multiclass"):
            check_classification_targets(y)
        if kind == "multilabel-indicator":
            return cls(np.arange(y.shape[1]), several=True)
        if y.ndim > 1:
            raise ValueError(
                f"y has shape {y.shape} and is {kind}; expected labels (n,) or an indicator matrix (n, "
                "k) of zeros and ones"
            )
        return cls(np.unique(y))

    def unknown(self, y: Array) -> Array:
        """The labels in y that are no classes."""
        if self.several:
            return np.arange(0) if y.ndim == 2 and y.shape[1] == self.width else np.arange(1)
        return np.setdiff1d(y, self.classes)

    def encoded(self, y: Array, dtype: Any) -> Array:
        """Numbers of classes, int64 (n,), or truths (n, k)."""
        if len(other := self.unknown(y)):
            raise ValueError(
                f"y has classes not in `self.classes_`, {shown(self.classes.tolist())}: "
                f"{shown(other.tolist())}; expected labels of the first fit"
            )
        if self.several:
            return np.ascontiguousarray(y, dtype)
        number = np.searchsorted(self.classes, y)
        if self.width > 1:
            return number.astype(np.int64)
        return (number[:, None] if len(self.classes) == 2 else np.zeros((len(y), 1))).astype(dtype)

    def decoded(self, outputs: Array) -> Array:
        """Labels (n,), or truths (n, k) as 0 and 1."""
        if self.several:
            return (outputs > 0).astype(np.int64)
        if self.width > 1:
            return np.asarray(self.classes[np.argmax(outputs, axis=1)])
        if len(self.classes) < 2:
            return np.asarray(self.classes[np.zeros(len(outputs), int)])
        return np.asarray(self.classes[(outputs[:, 0] > 0).astype(int)])

    def decisive(self, outputs: Array) -> Array:
        """(n,) of two classes, the difference of their outputs if there are two; else (n, outputs)."""
        if self.several or len(self.classes) > 2:
            return outputs
        return np.asarray(outputs[:, 0] if self.width == 1 else outputs[:, 1] - outputs[:, 0])

    def probabilities(self, outputs: Array) -> Array:
        """(n, classes), or (n, k) of truths, in the dtype of the outputs."""
        link = links.SOFTMAX if self.activation == "softmax" else links.SIGMOID
        if self.several:
            return links.mean_of(link, outputs).astype(outputs.dtype)
        found = links.probabilities(link, outputs).astype(outputs.dtype)
        return found if len(self.classes) > 1 else found[:, :1]

    def scoring(self, rows: Array, weight: Array | None) -> Scoring | None:
        """Accuracy, where rows have no weights and a row one label."""
        if weight is not None or self.several or len(self.classes) < 2:
            return None
        metrics = {"accuracy": fn_losses.accuracy}
        return Scoring(metrics, "val_accuracy", "max", lambda logs: float(logs["val_accuracy"]))

    def score(self, y: Array, outputs: Array, weight: Array | None) -> float:
        """Accuracy, NaN where outputs are not finite."""
        if not np.isfinite(outputs).all():
            return float("nan")
        return float(accuracy_score(y, self.decoded(outputs), sample_weight=weight))


class Numbers:
    """Real numbers, as they are or as logarithms."""

    def __init__(self, width: int, loss: str) -> None:
        self.width, self.loss = width, loss
        self.activation = "exp" if loss == "poisson" else "identity"

    def encoded(self, y: Array, dtype: Any) -> Array:
        """(n, k)."""
        found = np.ascontiguousarray(y, dtype).reshape(len(y), -1)
        if self.loss == "poisson" and not (found >= 0).all():
            raise DataError(
                f"y holds {found.min()}; loss='poisson' takes counts: numbers of at least 0"
            )
        return found

    def decoded(self, outputs: Array) -> Array:
        """(n,) of one output, else (n, k)."""
        if self.activation == "exp":
            outputs = links.mean_of(links.LOG, outputs).astype(outputs.dtype)
        return outputs[:, 0] if self.width == 1 else outputs

    def scoring(self, rows: Array, weight: Array | None) -> Scoring | None:
        """R² of one output, which half the mean squared error tells."""
        if self.loss != "squared_error" or self.width > 1:
            return None
        t = rows[:, 0].astype(np.float64)
        mean = np.average(t, weights=weight)
        variance = float(np.average((t - mean) ** 2, weights=weight))
        if not variance > 0:
            return None
        return Scoring(
            {}, "val_loss", "min", lambda logs: 1.0 - 2.0 * float(logs["val_loss"]) / variance
        )

    def score(self, y: Array, outputs: Array, weight: Array | None) -> float:
        """R², NaN where outputs are not finite."""
        predicted = self.decoded(outputs)
        if not np.isfinite(predicted).all():
            return float("nan")
        return float(r2_score(y, predicted, sample_weight=weight))
