"""MLPClassifier and MLPRegressor: scikit-learn's multi-layer perceptrons on fastnet's engine."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if

from fastnet.errors import DataError, check_choice, check_real, shown
from fastnet.losses.base import Loss
from fastnet.op import Array
from fastnet.sklearn import objective
from fastnet.sklearn.base import BaseMLP, in_epochs
from fastnet.sklearn.protocol import checked_data, keep, unchanged_on_error
from fastnet.sklearn.targets import Labels, Numbers, Targets
from fastnet.sklearn.training import Rows
from fastnet.sklearn.watching import watching
from fastnet.sklearn.weights import row_weights

LOSSES = ("squared_error", "poisson", "huber", "quantile")
# Both constructors list all parameters, as scikit-learn and editors read them from there.


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multi-layer perceptron for classes, with the parameters and attributes of scikit-learn's.

    It minimises the mean over rows of the log-loss plus alpha/(2·n)·Σ w² over all weights, where n is the
    number of rows of a minibatch. Of two classes, and for each of several truths (y an indicator matrix (n,
    k)), the output is a logistic function, else a softmax.

    hidden_layer_sizes: integers ≥ 1 (default (100,)), or one. The widths of the hidden layers.
    activation: "relu" (default), "identity", "logistic", "tanh", or any of fastnet's layers that keep the
        number of columns: its name ("GELU"), class or object.
    solver: "adam" (default), "sgd" or "lbfgs".
    alpha: number ≥ 0 (default 1e-4).
    batch_size: integer ≥ 1, or "auto" (default): min(200, n).
    learning_rate: "constant" (default), "invscaling" or "adaptive", for "sgd": the rate stays; or is
        learning_rate_init/t^power_t after t rows; or is divided by 5 where the training would end.
    learning_rate_init: number > 0 (default 1e-3). power_t: number ≥ 0 (default 0.5).
    max_iter: integer ≥ 1 (default 200). Epochs, or iterations of L-BFGS.
    shuffle: bool (default True).
    random_state: integer, RandomState or None (default): draws initial weights, as scikit-learn does, the
        rows held back, the order of rows and dropout.
    tol: number ≥ 0 (default 1e-4). The training ends after more than n_iter_no_change epochs in a row
        without a gain of tol; L-BFGS where no component of the gradient is larger.
    verbose: bool (default False). Prints a line for each epoch.
    warm_start: bool (default False). True: `fit` goes on with the weights of the last fit.
    momentum: number in [0, 1] (default 0.9), nesterovs_momentum: bool (default True), for "sgd".
    early_stopping: bool (default False). True holds back validation_fraction (default 0.1) of the rows, by
        whose score the training ends, with the weights of the best epoch.
    beta_1, beta_2: numbers in [0, 1) (default 0.9 and 0.999), for "adam".
    epsilon: number > 0 (default 1e-8), for "adam".
    n_iter_no_change: integer ≥ 1 or infinity (default 10).
    max_fun: integer ≥ 1 (default 15000). Evaluations of L-BFGS.

    Beyond scikit-learn:

    class_weight: {label: number ≥ 0}, "balanced" or None (default). Multiplies the weights of rows.
    dropout: probability in [0, 1) (default 0) of each hidden unit.
    batch_norm: bool (default False). True: BatchNorm1d before each activation.
    optimizer: an optimizer of fastnet, of which the training takes a copy in place of the solver's (default
        None).
    callbacks: fastnet's callbacks (default none).
    backend: "auto" (default) or the name of a backend. n_threads: integer ≥ 1, or None (default): as many
        as the process has.

    The attributes are scikit-learn's: classes_, coefs_ (in, out) and intercepts_ (out,), which are read
    where they lie (put other arrays in their place to change them), loss_, best_loss_, loss_curve_,
    validation_scores_, best_validation_score_, n_iter_, t_, n_layers_, n_outputs_, out_activation_,
    n_features_in_ and feature_names_in_. X is dense or sparse; float32 is computed in float32, all else in
    float64. docs/sklearn.md lists what differs.
    Sources: scikit-learn 1.9; X. Glorot, Y. Bengio, "Understanding the difficulty of training deep
    feedforward neural networks", AISTATS 2010.
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        class_weight: Any = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
        optimizer: Any = None,
        callbacks: Any = (),
        backend: str = "auto",
        n_threads: int | None = None,
    ) -> None:
        keep(self, locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> Self:
        """Fit to rows X (n, features) and labels y (n,), or an indicator matrix (n, k); returns itself.

        sample_weight: (n,), finite and ≥ 0 (default None). The objective is the weighted mean over the
            whole data, for any batch_size.
        eval_set: (X, y) or (X, y, sample_weight): rows whose score is measured after each epoch, in
            place of rows held back (default None).
        """
        with unchanged_on_error(self, *self._trained(goes_on=self.warm_start)):
            watching(self, lambda: self._fit(X, y, sample_weight, eval_set))
        return self

    @available_if(in_epochs)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train one epoch on these rows; returns itself.

        classes: all labels that will come, or None (default) after the first call.
        """
        with unchanged_on_error(self, *self._trained(goes_on=True)):
            return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def predict(self, X: Any) -> Array:
        """The labels (n,) of rows, or truths (n, k) as 0 and 1."""
        outputs = self._outputs(X)
        found: Array = self._targets.decoded(outputs)
        return found

    def decision_function(self, X: Any) -> Array:
        """What `predict` decides by: of two classes the log-odds of the second (n,), else (n, outputs)."""
        outputs = self._outputs(X)
        found: Array = self._targets.decisive(outputs)
        return found

    def predict_proba(self, X: Any) -> Array:
        """The probabilities (n, classes), or (n, k) of truths."""
        outputs = self._outputs(X)
        assert isinstance(self._targets, Labels)
        return self._targets.probabilities(outputs)

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):
            found: Array = np.log(self.predict_proba(X))
        return found

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Array]:
        return checked_data(self, X, y, reset=reset, numeric=False)

    def _targets_of(self, y: Array, goes_on: bool, incremental: bool, classes: Any) -> Targets:
        if classes is not None:
            known = np.unique(np.asarray(classes))
            before = getattr(self, "classes_", known)
            if goes_on and not np.array_equal(known, before):
                raise ValueError(
                    f"classes is {shown(known.tolist())}, and was {shown(before.tolist())} in the "
                    "first partial_fit; expected the same, or None"
                )
        elif incremental and not goes_on:
            raise ValueError(
                "classes is None in the first call of partial_fit; expected all labels that will come"
            )
        if goes_on and hasattr(self, "classes_"):
            if self.warm_start and not incremental:
                self._check_same(y)
            return self._targets if hasattr(self, "_targets") else Labels(self.classes_)
        targets = Labels.of(y)
        if classes is not None and not targets.several:
            targets = Labels(known)
            if len(targets.unknown(y)):
                raise ValueError(f"y has labels not in classes {shown(known.tolist())}")
        self.classes_ = targets.classes
        return targets

    def _check_same(self, y: Array) -> None:
        """What warm_start asks for."""
        found = Labels.of(y).classes
        if not np.array_equal(found, self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to "
                f"fit. Previously got {self.classes_}, `y` has {found}"
            )

    def _weights(self, sample_weight: Any, y: Array, incremental: bool) -> Array | None:
        return row_weights(sample_weight, self.class_weight, y, incremental=incremental)

    def _loss(self, alpha: float) -> Loss:
        return objective.of_classes(alpha, self._targets.activation)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multi-layer perceptron for numbers, with the parameters and attributes of scikit-learn's.

    It minimises the mean over rows of a loss, summed over outputs, plus alpha/(2·n)·Σ w² over all weights,
    where n is the number of rows of a minibatch. y is (n,) or (n, k).

    loss: "squared_error" (default), ½(y − t)²; "poisson", for counts: the output is the logarithm of the
        prediction; "huber", with its `delta`; or "quantile", for the quantile of this name.
    quantile: number in (0, 1) (default 0.5). delta: number > 0 (default 1).

    All other parameters and attributes are those of `MLPClassifier`, but for class_weight and classes_.
    best_validation_score_ and validation_scores_ are R².
    Sources: as for MLPClassifier; R. Koenker, G. Bassett, "Regression quantiles", Econometrica 46, 1978.
    """

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        quantile: float = 0.5,
        delta: float = 1.0,
        dropout: float = 0.0,
        batch_norm: bool = False,
        optimizer: Any = None,
        callbacks: Any = (),
        backend: str = "auto",
        n_threads: int | None = None,
    ) -> None:
        keep(self, locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> Self:
        """Fit to rows X (n, features) and targets y (n,) or (n, k); see MLPClassifier.fit."""
        with unchanged_on_error(self, *self._trained(goes_on=self.warm_start)):
            watching(self, lambda: self._fit(X, y, sample_weight, eval_set))
        return self

    @available_if(in_epochs)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train one epoch on these rows; returns itself."""
        with unchanged_on_error(self, *self._trained(goes_on=True)):
            return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Array:
        """Predictions (n,), or (n, k) of several targets."""
        outputs = self._outputs(X)
        found: Array = self._targets.decoded(outputs)
        return found

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Array]:
        return checked_data(self, X, y, reset=reset, numeric=True)

    def _targets_of(self, y: Array, goes_on: bool, incremental: bool, classes: Any) -> Targets:
        check_choice("loss", self.loss, LOSSES)
        unit: dict[str, Any] = {"low": 0.0, "high": 1.0, "open_low": True, "open_high": True}
        check_real("quantile", self.quantile, **unit)
        check_real("delta", self.delta, low=0.0, open_low=True)
        width = 1 if y.ndim == 1 else y.shape[1]
        if goes_on and width != self.n_outputs_:
            raise DataError(
                f"y has {width} columns, and the first fit had {self.n_outputs_}; expected as many"
            )
        return Numbers(width, self.loss)

    def _loss(self, alpha: float) -> Loss:
        return objective.of_numbers(alpha, self.loss, self.quantile, self.delta)

    def _constant(self, rows: Rows) -> float:
        if self.loss != "poisson":
            return 0.0
        return objective.poisson_constant(rows.targets, rows.weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
