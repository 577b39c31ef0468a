"""NetClassifier and NetRegressor: any Sequential as a scikit-learn estimator."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fastnet.errors import (
    DataError,
    HyperparameterError,
    UsageError,
    check_flag,
    check_int,
    check_kind,
    check_real,
    shown,
)
from fastnet.layers import Layer
from fastnet.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, links
from fastnet.losses.base import Loss
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.optim import Adam, Optimizer
from fastnet.sklearn.protocol import (
    check_callbacks,
    check_eval_set,
    checked_data,
    checked_rows,
    keep,
    unchanged_on_error,
)
from fastnet.sklearn.targets import Labels, Numbers, check_several
from fastnet.sklearn.weights import row_weights, threads_of
from fastnet.train import EarlyStopping, Trainer

Build = Callable[..., Sequential | Iterable[Layer]]


class BaseNet(BaseEstimator):
    """What NetClassifier and NetRegressor share."""

    build: Build
    build_params: dict[str, Any] | None
    model_: Sequential
    classes_: Array
    _trainer: Trainer

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; with `deep` also those of `build`, as build__width."""
        found: dict[str, Any] = super().get_params(deep=False)
        if not deep:
            return found
        given = found["build_params"]
        own = _arguments_of(found["build"]) | (dict(given) if isinstance(given, Mapping) else {})
        return found | {f"build__{name}": value for name, value in own.items()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; build__width=3 sets the argument `width` of `build`."""
        own = {n.removeprefix("build__"): v for n, v in params.items() if n.startswith("build__")}
        rest = {n: v for n, v in params.items() if not n.startswith("build__")}
        if rest:
            super().set_params(**rest)
        if own:
            known = _arguments_of(self.build)
            if (others := [name for name in own if name not in known]) and not _takes_any(
                self.build
            ):
                raise ValueError(
                    f"build has no argument {others[0]!r}; it has {', '.join(known) or 'none'} besides the "
                    "numbers of inputs and outputs"
                )
            self.build_params = {**(self.build_params or {}), **own}
        return self

    def _trained(self, *, goes_on: bool) -> list[Any]:
        """The model and the trainer that a fit changes in place; none where it makes new ones."""
        return [self.model_, self._trainer] if goes_on and hasattr(self, "model_") else []

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        eval_set: Any = None,
        *,
        incremental: bool,
        classes: Any = None,
    ) -> Self:
        warm = check_flag("warm_start", self.warm_start)
        goes_on = hasattr(self, "model_") and (incremental or warm)
        epochs = 1 if incremental else check_int("epochs", self.epochs, low=1)
        X, y = self._checked(X, y, reset=not goes_on)
        targets = self._targets_of(y, goes_on, classes, incremental)
        weight = row_weights(sample_weight, self._class_weight(), y, incremental=incremental)
        draw = check_random_state(self.random_state)
        with threads_of(self.n_threads):
            if not goes_on:
                self._begin(X, targets, draw)
            options = self._validated(eval_set, incremental)
            self._trainer.fit(
                X,
                targets.encoded(y, self.model_.dtype),
                epochs,
                check_int("batch_size", self.batch_size, low=1),
                sample_weight=weight,
                shuffle=check_flag("shuffle", self.shuffle),
                verbose=self.verbose,
                **options,
            )
        self.history_ = self._trainer.history
        self.n_iter_ = len(self.history_)
        return self

    def _begin(self, X: Any, targets: Any, draw: Any) -> None:
        """Build the model, and a trainer for it."""
        n_inputs, n_outputs = X.shape[1], targets.width
        seed = int(draw.randint(np.iinfo(np.int32).max))
        if self.build_params is not None:
            check_kind("build_params", self.build_params, dict)
        built = self.build(n_inputs, n_outputs, **(self.build_params or {}))
        if isinstance(built, Sequential):
            model = built.to(self.backend) if self.backend != "auto" else built
        else:
            try:
                layers = list(built)
            except TypeError:
                raise HyperparameterError(
                    f"build returned {shown(built)}; expected a Sequential, or a list of layers"
                ) from None
            model = Sequential(*layers, backend=self.backend)
        if (shape := model.output_shape((n_inputs,))) != (n_outputs,):
            raise HyperparameterError(
                f"build returned a model whose outputs have shape {shape}; expected ({n_outputs},): it is "
                "called as build(n_inputs, n_outputs)"
            )
        model.reset_parameters(seed)
        loss = self._loss(targets)
        if self.optimizer is not None:
            check_kind("optimizer", self.optimizer, Optimizer)
        optimizer = Adam() if self.optimizer is None else copy.copy(self.optimizer)
        metrics = {} if self.metrics is None else self.metrics
        self._trainer = Trainer(model, loss, optimizer, metrics, seed=seed)
        self._targets, self.model_, self.n_outputs_ = targets, model, n_outputs

    def _validated(self, eval_set: Any, incremental: bool) -> dict[str, Any]:
        """The arguments of `Trainer.fit` about validation and callbacks."""
        stops = check_flag("early_stopping", self.early_stopping)
        callbacks = check_callbacks(self.callbacks)
        options: dict[str, Any] = {"callbacks": callbacks}
        if eval_set is not None:
            *given, weights = check_eval_set(eval_set)
            X, y = self._checked(*given, reset=False)
            weight = [] if weights is None else [row_weights(weights, None, y)]
            options["validation_data"] = (X, self._targets.encoded(y, self.model_.dtype), *weight)
        elif stops and not incremental:
            share = check_real("validation_fraction", self.validation_fraction, low=0.0, high=1.0)
            options["validation_split"] = share
        if stops and not incremental:
            patience = check_int("patience", self.patience, low=1)
            options["callbacks"] = [EarlyStopping(patience=patience), *callbacks]
            options["restore_best"] = True
        return options

    def _outputs(self, X: Any) -> Array:
        check_is_fitted(self)
        X = checked_rows(self, X)
        with threads_of(self.n_threads):
            outputs: Array = self.model_.predict(X)
        return outputs

    def _class_weight(self) -> Any:
        return None

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Array]:
        raise NotImplementedError

    def _targets_of(self, y: Array, goes_on: bool, classes: Any, incremental: bool) -> Any:
        raise NotImplementedError

    def _loss(self, targets: Any) -> Loss:
        raise NotImplementedError

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("model_", None)  # the trainer's own
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "_trainer"):
            self.model_ = self._trainer.model


def _arguments_of(build: Any) -> dict[str, Any]:
    """The arguments of a function beyond its first two that have defaults, with these."""
    try:
        given = list(inspect.signature(build).parameters.values())[2:]
    except (TypeError, ValueError):
        return {}
    return {p.name: p.default for p in given if p.default is not p.empty}


def _takes_any(build: Any) -> bool:
    """Whether a function takes arguments of any name."""
    try:
        given = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.kind is p.VAR_KEYWORD for p in given)


class NetClassifier(ClassifierMixin, BaseNet):
    """Any model of fastnet as a scikit-learn classifier.

    build: a function (n_inputs, n_outputs, …) that returns a Sequential or a list of layers. Further
        arguments with defaults are parameters of the estimator: a search sets build__width. n_outputs is
        the number of classes, or of truths where y is an indicator matrix (n, k).
    build_params: dict of such arguments, or None (default).
    loss: a loss of fastnet (default None: CrossEntropyLoss, or BCEWithLogitsLoss for truths).
    optimizer: an optimizer, of which each fit takes a copy (default None: Adam()).
    epochs: integer ≥ 1 (default 100). batch_size: integer ≥ 1 (default 32).
    early_stopping: bool (default False). True holds back validation_fraction (default 0.1) of the rows,
        ends the training after `patience` (default 10) epochs without a lower loss of these, and keeps the
        best epoch.
    class_weight: {label: number ≥ 0}, "balanced" or None (default).
    metrics: as `Trainer` takes them, reported in `history_` (default None: none).
    callbacks: fastnet's callbacks (default none). shuffle: bool (default True).
    warm_start: bool (default False). True: `fit` goes on with model and optimizer of the last fit.
    random_state: integer, RandomState or None (default), for initial parameters, order of rows and draws.
    backend: "auto" (default) or the name of a backend. n_threads: integer ≥ 1 or None (default).
    verbose: 0 (default) or 1, as for `Trainer.fit`.

    After a fit: `model_`, the Sequential, whose dtype is that of the arithmetic; `history_`, the records of
    the epochs; `classes_`, `n_iter_`, `n_outputs_`, `n_features_in_` and `feature_names_in_`.
    """

    def __init__(
        self,
        build: Build,
        *,
        build_params: dict[str, Any] | None = None,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        epochs: int = 100,
        batch_size: int = 32,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        class_weight: Any = None,
        metrics: Any = None,
        callbacks: Any = (),
        shuffle: bool = True,
        warm_start: bool = False,
        random_state: Any = None,
        backend: str = "auto",
        n_threads: int | None = None,
        verbose: int = 0,
    ) -> None:
        keep(self, locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> Self:
        """Fit to rows X (n, features) and labels y (n,), or an indicator matrix (n, k); returns itself.

        sample_weight: (n,), finite and ≥ 0 (default None). eval_set: (X, y) or (X, y, sample_weight),
        validation rows in place of those held back (default None).
        """
        with unchanged_on_error(self, *self._trained(goes_on=self.warm_start)):
            return self._fit(X, y, sample_weight, eval_set, incremental=False)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train one epoch on these rows; the first call needs `classes`, all labels that will come."""
        with unchanged_on_error(self, *self._trained(goes_on=True)):
            return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def predict(self, X: Any) -> Array:
        """The labels (n,) of rows, or truths (n, k) as 0 and 1."""
        outputs = self._outputs(X)
        link = self._trainer.loss.link
        if link is None:
            return np.asarray(self._targets.decoded(outputs))
        found = links.decisions(link, outputs)
        return found if self._targets.several else np.asarray(self.classes_[found])

    def decision_function(self, X: Any) -> Array:
        """What `predict` decides by: of two classes the log-odds of the second (n,), else (n, outputs)."""
        outputs = self._outputs(X)
        found: Array = self._targets.decisive(outputs)
        return found

    def predict_proba(self, X: Any) -> Array:
        """The probabilities (n, classes), or (n, k) of truths."""
        outputs = self._outputs(X)
        link = self._trainer.loss.link
        if link not in links.OF_PROBABILITIES:
            raise UsageError(
                f"predict_proba: outputs of a model trained with {type(self._trainer.loss).__name__} are "
                "no probabilities; train with CrossEntropyLoss, for instance"
            )
        if self._targets.several:
            return links.mean_of(link, outputs).astype(outputs.dtype)
        return links.probabilities(link, outputs).astype(outputs.dtype)

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):
            found: Array = np.log(self.predict_proba(X))
        return found

    def _class_weight(self) -> Any:
        return self.class_weight

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Array]:
        return checked_data(self, X, y, reset=reset, numeric=False)

    def _targets_of(self, y: Array, goes_on: bool, classes: Any, incremental: bool) -> Labels:
        if goes_on:
            targets: Labels = self._targets
            return targets
        if incremental and classes is None:
            raise ValueError(
                "classes is None in the first call of partial_fit; expected all labels that will come"
            )
        labels = Labels.of(y)
        if classes is not None and not labels.several:
            labels = Labels(np.unique(np.asarray(classes)))
            if len(other := labels.unknown(y)):
                raise ValueError(f"y has labels {shown(other.tolist())}, which are not in classes")
        if not labels.several:
            check_several("y" if classes is None else "classes", labels.classes)
        self.classes_ = labels.classes
        return labels.as_columns()

    def _loss(self, targets: Labels) -> Loss:
        if self.loss is not None:
            check_kind("loss", self.loss, Loss)
            given: Loss = self.loss
            return given
        return BCEWithLogitsLoss() if targets.several else CrossEntropyLoss()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class NetRegressor(RegressorMixin, BaseNet):
    """Any model of fastnet as a scikit-learn regressor.

    loss: a loss of fastnet (default None: MSELoss). y is (n,) or (n, k), and build gets k as n_outputs.
    All other parameters are those of NetClassifier, but for class_weight.
    """

    def __init__(
        self,
        build: Build,
        *,
        build_params: dict[str, Any] | None = None,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        epochs: int = 100,
        batch_size: int = 32,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        metrics: Any = None,
        callbacks: Any = (),
        shuffle: bool = True,
        warm_start: bool = False,
        random_state: Any = None,
        backend: str = "auto",
        n_threads: int | None = None,
        verbose: int = 0,
    ) -> None:
        keep(self, locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> Self:
        """Fit to rows X (n, features) and targets y (n,) or (n, k); see NetClassifier.fit."""
        with unchanged_on_error(self, *self._trained(goes_on=self.warm_start)):
            return self._fit(X, y, sample_weight, eval_set, incremental=False)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train one epoch on these rows; returns itself."""
        with unchanged_on_error(self, *self._trained(goes_on=True)):
            return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Array:
        """Predictions (n,), or (n, k) of several targets."""
        outputs = self._outputs(X)
        if self._trainer.loss.link == links.LOG:
            outputs = links.mean_of(links.LOG, outputs).astype(outputs.dtype)
        return outputs[:, 0] if self._targets.width == 1 else outputs

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Array]:
        return checked_data(self, X, y, reset=reset, numeric=True)

    def _targets_of(self, y: Array, goes_on: bool, classes: Any, incremental: bool) -> Numbers:
        width = 1 if y.ndim == 1 else y.shape[1]
        if goes_on and width != self.n_outputs_:
            raise DataError(
                f"y has {width} columns, and the first fit had {self.n_outputs_}; expected as many"
            )
        return Numbers(width, "numbers")

    def _loss(self, targets: Numbers) -> Loss:
        if self.loss is not None:
            check_kind("loss", self.loss, Loss)
            given: Loss = self.loss
            return given
        return MSELoss()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
