"""What the multi-layer perceptrons with scikit-learn's parameters share: fits, and what they leave."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fastnet.errors import DivergenceError, outside
from fastnet.losses.base import Loss
from fastnet.op import Array
from fastnet.sklearn.network import Network, initial
from fastnet.sklearn.protocol import check_eval_set, checked_rows
from fastnet.sklearn.settings import Settings
from fastnet.sklearn.stopping import Record, Stopping
from fastnet.sklearn.targets import Labels, Scoring, Targets
from fastnet.sklearn.training import Epochs, Job, Rows, held_back, minimized
from fastnet.sklearn.watching import CallbackSupportMixin, Watched
from fastnet.sklearn.weights import row_weights, threads_of

NOT_FINITE = (  # what scikit-learn's users look for
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
    "preprocessed."
)


def in_epochs(estimator: Any) -> bool:
    """Whether the solver trains in epochs, so that `partial_fit` exists; AttributeError where not."""
    if estimator.solver == "lbfgs":
        raise AttributeError(
            "partial_fit needs a solver that trains in epochs, 'adam' or 'sgd'; solver is 'lbfgs'"
        )
    return True


Fitting = Generator[Job, DivergenceError | None, None]


class BaseMLP(CallbackSupportMixin, BaseEstimator):
    """What MLPClassifier and MLPRegressor share."""

    _targets: Any  # what outputs stand for: Labels or Numbers
    _network: Network
    _epochs: Epochs | None
    classes_: Array

    def _trained(self, *, goes_on: bool) -> list[Any]:
        """The model and the trainer that a fit changes in place; none where it makes new ones."""
        if not goes_on or not hasattr(self, "_network"):
            return []
        trainer = None if self._epochs is None else self._epochs.trainer
        return [self._network.model] if trainer is None else [trainer.model, trainer]

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, eval_set: Any = None, **options: Any
    ) -> Self:
        settings = Settings.of(self)
        with threads_of(self.n_threads):
            fitting = self._fitting(settings, X, y, sample_weight, eval_set, **options)
            for job in fitting:
                with suppress(StopIteration):
                    fitting.send(job.run())
        return self

    def _fitting(
        self,
        settings: Settings,
        X: Any,
        y: Any,
        sample_weight: Any,
        eval_set: Any = None,
        *,
        incremental: bool = False,
        classes: Any = None,
    ) -> Fitting:
        """A fit that waits where its training is to be run."""
        if incremental and settings.early_stopping:
            raise ValueError(
                "partial_fit does not support early_stopping=True: fit holds back rows for it"
            )
        goes_on = (settings.warm_start or incremental) and hasattr(self, "coefs_")
        X, y = self._checked(X, y, reset=not goes_on)
        targets = self._targets_of(y, goes_on, incremental, classes)
        weight = self._weights(sample_weight, y, incremental)
        rows = Rows(X, y, targets.encoded(y, X.dtype), weight)
        draw = check_random_state(self.random_state)
        watched = None if incremental else Watched(self, X, y, weight, settings.max_iter)
        if not goes_on or not hasattr(self, "_network"):
            self._begin(settings, rows, targets, draw)
        self._push()
        if settings.solver == "lbfgs":
            self._minimize(settings, rows)
        else:
            yield from self._training(settings, rows, eval_set, draw, incremental, watched)
        if watched is not None:
            watched.end()

    def _begin(self, settings: Settings, rows: Rows, targets: Targets, draw: Any) -> None:
        """Make a net, with drawn weights or with those that somebody has given to a new estimator."""
        dtype, units = rows.X.dtype, [rows.X.shape[1], *settings.widths, targets.width]
        if hasattr(self, "_network") or not hasattr(self, "coefs_"):
            given = initial(units, self.activation, dtype, draw)
        else:
            given = self.coefs_, self.intercepts_
        seed = int(draw.randint(np.iinfo(np.int32).max)) if settings.dropout else 0
        network = Network(units, settings, self.activation, dtype, self.backend, seed)
        network.load(*given)
        self._network, self._targets, self._epochs = network, targets, None
        self._pull()
        self.n_layers_, self.n_outputs_ = len(units), targets.width
        self.out_activation_ = targets.activation
        self.n_iter_ = self.t_ = 0
        for name in _OF_EPOCHS:
            self.__dict__.pop(name, None)
        if settings.solver != "lbfgs":
            self.loss_curve_: list[float] = []
            self.validation_scores_: list[float] | None = None
            self.best_validation_score_: float | None = None
            self.best_loss_: float | None = None
            self._no_improvement_count = 0

    def _pull(self) -> None:
        """Show the net's weights as attributes."""
        self.coefs_, self.intercepts_ = self._network.arrays()
        self._shown = (*self.coefs_, *self.intercepts_)

    def _push(self) -> None:
        """Give arrays that somebody has put in place of the net's weights to the net."""
        given = (*self.coefs_, *self.intercepts_)
        if len(given) != len(self._shown) or any(map(_differ, given, self._shown)):
            self._network.load(self.coefs_, self.intercepts_)
            self._pull()

    def _minimize(self, settings: Settings, rows: Rows) -> None:
        """Fit by L-BFGS."""
        result, least = minimized(self._network.model, self._loss(0.0), settings, rows)
        self._pull()
        self.n_iter_, self.loss_ = min(result.nit, settings.max_iter), least + self._constant(rows)
        if not result.success:
            warnings.warn(
                f"lbfgs has not converged after {result.nit} iterations: {result.message}; raise max_iter "
                "or max_fun, or scale the data",
                ConvergenceWarning,
                stacklevel=outside(),
            )

    def _training(
        self,
        settings: Settings,
        rows: Rows,
        eval_set: Any,
        draw: Any,
        incremental: bool,
        watched: Watched | None,
    ) -> Fitting:
        """Fit in epochs."""
        validation = self._evaluated(eval_set, rows)
        if settings.early_stopping and validation is None:
            stratified = isinstance(self._targets, Labels) and self._targets.width == 1
            share = settings.validation_fraction
            rows, validation = held_back(rows, share, draw, stratified=stratified)
        if self._epochs is None or not incremental:
            fits = 0 if self._epochs is None else self._epochs.fits + 1
            self._epochs = Epochs(self._network.model, draw, fits)
        scoring = None
        if validation is not None:
            scoring = self._targets.scoring(validation.targets, validation.weight)
        rule = self._rule(settings, validation, scoring)
        mean = 1.0 if rows.weight is None else float(rows.weight.mean())
        model = self._network.model
        goes_on = bool(self.validation_scores_)
        before = model.state_dict() if settings.early_stopping else None
        job = self._epochs.job(
            self._loss(settings.alpha / mean),
            settings,
            rows,
            validation,
            scoring,
            rule,
            self.t_,
            incremental=incremental,
        )
        job.callbacks.extend([] if watched is None else watched.callbacks)
        error = yield job
        self._pull()
        losses = self._epochs.losses()
        if error is not None:
            if before is None:
                raise ValueError(NOT_FINITE) from error
            losses, goes_on = self._diverged(rule, losses), True
        if before is not None and goes_on and rule.best_epoch is None:
            model.load_state_dict(before)
        self._record(settings, rows, validation, rule, losses)
        if not (incremental or rule.stopped) and self.n_iter_ == settings.max_iter:
            warnings.warn(
                f"the training has not converged in max_iter = {settings.max_iter} epochs: the "
                f"{'score' if settings.early_stopping else 'loss'} still improves by more than tol; raise "
                "max_iter or learning_rate_init",
                ConvergenceWarning,
                stacklevel=outside(),
            )

    def _diverged(self, rule: Stopping, losses: list[float]) -> list[float]:
        """The losses of a fit that holds back rows and has diverged; its best epoch is there."""
        rule.scores.append(float("nan"))
        rule.stopped = True
        best = (
            "before the fit" if rule.best_epoch is None else f"of the best epoch, {rule.best_epoch}"
        )
        warnings.warn(
            f"the training diverged in epoch {len(losses) + 1}; the parameters are those {best}. A smaller "
            "learning_rate_init, or scaled data, usually help",
            ConvergenceWarning,
            stacklevel=outside(),
        )
        return [*losses, float("nan")]

    def _record(
        self,
        settings: Settings,
        rows: Rows,
        validation: Rows | None,
        rule: Stopping,
        losses: list[float],
    ) -> None:
        """Keep what a fit has left."""
        constant = self._constant(rows)
        self.loss_curve_ = [*self.loss_curve_, *(value + constant for value in losses)]
        self.n_iter_ = len(losses)
        self.t_ += len(losses) * len(rows)
        if losses:
            self.loss_ = self.loss_curve_[-1]
        self._no_improvement_count = rule.count
        if validation is not None:
            self.validation_scores_ = [*(self.validation_scores_ or []), *rule.scores]
        if settings.early_stopping:
            self.best_validation_score_, self.best_loss_ = rule.best_value, None
        else:
            self.best_loss_ = min(self.loss_curve_, default=None)

    def _evaluated(self, eval_set: Any, rows: Rows) -> Rows | None:
        """The rows of `eval_set`, checked."""
        if eval_set is None:
            return None
        *given, weight = check_eval_set(eval_set)
        X, y = self._checked(*given, reset=False)
        weight = row_weights(weight, None, y)
        return Rows(X, y, self._targets.encoded(y, rows.X.dtype), weight)

    def _rule(
        self, settings: Settings, validation: Rows | None, scoring: Scoring | None
    ) -> Stopping:
        """When the training ends."""
        score: Callable[[Record], float] | None = None if scoring is None else scoring.value
        looks = validation is not None and scoring is None
        if validation is not None and scoring is None:
            score = self._score_now(validation)
        by_score = settings.early_stopping
        monitored = ("loss", "min")
        if by_score and scoring is not None:
            monitored = scoring.monitor, scoring.mode
        return Stopping(
            *monitored,
            by_score=by_score,
            score=score,
            looks=looks,
            tol=settings.tol,
            n_iter_no_change=settings.n_iter_no_change,
            adaptive=settings.solver == "sgd" and settings.learning_rate == "adaptive",
            best=self.best_validation_score_ if by_score else self.best_loss_,
            count=self._no_improvement_count,
            told=_printed if settings.verbose else None,
        )

    def _score_now(self, rows: Rows) -> Callable[[Record], float]:
        """A function that gives the score of the model as it is."""
        model, targets = self._network.model, self._targets

        def score(_: Record) -> float:
            with np.errstate(all="ignore"):
                outputs = model.predict(rows.X)
            found: float = targets.score(rows.y, outputs, rows.weight)
            return found

        return score

    def _outputs(self, X: Any) -> Array:
        """What the net gives for rows, before the activation of its outputs."""
        check_is_fitted(self)
        X = checked_rows(self, X)
        self._push()
        with threads_of(self.n_threads):
            outputs: Array = self._network.model.predict(X)
        return outputs

    # What the two differ in.

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Array]:
        raise NotImplementedError

    def _targets_of(self, y: Array, goes_on: bool, incremental: bool, classes: Any) -> Targets:
        raise NotImplementedError

    def _weights(self, sample_weight: Any, y: Array, incremental: bool) -> Array | None:
        return row_weights(sample_weight, None, y, incremental=incremental)

    def _loss(self, alpha: float) -> Loss:
        raise NotImplementedError

    def _constant(self, rows: Rows) -> float:
        """What scikit-learn's loss has beyond the net's."""
        return 0.0

    # scikit-learn's protocol.

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_network")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        if hasattr(self, "_network"):
            self._push()
        state = dict(super().__getstate__())
        for name in ("coefs_", "intercepts_", "_shown") if "_network" in state else ():
            state.pop(name, None)  # views of the net's memory
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "_network"):
            self._pull()


_OF_EPOCHS = (
    *("loss_curve_", "validation_scores_", "best_validation_score_", "best_loss_"),
    "_no_improvement_count",
)


def _differ(a: Any, b: Any) -> bool:
    return a is not b


def _printed(epoch: int, loss: float, score: float | None) -> None:
    """The line of an epoch, in scikit-learn's form."""
    print(f"Iteration {epoch}, loss = {loss:.8f}")
    if score is not None:
        print(f"Validation score: {score:f}")
