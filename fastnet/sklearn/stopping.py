"""When an MLP's training ends: scikit-learn's rule, by the loss or by a validation score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from fastnet.op import Array
from fastnet.train.callbacks.monitors import EarlyStopping, restore_values

FOREVER = 2**30  # epochs

Record = dict[str, Any]


class Stopping(EarlyStopping, base=True):
    """Ends the fit, or divides its rate by 5, after more than n epochs in a row without a gain of tol.

    Of losses v an epoch gains where v ≤ best − tol, of scores where v ≥ best + tol; the best is that of all
    epochs before. As in scikit-learn, a NaN gains.

    monitor, mode: which column of the history tells the best epoch, as for EarlyStopping. by_score: whether
    v is the score, not the loss. score: a function of a record (None: there is no score). looks: whether it
    looks at the model; then the parameters of the best epoch are kept here. adaptive: whether the rate is
    divided. best, count: of an earlier fit with which this one goes on. told: a function of epoch, loss and
    score (or None) that is called at once.
    """

    best_value: float
    scores: list[float]  # of the epochs
    stopped: bool
    count: int

    def __init__(
        self,
        monitor: str,
        mode: str,
        *,
        by_score: bool,
        score: Callable[[Record], float] | None,
        looks: bool,
        tol: float,
        n_iter_no_change: float,
        adaptive: bool = False,
        best: float | None = None,
        count: int = 0,
        told: Callable[[int, float, float | None], None] | None = None,
    ) -> None:
        super().__init__(monitor, mode=mode)
        self._by_score, self._score, self._looks = by_score, score, looks
        self._tol, self._limit, self._adaptive = tol, n_iter_no_change, adaptive
        self._told = told
        self.best_value = (-math.inf if by_score else math.inf) if best is None else best
        self.count, self.stopped = count, False
        self.scores = []
        self._best_parameters: dict[str, Array] | None = None

    def check(self, names: Iterable[str]) -> None:
        """A function that looks at the model needs no record."""
        if not self._looks:
            super().check(names)

    def on_train_begin(self) -> None:
        """Until an epoch is better, the parameters at the start are the best."""
        super().on_train_begin()
        if self._by_score and self._looks:
            self._best_parameters = self.trainer.model.state_dict()

    def on_epoch_end(self, epoch: int, logs: Record) -> None:
        """Count the epoch."""
        loss = float(logs["loss"])
        score = None if self._score is None else self._score(logs)
        if score is not None:
            self.scores.append(score)
        if self._told is not None:
            self._told(epoch, loss, score)
        if self._by_score and score is not None:
            short, better = score < self.best_value + self._tol, score > self.best_value
        else:
            short, better = loss > self.best_value - self._tol, loss < self.best_value
        own = vars(self)  # past the check of names, which takes as long as the rest
        own["count"] = self.count + 1 if short else 0
        if better:
            own["best_value"] = score if self._by_score and score is not None else loss
            own["best_epoch"] = epoch
            if self._best_parameters is not None:
                self._best_parameters = self.trainer.model.state_dict()
        if self.count > self._limit:
            self._act()

    def _act(self) -> None:
        """End the fit, or lower the rate."""
        rate = self.learning_rate()
        if self._adaptive and rate > 1e-6:
            self.trainer.optimizer.lr = rate / 5.0
            self.count = 0
        else:
            self.stopped = self.trainer.stop_training = True

    def epochs_ahead(self) -> int:
        """Those before which the count cannot pass its limit; 0 where each epoch is looked at."""
        if self._looks or self._told is not None:
            return 0
        if math.isinf(self._limit):
            return FOREVER
        return max(1, int(self._limit) - self.count + 1)

    def on_train_end(self) -> None:
        """Restore the best epoch, where it is kept here."""
        if self._best_parameters is not None:
            restore_values(self.trainer.model, self._best_parameters)
            self._best_parameters = None
