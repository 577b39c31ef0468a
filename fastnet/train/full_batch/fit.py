"""A full-batch fit: checks its options, runs a method, and records its iterates."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fastnet.errors import (
    HyperparameterError,
    check_choice,
    check_flag,
    check_int,
    check_kind,
    check_real,
    shown,
)
from fastnet.op import Array
from fastnet.train.full_batch.base import result_of
from fastnet.train.full_batch.history import FullBatchHistory
from fastnet.train.full_batch.methods import METHODS, TABLE
from fastnet.train.full_batch.objective import Objective
from fastnet.train.full_batch.settings import Settings


def checked_settings(given: Mapping[str, Any]) -> Settings:
    """From the arguments of `fit_full_batch`; raises where one of them is invalid."""
    method = TABLE[check_choice("method", given["method"], METHODS)]
    options = {} if given["options"] is None else given["options"]
    check_kind("options", options, Mapping)
    size, callback = given["batch_size"], given["callback"]
    if callback is not None and not callable(callback):
        raise HyperparameterError(f"callback is {shown(callback)}; expected a function (record)")
    return Settings(
        method,
        check_int("max_iter", given["max_iter"], low=1),
        check_real("tol", given["tol"], low=0.0),
        check_real("weight_decay", given["weight_decay"], low=0.0),
        check_flag("decay_biases_and_norms", given["decay_biases_and_norms"]),
        None if size is None else check_int("batch_size", size, low=1),
        check_flag("respect_modes", given["respect_modes"]),
        method.checked(options),
        callback,
    )


def fit(objective: Objective, settings: Settings) -> FullBatchHistory:
    """Minimise; the caller holds the training lock, and the model ends with the last accepted iterate."""
    settings.method.prepare(objective, settings)
    begun, history = time.perf_counter(), FullBatchHistory()

    def note(x: Array, **numbers: float) -> None:
        point = objective.accept(x)
        record = {
            "iteration": len(history),
            "loss": point.value,
            "grad_norm": point.grad_norm,
            "evaluations": objective.evaluations,
            "seconds": time.perf_counter() - begun,
            **numbers,
        }
        history.records.append(record)
        if settings.callback is not None:
            settings.callback(dict(record))

    try:
        note(objective.start().x)
        history.result = settings.method.minimize(objective, settings, note)
    except StopIteration:
        history.result = result_of(objective, False, "stopped by the callback")
    finally:
        objective.close()
    history.result.nit = len(history) - 1
    history.result.nfev = objective.evaluations
    return history
