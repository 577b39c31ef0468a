"""The parameters of the estimators, checked as a fit begins."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from fastnet import layers
from fastnet.errors import (
    HyperparameterError,
    check_choice,
    check_flag,
    check_int,
    check_kind,
    check_real,
    shown,
)
from fastnet.layers import Identity, Layer, ReLU, Sigmoid, Tanh
from fastnet.optim import Optimizer
from fastnet.sklearn.protocol import check_callbacks
from fastnet.train.callbacks import Callback

# scikit-learn's names of activations, and fastnet's layers.
ACTIVATIONS = {"identity": Identity, "logistic": Sigmoid, "tanh": Tanh, "relu": ReLU}
SOLVERS = ("lbfgs", "sgd", "adam")
UNIT: dict[str, Any] = {"low": 0.0, "high": 1.0}


def hidden_widths(given: Any) -> tuple[int, ...]:
    """The widths of the hidden layers, from an integer or several."""
    several = given if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    found = tuple(several)
    if not all(isinstance(n, Integral) and not isinstance(n, bool) and int(n) > 0 for n in found):
        raise HyperparameterError(
            f"hidden_layer_sizes must be > 0, got {shown(given)}; expected an integer, or a sequence of "
            "integers, each at least 1"
        )
    return tuple(int(n) for n in found)


def activation_layer(given: Any) -> Layer:
    """A new layer for an activation: scikit-learn's name, or the name, class or object of a layer."""
    if isinstance(given, str) and given in ACTIVATIONS:
        return ACTIVATIONS[given]()
    kind = given
    if isinstance(given, str):
        kind = getattr(layers, given, None)
    if isinstance(kind, Layer):
        return type(kind).from_config(kind.config())
    if not (isinstance(kind, type) and issubclass(kind, Layer)):
        raise HyperparameterError(
            f"activation is {shown(given)}; expected one of {', '.join(ACTIVATIONS)}, or the name, class "
            "or object of one of fastnet's layers, such as 'GELU'"
        )
    try:
        return kind()
    except TypeError as error:
        raise HyperparameterError(
            f"activation is {shown(given)}, which needs arguments ({error}); expected an object, such as "
            "fn.LeakyReLU(0.1)"
        ) from None


def number_of_epochs(name: str, given: Any) -> float:
    """An integer ≥ 1, or infinity."""
    if isinstance(given, Real) and not isinstance(given, Integral) and math.isinf(given):
        return math.inf
    return float(check_int(name, given, low=1))


@dataclass(frozen=True)
class Settings:
    """The parameters of an MLP, checked."""

    widths: tuple[int, ...]
    solver: str
    alpha: float
    batch_size: int | None  # None: 200 at most
    learning_rate: str
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    tol: float
    verbose: bool
    warm_start: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: float
    max_fun: int
    dropout: float
    batch_norm: bool
    optimizer: Optimizer | None
    callbacks: tuple[Callback, ...]

    @classmethod
    def of(cls, given: Any) -> Settings:
        """Those of an estimator, or HyperparameterError."""
        optimizer = given.optimizer
        if optimizer is not None:
            check_kind("optimizer", optimizer, Optimizer)
        callbacks = check_callbacks(given.callbacks)
        solver = check_choice("solver", given.solver, SOLVERS)
        if solver == "lbfgs" and (optimizer is not None or callbacks):
            name = "callbacks" if callbacks else "optimizer"
            raise HyperparameterError(
                f"{name} is {shown(getattr(given, name))} with solver='lbfgs'; expected solver='adam' or "
                "'sgd', which train in epochs"
            )
        size = given.batch_size
        positive: dict[str, Any] = {"low": 0.0, "open_low": True}
        below_1 = {**UNIT, "open_high": True}
        rate = ("constant", "invscaling", "adaptive")
        return cls(
            widths=hidden_widths(given.hidden_layer_sizes),
            solver=solver,
            alpha=check_real("alpha", given.alpha, low=0.0),
            batch_size=None if size == "auto" else check_int("batch_size", size, low=1),
            learning_rate=check_choice("learning_rate", given.learning_rate, rate),
            learning_rate_init=check_real(
                "learning_rate_init", given.learning_rate_init, **positive
            ),
            power_t=check_real("power_t", given.power_t, low=0.0),
            max_iter=check_int("max_iter", given.max_iter, low=1),
            shuffle=check_flag("shuffle", given.shuffle),
            tol=check_real("tol", given.tol, low=0.0),
            verbose=bool(given.verbose),
            warm_start=check_flag("warm_start", given.warm_start),
            momentum=check_real("momentum", given.momentum, **UNIT),
            nesterovs_momentum=check_flag("nesterovs_momentum", given.nesterovs_momentum),
            early_stopping=check_flag("early_stopping", given.early_stopping),
            validation_fraction=check_real(
                "validation_fraction", given.validation_fraction, **below_1
            ),
            beta_1=check_real("beta_1", given.beta_1, **below_1),
            beta_2=check_real("beta_2", given.beta_2, **below_1),
            epsilon=check_real("epsilon", given.epsilon, **positive),
            n_iter_no_change=number_of_epochs("n_iter_no_change", given.n_iter_no_change),
            max_fun=check_int("max_fun", given.max_fun, low=1),
            dropout=check_real("dropout", given.dropout, **below_1),
            batch_norm=check_flag("batch_norm", given.batch_norm),
            optimizer=optimizer,
            callbacks=tuple(callbacks),
        )
