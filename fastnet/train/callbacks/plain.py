"""Callbacks that neither watch a score nor write files."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastnet.errors import (
    HyperparameterError,
    StateDictError,
    check_int,
    check_real,
    shown,
)
from fastnet.parameter import check_array, check_names
from fastnet.train.callbacks.base import Callback


class LearningRateScheduler(Callback):
    """lr ← schedule(epoch) or schedule(epoch, lr) before each epoch, as in Keras.

    schedule: a function of the epoch, which counts from 0 here as in Keras, and if it takes a second
        argument of the present rate; it returns the rate, a number ≥ 0.

    Schedules by steps, `Adam(lr=fn.schedules.CosineAnnealingLR(...))`, need no callback, cost nothing, and
    are kept in files, which keep no function.
    """

    schedule: Callable[..., Any]

    def __init__(self, schedule: Callable[..., Any]) -> None:
        if not callable(schedule):
            raise HyperparameterError(
                f"schedule is {shown(schedule)}; expected a function (epoch, lr) → lr"
            )
        super().__init__(schedule=schedule)
        try:
            takes = inspect.signature(schedule).parameters.values()
        except (TypeError, ValueError):  # one of C, which does not tell
            takes = ()  # type: ignore[assignment]
        by_place = [p for p in takes if p.kind <= p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
        self._takes_rate = len(by_place) > 1

    def on_epoch_begin(self, epoch: int) -> None:
        """Set the rate."""
        given = (epoch - 1, self.learning_rate()) if self._takes_rate else (epoch - 1,)
        rate = self.schedule(*given)
        self.trainer.optimizer.lr = check_real("the rate that schedule returned", rate, low=0.0)


class Timer(Callback):
    """Measures a fit, and ends it after the first epoch that ends later than a limit.

    limit: number > 0, in seconds, or None (default: no limit).

    `seconds` is the time since the fit began, up to the end of the last epoch; of a fit that went on from a
    file, together with the time before. `stop_reason` of the trainer is then "Timer".
    """

    limit: float | None
    seconds: float

    def __init__(self, limit: float | None = None) -> None:
        known = None if limit is None else check_real("limit", limit, low=0.0, open_low=True)
        super().__init__(limit=known)
        self.seconds = self._before = 0.0
        self._begun = time.perf_counter()

    def on_train_begin(self) -> None:
        """Start the clock."""
        self.seconds = self._before = 0.0
        self._begun = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Read the clock."""
        self.seconds = self._before + time.perf_counter() - self._begun
        if self.limit is not None and self.seconds > self.limit:
            self.trainer.stop_training = True

    def state_dict(self) -> dict[str, Any]:
        """The seconds so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state_dict` of a callback with equal arguments, or raise StateDictError."""
        check_names("state_dict", state, ["seconds"])
        self.seconds = self._before = float(check_array("seconds", state["seconds"], ()))
        self._begun = time.perf_counter()


class Snapshots(Callback):
    """Keeps copies of the model from the ends of some epochs, for an ensemble of one training.

    every: integer ≥ 1. The epochs of a cycle: the model is copied at the end of each, where a learning rate
        with warm restarts is lowest (`CosineAnnealingWarmRestarts(lr, T_0=every * steps an epoch)`).
    keep: integer ≥ 1, or None (default: all). The number of copies, the last ones.

    `models` are the copies, in evaluation mode: `fn.Ensemble(snapshots.models, "probabilities")`. Each fit
    starts anew.
    Sources: G. Huang et al., "Snapshot ensembles: train 1, get M for free", ICLR 2017; I. Loshchilov,
    F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.
    """

    every: int
    keep: int | None
    models: list[Any]

    def __init__(self, every: int, keep: int | None = None) -> None:
        most = None if keep is None else check_int("keep", keep, low=1)
        super().__init__(every=check_int("every", every, low=1), keep=most)
        self.models = []

    def on_train_begin(self) -> None:
        """Forget the copies of an earlier fit."""
        self.models = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Copy the model at the end of a cycle."""
        if epoch % self.every == 0:
            self.models.append(copy.deepcopy(self.trainer.model).eval())
            if self.keep is not None:
                del self.models[: -self.keep]

    def state_dict(self) -> dict[str, Any]:
        """The values of the copies: a list of the models' state dicts."""
        return {"models": [model.state_dict() for model in self.models]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state_dict` of a callback with equal arguments, or raise StateDictError."""
        check_names("state_dict", state, ["models"])
        if not isinstance(state["models"], Iterable):
            raise StateDictError(f"models is {shown(state['models'])}; expected a list")
        found = []
        for values in state["models"]:
            found.append(copy.deepcopy(self.trainer.model).eval())
            found[-1].load_state_dict(values)
        self.models = found
