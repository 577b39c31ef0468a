"""TabularClassifier and TabularRegressor: nets for tables with the best known defaults."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from fastnet import recipes
from fastnet.errors import check_choice, check_flag, check_int, check_kind, check_real
from fastnet.layers.piecewise import quantile_bins
from fastnet.op import Array
from fastnet.preprocess import QuantileTransformer, RobustScaler
from fastnet.sklearn.protocol import check_callbacks, keep, unchanged_on_error
from fastnet.sklearn.targets import Labels, check_several
from fastnet.sklearn.weights import row_weights, threads_of
from fastnet.tabular.columns import Columns, Table, columns_of
from fastnet.tabular.model import TableModel
from fastnet.tabular.nets import PRESETS, Nets, tempered
from fastnet.tabular.saved import DECIMALS
from fastnet.train import EarlyStopping, Timer, Trainer, fit_many

EPOCHS = {"small": 256, "full": 256, "tabm": 256}
PATIENCE = {"small": 2**30, "full": 2**30, "tabm": 16}
LOWER = ("log_loss", "rmse", "mae", "loss")  # of the metrics, those of which less is better
# Rows from which on a minibatch has the next number of rows.
BATCHES = {
    "realmlp": ((0, 64), (1_024, 128), (8_192, 256), (30_000, 512), (100_000, 1_024)),
    "tabm": ((0, 32), (2_800, 64), (4_500, 128), (6_400, 256), (32_000, 512)),
}


@dataclass
class Fold(Nets):
    """The nets of a division of the rows."""

    train: Array = field(kw_only=True)
    rest: Array = field(kw_only=True)


class BaseTabular(BaseEstimator):
    """What TabularClassifier and TabularRegressor share."""

    _task: str

    def _fit(self, y: Array, columns: list[Array], names: list[str]) -> Self:
        preset = check_choice("preset", self.preset, PRESETS)
        if self.recipe_params is not None:
            check_kind("recipe_params", self.recipe_params, dict)
        embed = preset == "full"
        self._columns = Columns(embed).fit(columns, names, self.categorical_features)
        table = self._columns.table(columns)
        targets = self._encoded(y)
        weight = row_weights(None, self._class_weight(), y)
        draw = check_random_state(self.random_state)
        self._folds = [
            self._fold(table, targets, train, rest, preset)
            for train, rest in self._divided(y, draw)
        ]
        with threads_of(self.n_threads):
            self._train(table, targets, weight, draw, preset)
        return self

    def _divided(self, y: Array, draw: Any) -> list[tuple[Array, Array]]:
        """Rows to train on and to validate on."""
        n_cv = check_int("n_cv", self.n_cv, low=1)
        share = check_real(
            "validation_fraction", self.validation_fraction, low=0.0, high=1.0, open_high=True
        )
        rows = np.arange(len(y))
        groups = self._groups(y, n_cv)
        if n_cv > 1 and len(y) >= n_cv:
            kind = KFold if groups is None else StratifiedKFold
            folds = kind(n_cv, shuffle=True, random_state=draw.randint(2**31 - 1))
            return list(folds.split(rows, groups))
        held = math.ceil(share * len(y))
        if not held or len(y) - held < 1 or len(y) < 3:
            return [(rows, rows[:0])]
        if groups is not None and min(held, len(y) - held) < len(np.unique(groups)):
            groups = None
        train, rest = train_test_split(rows, test_size=held, random_state=draw, stratify=groups)
        return [(train, rest)]

    def _fold(self, table: Table, targets: Array, train: Array, rest: Array, preset: str) -> Fold:
        """The scales of a division."""
        own = table.take(train)
        known = ~np.isnan(own.numeric)
        fill = np.where(known, own.numeric, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        filled = np.where(known, own.numeric, fill)
        scaler: Any
        if preset == "tabm":
            number = max(10, min(len(train) // 30, 1000))
            scaler = QuantileTransformer(number).fit(filled) if filled.shape[1] else None
        else:
            both = np.concatenate([filled, own.onehot], axis=1)
            scaler = RobustScaler().fit(both) if both.shape[1] else None
        shift, factor = self._scale(targets[train])
        return Fold(scaler, fill, shift, factor, train=train, rest=rest)

    def _train(
        self, table: Table, targets: Array, weight: Array | None, draw: Any, preset: str
    ) -> None:
        """Train the nets of all folds together."""
        n_ens = check_int("n_ens", self.n_ens, low=1)
        epochs = EPOCHS[preset] if self.epochs is None else check_int("epochs", self.epochs, low=1)
        metric = self._metric()
        encoded = [fold.encoded(table, preset) for fold in self._folds]
        size, count = len(targets), len(self._folds)
        trainers, rows, rest, batches = [], list[Array](), list[Any](), list[int]()
        for number, fold in enumerate(self._folds):
            batch = min(self._batch(len(fold.train), preset), len(fold.train))
            steps = epochs * max(1, len(fold.train) // batch)
            for _ in range(n_ens):
                seed = int(draw.randint(2**31 - 1))
                made = self._recipe(encoded[number][fold.train], table, steps, seed, preset)
                trainers.append(Trainer(made.model, made.loss, made.optimizer, [metric], seed=seed))
                rows.append(fold.train + number * size)
                rest.append(fold.rest + number * size if len(fold.rest) else None)
                batches.append(batch)
        y = np.concatenate([self._scaled(targets, fold) for fold in self._folds])
        validated = any(one is not None for one in rest)
        histories = fit_many(
            trainers,
            np.concatenate(encoded),
            y,
            rows=rows,
            sample_weight=None if weight is None else np.tile(weight, count),
            validation=rest if validated else None,
            epochs=epochs,
            batch_size=batches,
            drop_last=preset != "tabm",
            restore_best=validated,
            callbacks=[self._callbacks(metric, validated, preset) for _ in trainers],
            verbose=check_int("verbose", self.verbose),
        )
        for i, trainer in enumerate(trainers):
            self._folds[i // n_ens].models.append(trainer.model.eval())
        self.histories_ = histories
        self.n_iter_ = max(len(history) for history in histories)
        self._finish(table, targets)

    def _recipe(self, X: Array, table: Table, steps: int, seed: int, preset: str) -> Any:
        """The net, its loss and its optimizer."""
        numeric, onehot = table.numeric.shape[1], table.onehot.shape[1]
        options = {"task": self._task, "seed": seed, "backend": self.backend}
        options |= dict(self.recipe_params or {})
        if preset == "tabm":
            if options.get("bins") is True:
                options["bins"] = quantile_bins(X[:, :numeric])
            widths = list(self._columns.widths)
            return recipes.tabm(numeric, self._width, onehot=widths, **options)
        return recipes.realmlp(
            numeric,
            self._width,
            preset=preset,
            total_steps=steps,
            n_onehot=onehot,
            categories=tuple(self._columns.categories),
            X=X if preset == "full" else None,
            **options,
        )

    def _callbacks(self, metric: str, validated: bool, preset: str) -> list[Any]:
        found: list[Any] = []
        if validated:
            mode = "min" if metric in LOWER else "max"
            ties = "first" if preset == "tabm" else "last"  # as the recipes' own implementations
            found.append(EarlyStopping(f"val_{metric}", PATIENCE[preset], mode=mode, ties=ties))
        if self.time_limit is not None:
            limit = check_real("time_limit", self.time_limit, low=0.0, open_low=True)
            found.append(Timer(limit))
        return found + [copy.deepcopy(one) for one in check_callbacks(self.callbacks or ())]

    def _batch(self, rows: int, preset: str) -> int:
        """The rows of a minibatch."""
        if self.batch_size != "auto":
            return check_int("batch_size", self.batch_size, low=1)
        table = BATCHES["tabm" if preset == "tabm" else "realmlp"]
        return max(size for least, size in table if rows >= least)

    def _mean(self, X: Any) -> Array:
        """The mean of what all nets say of rows, float64 (n, outputs)."""
        check_is_fitted(self)
        columns, _ = self._read(X, reset=False)
        table = self._columns.table(columns)
        with threads_of(self.n_threads):
            return np.asarray(np.mean([self._of_fold(f, table) for f in self._folds], axis=0))

    def _of_fold(self, fold: Fold, table: Table) -> Array:
        """The mean of what a fold's nets say of rows."""
        return fold.mean(table, self.preset, self._task)

    def table_model(
        self, target: str = "", missing: Sequence[str] = (), decimal: str = "."
    ) -> TableModel:
        """What the fit has found, as a `TableModel`, which predicts without scikit-learn.

        target: what the target is called (default ""). missing: texts that stand for missing values in the
        files of such tables (default none). decimal: the mark of decimals in them, "." (default) or ",".
        The predictions are those of the estimator now; nothing is copied.
        """
        check_is_fitted(self)
        return TableModel(
            self._task,
            self.preset,
            self._columns,
            self._folds,
            target,
            **self._decided(),
            missing=tuple(missing),
            decimal=check_choice("decimal", decimal, DECIMALS),
        )

    def save(self, path: Any) -> None:
        """Write a safetensors file, from which `fn.tabular.load` reads the `table_model`."""
        self.table_model().save(path)

    def _read(self, X: Any, *, reset: bool) -> tuple[list[Array], list[str]]:
        """The columns of X."""
        if (
            not hasattr(X, "iloc")
            and not hasattr(X, "get_columns")
            and not hasattr(X, "column_names")
        ):
            X = check_array(X, dtype=None, ensure_all_finite="allow-nan", estimator=self)
        elif not len(X) or not len(getattr(X, "columns", X)):
            raise ValueError(f"X has shape {X.shape}; expected at least one row and one column")
        validate_data(self, X, reset=reset, skip_check_array=True)
        return columns_of(X)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_folds")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


class TabularClassifier(ClassifierMixin, BaseTabular):
    """A net for tables with tuned defaults, for classes.

    preset: "full" (default), RealMLP-TD; "small", RealMLP-TD-S, which is faster; or "tabm", TabM's small
        form, an ensemble in one net.
    n_cv: integer ≥ 1 (default 1). Above 1, nets on the folds of a cross-validation, whose probabilities are
        averaged; 1: validation_fraction (default 0.2) of the rows is held back.
    n_ens: integer ≥ 1 (default 1). Nets for each fold, with seeds of their own.
    metric: "accuracy" (default), "log_loss", "auc", "balanced_accuracy" or "f1": by its value on the rows
        held back the best epoch is chosen.
    epochs: integer ≥ 1, or None (default): the preset's, 256.
    batch_size: integer ≥ 1, or "auto" (default): by the number of rows, from 64 to 1,024 (TabM: 32 to 512).
    time_limit: seconds > 0, after which no further epoch begins, or None (default).
    calibrate: bool (default True). Divides the logarithms of probabilities by a temperature T and mixes
        them with equal ones, p ← (m·p^(1/T)/Σ + 1/C)/(m + 1), where m is the number of rows held back, so
        that the log-loss on these is least.
    categorical_features: names or numbers of columns whose values are categories, or None (default): those
        of strings, bools and objects.
    class_weight: {label: number ≥ 0}, "balanced" or None (default).
    recipe_params: a dict of further arguments of `fn.recipes.realmlp` or `fn.recipes.tabm` (default None),
        such as {"hidden": (512, 512), "lr": 0.02}; {"bins": True} gives TabM embeddings of numbers.
    callbacks: a list of `fn.Callback`s, of which each net gets copies, or None (default).
    random_state: integer, RandomState or None (default). backend: "auto" (default) or a backend's name.
    n_threads: integer ≥ 1 or None (default). verbose: 0 (default) or 1.

    X is a frame of pandas, polars or pyarrow, or an array. Missing numbers become the mean of their column,
    with a column beside it that tells; missing and unseen categories are their own. Constant columns are
    allowed, infinite numbers and dates are not. All is computed in float32.
    After a fit: classes_, histories_ of all nets, temperature_, n_iter_, n_features_in_, feature_names_in_.
    Sources: D. Holzmüller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and
    boosted trees on tabular data", NeurIPS 2024; Y. Gorishniy, A. Kotelnikov, A. Babenko, "TabM: advancing
    tabular deep learning with parameter-efficient ensembling", ICLR 2025; C. Guo, G. Pleiss, Y. Sun, K. Q.
    Weinberger, "On calibration of modern neural networks", ICML 2017.
    """

    _task = "classification"

    def __init__(
        self,
        preset: str = "full",
        *,
        n_cv: int = 1,
        n_ens: int = 1,
        metric: str = "accuracy",
        epochs: int | None = None,
        batch_size: Any = "auto",
        validation_fraction: float = 0.2,
        time_limit: float | None = None,
        calibrate: bool = True,
        categorical_features: Any = None,
        class_weight: Any = None,
        recipe_params: dict[str, Any] | None = None,
        callbacks: Any = None,
        random_state: Any = None,
        backend: str = "auto",
        n_threads: int | None = None,
        verbose: int = 0,
    ) -> None:
        keep(self, locals())

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to rows X (n, columns) and labels y (n,); returns itself."""
        with unchanged_on_error(self):
            return self._fit_checked(X, y)

    def _fit_checked(self, X: Any, y: Any) -> Self:
        columns, names = self._read(X, reset=True)
        y = _target(y, len(columns[0]))
        self._labels = Labels.of(y).as_columns()
        if self._labels.several:
            raise ValueError(f"y has shape {y.shape}; expected labels (n,), one for each row")
        self.classes_ = self._labels.classes
        self.temperature_, self._mixed = 1.0, 0.0
        check_several("y", self.classes_)
        check_flag("calibrate", self.calibrate)
        return self._fit(y, columns, names)

    def predict_proba(self, X: Any) -> Array:
        """The probabilities (n, classes), float64."""
        found = self._mean(X)
        return tempered(found, self.temperature_, self._mixed)

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithms of `predict_proba`."""
        return np.asarray(np.log(np.maximum(self.predict_proba(X), np.finfo(float).tiny)))

    def predict(self, X: Any) -> Array:
        """The labels (n,)."""
        best = np.argmax(self._mean(X), axis=1)
        found: Array = self.classes_[best]
        return found

    def _decided(self) -> dict[str, Any]:
        own = {"temperature": self.temperature_, "mixed": self._mixed}
        return {"classes": self.classes_, **own}

    @property
    def _width(self) -> int:
        return len(self.classes_)

    def _class_weight(self) -> Any:
        return self.class_weight

    def _groups(self, y: Array, n_cv: int) -> Array | None:
        """What folds are balanced by; None where a class is too small."""
        least = np.unique(y, return_counts=True)[1].min()
        return y if least >= max(2, n_cv) else None

    def _encoded(self, y: Array) -> Array:
        return self._labels.encoded(y, np.float32)

    def _scale(self, targets: Array) -> tuple[Array, Array]:
        return np.zeros(1), np.ones(1)

    def _scaled(self, targets: Array, fold: Fold) -> Array:
        return targets

    def _metric(self) -> str:
        names = ("accuracy", "log_loss", "auc", "balanced_accuracy", "f1")
        return str(check_choice("metric", self.metric, names))

    def _finish(self, table: Table, targets: Array) -> None:
        """Choose the temperature by the rows held back."""
        held = [fold for fold in self._folds if len(fold.rest)]
        if not self.calibrate or not held:
            return
        parts = [self._of_fold(fold, table.take(fold.rest)) for fold in held]
        p, t = np.concatenate(parts), np.concatenate([targets[fold.rest] for fold in held])
        mixed, own = 1.0 / (len(t) + 1), np.arange(len(t))

        def loss(log_temperature: float) -> float:
            q = tempered(p, math.exp(log_temperature), mixed)
            return float(-np.log(np.maximum(q[own, t], 1e-300)).mean())

        found = minimize_scalar(loss, bounds=(-2.0, 3.0), method="bounded")
        if loss(float(found.x)) < loss(0.0):
            self.temperature_, self._mixed = math.exp(float(found.x)), mixed


class TabularRegressor(RegressorMixin, BaseTabular):
    """A net for tables with tuned defaults, for numbers.

    metric: "rmse" (default), "mae" or "r2". clamp: bool (default True). Predictions stay within the targets
        of the fit.
    All other parameters are those of TabularClassifier, but for calibrate and class_weight. y is (n,) or
    (n, k); the nets are trained on targets of mean 0 and standard deviation 1.
    Sources: as for TabularClassifier.
    """

    _task = "regression"

    def __init__(
        self,
        preset: str = "full",
        *,
        n_cv: int = 1,
        n_ens: int = 1,
        metric: str = "rmse",
        epochs: int | None = None,
        batch_size: Any = "auto",
        validation_fraction: float = 0.2,
        time_limit: float | None = None,
        clamp: bool = True,
        categorical_features: Any = None,
        recipe_params: dict[str, Any] | None = None,
        callbacks: Any = None,
        random_state: Any = None,
        backend: str = "auto",
        n_threads: int | None = None,
        verbose: int = 0,
    ) -> None:
        keep(self, locals())

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to rows X (n, columns) and targets y (n,) or (n, k); returns itself."""
        with unchanged_on_error(self):
            return self._fit_checked(X, y)

    def _fit_checked(self, X: Any, y: Any) -> Self:
        columns, names = self._read(X, reset=True)
        y = np.asarray(_target(y, len(columns[0]), numeric=True), np.float64)
        self.n_outputs_ = 1 if y.ndim == 1 else y.shape[1]
        self._flat = y.ndim == 1
        check_flag("clamp", self.clamp)
        self._bounds = y.reshape(len(y), -1).min(axis=0), y.reshape(len(y), -1).max(axis=0)
        return self._fit(y, columns, names)

    def predict(self, X: Any) -> Array:
        """Predictions (n,), or (n, k) of several targets, float64."""
        found = self._mean(X)
        if self.clamp:
            found = np.clip(found, *self._bounds)
        return found[:, 0] if self._flat else found

    def _decided(self) -> dict[str, Any]:
        return {"bounds": self._bounds if self.clamp else None, "flat": self._flat}

    @property
    def _width(self) -> int:
        return int(self.n_outputs_)

    def _class_weight(self) -> Any:
        return None

    def _groups(self, y: Array, n_cv: int) -> Array | None:
        return None

    def _encoded(self, y: Array) -> Array:
        return y.reshape(len(y), -1)

    def _scale(self, targets: Array) -> tuple[Array, Array]:
        deviation = targets.std(axis=0)
        return targets.mean(axis=0), np.where(deviation > 0, deviation, 1.0)

    def _scaled(self, targets: Array, fold: Fold) -> Array:
        scaled: Array = (targets - fold.shift) / fold.factor
        return scaled.astype(np.float32)

    def _metric(self) -> str:
        return str(check_choice("metric", self.metric, ("rmse", "mae", "r2")))

    def _finish(self, table: Table, targets: Array) -> None:
        """Nothing is left to do."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _target(y: Any, rows: int, *, numeric: bool = False) -> Array:
    """y as an array of as many rows as X."""
    if y is None:
        raise ValueError(
            "y is None; the estimator requires y to be passed, but the target y is None"
        )
    dtype = "numeric" if numeric else None
    found = check_array(y, ensure_2d=False, dtype=dtype, input_name="y")
    if found.dtype == object and not numeric:
        found = np.asarray(found.tolist())
    if found.ndim == 2 and found.shape[1] == 1:
        found = column_or_1d(found, warn=True)
    if len(found) != rows:
        raise ValueError(
            f"X and y have inconsistent numbers of samples: {rows} rows and {len(found)} targets"
        )
    return np.asarray(found)
