"""Metrics that a trainer knows by their names: those of classes, and those of real numbers.

A trainer tells each its loss, so that it knows what outputs stand for and which rows the loss ignores. On
its own a metric takes probabilities or real numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from fastnet.configured import Configured
from fastnet.errors import HyperparameterError, ShapeError, check_int
from fastnet.losses import links
from fastnet.losses.metrics import Metric, counting
from fastnet.op import Array


class NamedMetric(Configured, base=True):
    """Base of the metrics with a name.

    Sample weights do not count. Where a score has no value it is NaN. In training, an epoch with more than
    64 MiB of outputs is measured in parts, and the score is their mean, weighted by rows.
    """

    name: ClassVar[str]
    better: ClassVar[str] = "max"  # whether the better score is the higher or the lower one
    wants: ClassVar[tuple[str | None, ...]]  # links of losses whose outputs can be scored
    _link: str | None
    _ignored: int | None = None
    _weight: Array | None = None
    _loss = "outputs of no loss"  # for messages

    def of(self, loss: Any) -> Self:
        """A copy for the outputs of a loss; HyperparameterError where it cannot score them."""
        made, kind = copy.copy(self), type(loss).__name__
        if loss.link not in self.wants:
            raise HyperparameterError(
                f"metrics has {self.name!r}, which takes {self._takes()}; {kind} has other outputs or "
                "targets"
            )
        made._link, made._loss = loss.link, kind
        made._ignored, made._weight = loss.ignore_index, getattr(loss, "weight", None)
        return made

    def check(self, row: tuple[int, ...], target: tuple[int, ...]) -> None:
        """Raise HyperparameterError where rows of outputs and targets of these shapes have no score."""
        if not self._fits(row, target):
            raise HyperparameterError(
                f"metrics has {self.name!r}, which takes {self._takes()}; the model's outputs are "
                f"{_rows(row)} and the targets of {self._loss} {_rows(target)}"
            )

    def __call__(self, y: Array, output: Array) -> float:
        """The score for targets y and these outputs."""
        y, output = np.asarray(y), np.asarray(output)
        fits = y.shape[:1] == output.shape[:1] and output.ndim > 0
        if not fits or not self._fits(output.shape[1:], y.shape[1:]):
            raise ShapeError(
                f"{self.name} got targets of shape {y.shape} for outputs {output.shape}; it takes "
                f"{self._takes()}"
            )
        with np.errstate(all="ignore"):
            return float(self._score(y, output))

    def _takes(self) -> str:
        raise NotImplementedError

    def _fits(self, row: tuple[int, ...], target: tuple[int, ...]) -> bool:
        raise NotImplementedError

    def _score(self, y: Array, output: Array) -> float:
        raise NotImplementedError


def _rows(row: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, ('n', *row)))})" if row else "(n,)"


class ClassMetric(NamedMetric, base=True):
    """Base of the metrics of classes; rows that the loss ignores do not count."""

    wants: ClassVar[tuple[str | None, ...]] = links.OF_CLASSES
    several: ClassVar[bool] = True  # whether several truths a row have a score
    _link = links.PROBABILITY

    def _takes(self) -> str:
        more = ", or several truths a row" if self.several else ""
        return f"labels, and one output or one for each class{more}"

    def _fits(self, row: tuple[int, ...], target: tuple[int, ...]) -> bool:
        if len(row) != 1 or not row[0] or target not in ((), row):
            return False
        return self.several or row[0] == 1 or self._one_of(row[0], len(target))

    def _one_of(self, columns: int, target_dims: int) -> bool:
        """Whether a row has one class of several columns, and not a truth for each."""
        return columns > 1 and (self._link in links.ONE_OF_CLASSES or not target_dims)

    def _truth(self, y: Array, output: Array) -> tuple[Array, Array, Array]:
        """True labels (n,) or truths (n, k), the outputs, and the targets, of the rows that count."""
        if not self._one_of(output.shape[1], y.ndim - 1):
            y = y.reshape(output.shape)
            return (y >= 0.5), output, y
        kept = counting(y, self._ignored, self._weight)
        y, output = (y, output) if kept.all() else (y[kept], output[kept])
        return (y if y.ndim == 1 else np.argmax(y, axis=1)), output, y

    def _probabilities(self, output: Array) -> Array:
        """Probabilities of each column."""
        return links.mean_of(self._link, output)

    def _decided(self, truth: Array, output: Array) -> Array:
        """Decisions in the form of the truth."""
        if truth.ndim == 1:
            return np.asarray(np.argmax(output, axis=1))
        return np.asarray(output >= (0.0 if self._link == links.SIGMOID else 0.5))


class TopK(ClassMetric):
    """The share of rows whose label is among the k largest outputs.

    k: integer ≥ 1 (default 5), less than the number of classes.

    Of equal outputs the later columns come first, as in scikit-learn. The name is "top_k".
    Source: scikit-learn's top_k_accuracy_score.
    """

    name = "top_k"
    wants = links.ONE_OF_CLASSES
    several = False
    k: int

    def __init__(self, k: int = 5) -> None:
        self.k = check_int("k", k, low=1)

    def _takes(self) -> str:
        return f"labels, and one output for each of more than k = {self.k} classes"

    def _fits(self, row: tuple[int, ...], target: tuple[int, ...]) -> bool:
        return len(row) == 1 and row[0] > self.k and target in ((), row)

    def _score(self, y: Array, output: Array) -> float:
        truth, output, _ = self._truth(y, output)
        own = np.take_along_axis(output, truth[:, None], axis=1)
        later = np.arange(output.shape[1]) > truth[:, None]
        before = (output > own) | ((output == own) & later)
        return _mean(before.sum(axis=1) < self.k)


class BalancedAccuracy(ClassMetric):
    """The mean over the classes of the share of their rows that are decided right.

    Classes without a row do not count; of a single class it is the share of its rows. Decisions are as
    those of accuracy. The name is "balanced_accuracy".
    Source: scikit-learn's balanced_accuracy_score.
    """

    name = "balanced_accuracy"
    several = False

    def _score(self, y: Array, output: Array) -> float:
        truth, output, _ = self._truth(y, output)
        right = (self._decided(truth, output) == truth).reshape(-1)
        truth = truth.reshape(-1)
        return _mean(np.array([right[truth == label].mean() for label in np.unique(truth)]))


class F1(ClassMetric):
    """2·TP/(2·TP + FP + FN) of the second of two classes; of more, the mean over the classes.

    TP, FP, FN: the rows that are decided for a class rightly, wrongly, and not though they are of it. Of
    two classes, by one output or two, the score is that of the second one, and 0 where no row has it or is
    decided for it. Of more classes it is the mean over those that a row has or is decided for ("macro"). Of
    several truths a row it is the mean over all columns, of which an empty one scores 0. Decisions are as
    those of accuracy. The name is "f1".
    Source: scikit-learn's f1_score.
    """

    name = "f1"

    def _score(self, y: Array, output: Array) -> float:
        truth, output, _ = self._truth(y, output)
        decided, count = self._decided(truth, output), output.shape[1]
        if not len(truth):
            return np.nan
        if truth.ndim == 2:
            hits, sizes = (truth & decided).sum(axis=0), truth.sum(axis=0) + decided.sum(axis=0)
        else:
            hits = np.bincount(truth[truth == decided], minlength=count)
            sizes = np.bincount(truth, minlength=count) + np.bincount(decided, minlength=count)
            if count == 2:
                hits, sizes = hits[1:], sizes[1:]
            else:
                hits, sizes = hits[sizes > 0], sizes[sizes > 0]
        return _mean(2 * hits / np.maximum(sizes, 1))


class AUC(ClassMetric):
    """The probability that a row of a class has a higher score than another row; equal ones count ½.

    The area under the curve of true over false positives. Scores are probabilities. Of two classes, by one
    output or two, they are those of the second one. Of more, each class is measured against the rest, and
    the value is the mean ("ovr", "macro"); so it is for several truths a row. NaN where a class has no row,
    or all of them. The name is "auc".
    Source: J. A. Hanley, B. J. McNeil, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve", Radiology 143, 1982; scikit-learn's roc_auc_score.
    """

    name = "auc"
    wants = links.OF_PROBABILITIES

    def _score(self, y: Array, output: Array) -> float:
        truth, output, _ = self._truth(y, output)
        scores = self._probabilities(output)
        if truth.ndim == 1:
            truth = truth[:, None] == np.arange(scores.shape[1])
            if scores.shape[1] == 2:
                truth, scores = truth[:, 1:], scores[:, 1:]
        return _mean(np.array([_area(*pair) for pair in zip(truth.T, scores.T, strict=True)]))


def _area(truth: Array, score: Array) -> float:
    """The share of pairs of a true and a false row in which the true one has the higher score."""
    true = int(truth.sum())
    if not 0 < true < len(truth) or np.isnan(score).any():
        return np.nan
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # equal scores share the mean of their ranks
    above = ranks[place][truth].sum() - true * (true + 1) / 2
    return float(above / (true * (len(truth) - true)))


class LogLoss(ClassMetric):
    """−(1/n)·Σ_rows Σ_c t_c·ln p_c, where t is 1 for the label and 0 elsewhere, or a row's probabilities.

    p is clipped to [ε, 1 − ε], ε = 2.2e-16, as in scikit-learn. Weights and smoothing of the loss do not
    count. One output counts as two classes. The name is "log_loss".
    Source: scikit-learn's log_loss.
    """

    name, better = "log_loss", "min"
    wants = links.OF_PROBABILITIES
    several = False

    def _score(self, y: Array, output: Array) -> float:
        truth, output, target = self._truth(y, output)
        p = links.probabilities(self._link or links.PROBABILITY, output)
        eps = np.finfo(np.float64).eps
        logs = np.log(np.clip(p, eps, 1 - eps))
        if truth.ndim == 2:
            shares = np.concatenate([1 - target.astype(np.float64), target], axis=1)
            return -_mean((shares * logs).sum(axis=1))
        if target.ndim == 2:
            return -_mean((target * logs).sum(axis=1))
        return -_mean(logs[np.arange(len(truth)), truth])


class RealMetric(NamedMetric, base=True):
    """Base of the metrics of real numbers: of outputs, or of what a loss's link makes of them."""

    wants = (None, links.LOG, *links.OF_TRUTHS)
    _link = None

    def _takes(self) -> str:
        return "outputs and targets of one shape, real numbers"

    def _fits(self, row: tuple[int, ...], target: tuple[int, ...]) -> bool:
        return row == target

    def _errors(self, y: Array, output: Array) -> Array:
        """Outputs minus targets, float64 (n, k)."""
        errors: Array = links.mean_of(self._link, output) - y
        return errors.reshape(len(y), -1)


class MAE(RealMetric):
    """(1/(n·k))·Σ |y − t| over all elements of outputs y and targets t, both (n, k).

    The name is "mae". Source: scikit-learn's mean_absolute_error.
    """

    name, better = "mae", "min"

    def _score(self, y: Array, output: Array) -> float:
        return _mean(np.abs(self._errors(y, output)))


class RMSE(RealMetric):
    """(1/k)·Σ_columns √((1/n)·Σ_rows (y − t)²) for outputs y and targets t, both (n, k).

    The name is "rmse". Source: scikit-learn's root_mean_squared_error.
    """

    name, better = "rmse", "min"

    def _score(self, y: Array, output: Array) -> float:
        return _mean(np.sqrt(np.square(self._errors(y, output)).mean(axis=0)))


class R2(RealMetric):
    """1 − Σ (y − t)²/Σ (t − t̄)² for each column of outputs y and targets t, both (n, k); their mean.

    A column of equal targets scores 1 where all outputs equal them, else 0. NaN for a single row. The name
    is "r2". Source: scikit-learn's r2_score.
    """

    name = "r2"

    def _score(self, y: Array, output: Array) -> float:
        if len(y) < 2:
            return np.nan
        left = np.square(self._errors(y, output)).sum(axis=0)
        given = y.reshape(len(y), -1).astype(np.float64)
        spread = np.square(given - given.mean(axis=0)).sum(axis=0)
        share = left / np.where(spread == 0, 1, spread)
        return _mean(np.where(spread == 0, left == 0, 1 - share))


def _mean(values: Array) -> float:
    """The mean, NaN of nothing."""
    return float(values.mean()) if values.size else np.nan


Metrics = Mapping[str, Metric | str] | Sequence[NamedMetric | str]  # as trainers take them

KINDS: dict[str, type[NamedMetric]] = {
    kind.name: kind for kind in (TopK, BalancedAccuracy, F1, AUC, LogLoss, MAE, RMSE, R2)
}
