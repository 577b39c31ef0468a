"""Metrics: scores beside the loss, as functions of targets and outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastnet.configured import Configured
from fastnet.errors import HyperparameterError, ShapeError, check_real
from fastnet.op import Array

Metric = Callable[[Array, Array], float]


def accuracy(y: Array, output: Array) -> float:
    """The share of rows whose largest output is at the label: y (n,) integers, output (n, C), C ≥ 2.

    Rows with negative labels are ignored. For probabilities y (n, C) the label is the most probable class.
    If no row counts, the share is 0.

    A Trainer replaces this function by its loss's own accuracy: a loss of classes leaves out the rows that
    it ignores, a binary loss compares element by element. Raises HyperparameterError for outputs with one
    column, whose largest output is always the same: see `binary_accuracy`.
    """
    return ClassAccuracy()(y, output)


class ClassAccuracy:
    """`accuracy` without the rows that a loss ignores.

    ignored: the label of ignored rows, or None. weight: (C,), the weights of the classes, or None. Rows of
    classes with weight 0 are ignored too.
    """

    def __init__(self, ignored: int | None = None, weight: Array | None = None) -> None:
        self.ignored, self.weight = ignored, weight

    @staticmethod
    def check(shape: tuple[int, ...]) -> None:
        """Raise HyperparameterError for outputs with fewer than two classes."""
        if len(shape) != 2 or shape[1] < 2:
            raise HyperparameterError(
                f"accuracy got outputs of shape {shape}; expected (n, C) with C ≥ 2. For one output or "
                "several labels at once take fn.binary_accuracy(threshold=0) of logits, or "
                "fn.binary_accuracy(threshold=0.5) of probabilities"
            )

    def __call__(self, y: Array, output: Array) -> float:
        """The share for targets y and these outputs."""
        self.check(output.shape)
        if (
            y.ndim > 2
            or y.shape[:1] != output.shape[:1]
            or y.shape[1:] not in ((), output.shape[1:])
        ):
            raise ShapeError(
                f"accuracy got targets of shape {y.shape} for outputs {output.shape}; expected labels "
                f"({len(output)},) or probabilities {output.shape}"
            )
        label = y if y.ndim == 1 else np.argmax(y, axis=1)
        kept = self._counting(y)
        return float(np.mean(np.argmax(output, axis=1)[kept] == label[kept])) if kept.any() else 0.0

    def threshold_of(self, row: tuple[int, ...]) -> float | None:
        """The threshold of the op `decision` that this metric takes for outputs with such rows, or None."""
        return 0.0 if len(row) == 1 and row[0] > 1 else None

    def labels(self, y: Array) -> tuple[Array, Array | None]:
        """The decisions that are right for targets y, and which rows count (None: all)."""
        kept = self._counting(y)
        label = y if y.ndim == 1 else np.argmax(y, axis=1)
        return label.astype(np.float64), None if kept.all() else kept

    def counted(self, y: Array) -> int:
        """The number of rows of these targets that count."""
        return int(self._counting(y).sum())

    def _counting(self, y: Array) -> Array:
        return counting(y, self.ignored, self.weight)


def counting(y: Array, ignored: int | None, weight: Array | None) -> Array:
    """Which rows count for targets y: labels ≥ 0 other than `ignored`, of classes with a weight above 0."""
    if y.ndim != 1:
        return np.ones(len(y), bool)
    kept: Array = y >= 0
    if ignored is not None:
        kept &= y != ignored
    if weight is not None:
        kept[kept] = weight[y[kept]] > 0
    return kept


class binary_accuracy(Configured):
    """The share of elements on the same side of the threshold as their target: y and output (n, k).

    An output counts as true if it is at least `threshold`, a target if it is at least ½. The rule is the
    same, element by element, for one output and for several labels per sample.

    threshold: number (default 0.5, for probabilities). Use 0 for logits, whose sigmoid is ½ there.

    Raises ShapeError where the shapes differ: nothing broadcasts.
    """

    threshold: float

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = check_real("threshold", threshold)

    def threshold_of(self, row: tuple[int, ...]) -> float | None:
        """The threshold of the op `decision` that this metric takes for outputs with such rows, or None."""
        return self.threshold if row == (1,) else None

    def labels(self, y: Array) -> tuple[Array, Array | None]:
        """The decisions that are right for targets y, and which rows count (None: all)."""
        return (y[:, 0] >= 0.5).astype(np.float64), None

    def __call__(self, y: Array, output: Array) -> float:
        """The share for targets y and these outputs."""
        if y.shape != output.shape:
            raise ShapeError(
                f"binary_accuracy got targets of shape {y.shape} for outputs {output.shape}; expected "
                "the same shape"
            )
        return float(np.mean((output >= self.threshold) == (y >= 0.5))) if y.size else 0.0
