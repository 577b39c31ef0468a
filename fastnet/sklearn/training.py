"""The training of an MLP: epochs by a Trainer, or L-BFGS."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from fastnet.errors import DivergenceError, outside
from fastnet.losses.base import Loss
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.optim import Optimizer
from fastnet.sklearn import objective
from fastnet.sklearn.settings import Settings
from fastnet.sklearn.stopping import Stopping
from fastnet.sklearn.targets import Scoring
from fastnet.train import Callback, History, Trainer

LARGEST_AUTO = 200  # rows of a minibatch, for batch_size="auto"
FTOL = 2.220446049250313e-09  # of L-BFGS-B, SciPy's default
ODD = 0x9E3779B97F4A7C15  # what seeds of warm-started fits differ by


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of data: y as it was given, and as targets of the loss."""

    X: Any
    y: Any
    targets: Array
    weight: Array | None
    index: Array | None = None  # their numbers in the data of the fit; None: all

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: Array) -> Rows:
        """Some of the rows."""
        weight = None if self.weight is None else self.weight[index]
        numbers = index if self.index is None else self.index[index]
        return Rows(self.X[index], self.y[index], self.targets[index], weight, numbers)


def held_back(rows: Rows, share: float, draw: Any, *, stratified: bool) -> tuple[Rows, Rows]:
    """The rows of the training, and those held back, as scikit-learn draws them."""
    groups = rows.targets.astype(bool) if stratified else None
    index = np.arange(len(rows))
    train, rest = train_test_split(index, random_state=draw, test_size=share, stratify=groups)
    if len(rest) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
        )
    return rows.take(train), rows.take(rest)


@dataclass(frozen=True, eq=False)
class Job:
    """A training that waits to be run, alone or together with others."""

    trainer: Trainer
    rows: Rows
    validation: Rows | None  # what the records of epochs are to score
    batch_size: int
    epochs: int
    shuffle: bool
    restore_best: bool
    callbacks: list[Callback]

    def run(self) -> DivergenceError | None:
        """Train; returns the error of a training that has diverged."""
        data = None
        if self.validation is not None:
            parts = self.validation.X, self.validation.targets, self.validation.weight
            data = parts[: 2 if self.validation.weight is None else 3]
        try:
            self.trainer.fit(
                self.rows.X,
                self.rows.targets,
                self.epochs,
                self.batch_size,
                data,
                sample_weight=self.rows.weight,
                shuffle=self.shuffle,
                restore_best=self.restore_best,
                callbacks=self.callbacks,
                verbose=0,
            )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=outside())
        except DivergenceError as error:
            return error
        return None


class Epochs:
    """A model with its optimizer, trained in epochs; it goes on from fit to fit.

    fits: how many fits of this model came before it, whose orders of rows were others.
    """

    def __init__(self, model: Sequential, draw: Any, fits: int = 0) -> None:
        self.model, self.fits = model, fits
        self.seed = (int(draw.randint(np.iinfo(np.int32).max)) + fits * ODD) % 2**64
        self.trainer: Trainer | None = None

    def optimizer(self, settings: Settings, rows: int, steps: int, seen: int) -> Optimizer:
        """A new optimizer for a fit with epochs of so many rows and steps, after `seen` rows."""
        if settings.optimizer is not None:
            return copy.copy(settings.optimizer)
        s = settings
        if s.solver == "adam":
            return objective.adam(s.learning_rate_init, s.beta_1, s.beta_2, s.epsilon)
        rate: Any = s.learning_rate_init
        if s.learning_rate == "invscaling":
            rate = objective.InverseScaling(rate, s.power_t, rows, steps, seen)
        return objective.sgd(rate, s.momentum, s.nesterovs_momentum)

    def job(
        self,
        loss: Loss,
        settings: Settings,
        rows: Rows,
        validation: Rows | None,
        scoring: Scoring | None,
        rule: Stopping,
        seen: int,
        *,
        incremental: bool,
    ) -> Job:
        """A training that ends with the best epoch's parameters where fits stop early."""
        batch = self.batch_size(settings, len(rows))
        steps = math.ceil(len(rows) / batch)
        metrics = {} if scoring is None else scoring.metrics
        if self.trainer is None or not incremental:
            optimizer = self.optimizer(settings, len(rows), steps, seen)
            self.trainer = Trainer(self.model, loss, optimizer, metrics, seed=self.seed)
        elif incremental:
            self._go_on(loss, settings, seen)
        self.trainer.history = History()
        of_records = validation is not None and scoring is not None
        return Job(
            self.trainer,
            rows,
            validation if of_records else None,
            batch,
            1 if incremental else settings.max_iter,
            settings.shuffle,
            settings.early_stopping and of_records,
            [rule, *settings.callbacks],
        )

    def losses(self) -> list[float]:
        """Those of the epochs of the last run."""
        assert self.trainer is not None
        return [record["loss"] for record in self.trainer.history.records]

    def _go_on(self, loss: Loss, settings: Settings, seen: int) -> None:
        """Another `partial_fit`, whose parameters may have changed."""
        assert self.trainer is not None
        if self.trainer.loss.plan_key() != loss.plan_key():
            self.trainer.loss = loss
        if settings.optimizer is not None or settings.solver == "adam":
            return
        optimizer: Any = self.trainer.optimizer
        rate = optimizer.lr
        if settings.learning_rate == "invscaling":
            rate = settings.learning_rate_init / (seen + 1) ** settings.power_t
        if not isinstance(rate, float) or settings.learning_rate == "constant":
            rate = settings.learning_rate_init
        optimizer.lr = rate

    @staticmethod
    def batch_size(settings: Settings, rows: int) -> int:
        """The rows of a minibatch."""
        if settings.batch_size is None:
            return min(LARGEST_AUTO, rows)
        if settings.batch_size > rows:
            warnings.warn(
                f"batch_size is {settings.batch_size}, more than the {rows} rows: each minibatch has all "
                "of them",
                stacklevel=outside(),
            )
        return min(settings.batch_size, rows)


def minimized(model: Sequential, loss: Loss, settings: Settings, rows: Rows) -> tuple[Any, float]:
    """SciPy's result of minimising the objective of all rows by L-BFGS, and the least value."""
    trainer = Trainer(model, loss, metrics={}, seed=0)
    total = float(len(rows)) if rows.weight is None else float(rows.weight.sum())
    history = trainer.fit_full_batch(
        rows.X,
        rows.targets,
        max_iter=settings.max_iter,
        tol=settings.tol,
        weight_decay=settings.alpha / total,
        decay_biases_and_norms=False,
        options={"maxfun": settings.max_fun, "ftol": FTOL},
        sample_weight=rows.weight,
    )
    return history.result, float(history.records[-1]["loss"])
