"""Callbacks that watch a score: early stopping, rate reduction, the best epoch, the best files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from fastnet.errors import (
    HyperparameterError,
    check_choice,
    check_flag,
    check_int,
    check_real,
    shown,
)
from fastnet.losses.named_metrics import KINDS
from fastnet.op import Array
from fastnet.parameter import check_array, check_count, check_names, vector_state
from fastnet.schedules import Schedule
from fastnet.train.callbacks.base import Callback


def restore_values(model: Any, kept: Mapping[str, Array]) -> None:
    """Write a model's own earlier state dict back; the caller holds the model's lock."""
    views = {name: p.view() for name, p in model._named().items()}
    check_names("kept", kept, views)
    values = {n: check_array(f"kept[{n!r}]", kept[n], view.shape) for n, view in views.items()}
    for name, view in views.items():
        np.copyto(view, values[name], casting="unsafe")
    model.touch()


# Whether the better score is the lower or the higher one, for scores that every trainer may record.
_MODES = {"loss": "min", "accuracy": "max", **{name: k.better for name, k in KINDS.items()}}


class Monitor(Callback, base=True):
    """Watches one of the logs."""

    monitor: str
    mode: str
    best: float
    wait: int
    _counted: ClassVar[tuple[str, ...]]  # the attributes that a fit changes

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor, self.mode = monitor, check_choice("mode", mode, ("auto", "min", "max"))
        if self.mode == "auto":
            known = str(monitor).removeprefix("val_")
            if known not in _MODES:
                raise HyperparameterError(
                    f"mode is 'auto' with monitor={shown(monitor)}; expected mode='min' or mode='max' "
                    "for what is neither a loss nor a metric with a name"
                )
            self.mode = _MODES[known]
        self.best = math.inf if self.mode == "min" else -math.inf

    def state_dict(self) -> dict[str, Any]:
        """The best score and the counts, by name."""
        return {name: getattr(self, name) for name in self._counted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state_dict` of a callback with equal arguments, or raise StateDictError."""
        check_names("state_dict", state, self._counted)
        for name, value in {n: _checked(n, state[n]) for n in self._counted}.items():
            setattr(self, name, value)

    def check(self, names: Iterable[str]) -> None:
        """Raise HyperparameterError where the fit does not record the monitored score."""
        if self.monitor not in names:
            raise HyperparameterError(
                f"{type(self).__name__}: monitor is {self.monitor!r}; this fit records "
                f"{', '.join(names)} (val_… with validation_data)"
            )


def _checked(name: str, value: Any) -> Any:
    """The score or count, or None where the name may have no number yet; else StateDictError."""
    what = f"state_dict[{name!r}]"
    if name == "best":
        return float(check_array(what, value, ()))
    optional = name in ("best_epoch", "stopped_epoch", "trained_key")
    return None if value is None and optional else check_count(what, value)


class EarlyStopping(Monitor):
    """Ends the fit with epoch t = t* + max(patience, 1), where t* is the epoch with the best score so far.

    monitor: name of a log (default "val_loss").
    patience: integer ≥ 0 (default 0). The number of epochs without a better score that end the fit. As in
        Keras, 0 and 1 both end it with the first such epoch.
    min_delta: number ≥ 0 (default 0). A score counts as better only if it improves by more than this.
    mode: "min", "max" or "auto" (default): "min" for losses and errors, "max" for other metrics with names.
    restore_best_weights: bool (default False). True restores the parameters and buffers of the end of the
        best epoch, however the fit ends (Keras: only where it stops early). Where they are averages, the
        vectors from which the next training goes on are those of that epoch too. A training score such as
        "loss" is measured while the epoch changes the parameters; monitor a validation score to get back
        parameters that have this score.
    ties: "first" (default) or "last", by name alone. The best of epochs with equal scores; with "last" such
        an epoch counts as better. An accuracy on few rows is often equal, and later nets have learnt more.

    NaN is never better. Each fit starts anew and ignores a state loaded before it. After the fit, `best`
    is the best score, `best_epoch` its epoch, and `stopped_epoch` the epoch that ended the fit, else None.
    Source: L. Prechelt, "Early stopping - but when?", in: Neural networks: tricks of the trade, 1998.
    """

    patience: int
    min_delta: float
    restore_best_weights: bool
    ties: str
    best_epoch: int | None
    stopped_epoch: int | None
    _counted = ("best", "wait", "best_epoch", "stopped_epoch")

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 0,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best_weights: bool = False,
        *,
        ties: str = "first",
    ) -> None:
        super().__init__(monitor, mode)
        self.patience = check_int("patience", patience)
        self.ties = check_choice("ties", ties, ("first", "last"))
        self.min_delta = check_real("min_delta", min_delta, low=0.0)
        self.restore_best_weights = check_flag("restore_best_weights", restore_best_weights)
        self._start()

    def _start(self) -> None:
        self.best = math.inf if self.mode == "min" else -math.inf
        self.wait = 0
        self.best_epoch = self.stopped_epoch = None
        self._kept: dict[str, Array] = {}
        self._points: dict[str, Array] = {}

    def on_train_begin(self) -> None:
        """Start anew."""
        self._start()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Compare the score with the best, then keep the parameters or stop."""
        score, self.wait = logs[self.monitor], self.wait + 1
        if self._is_better(score):
            self.best, self.best_epoch, self.wait = score, epoch, 0
            if self.restore_best_weights:
                self._kept = self.trainer.model.state_dict()
                self._points = {n: part.copy() for n, part in self.trainer._points().items()}
        elif self.wait >= self.patience:
            self.stopped_epoch = epoch
            self.trainer.stop_training = True

    def _is_better(self, score: float) -> bool:
        gain = self.best - score if self.mode == "min" else score - self.best
        return gain > self.min_delta or (self.ties == "last" and score == self.best)

    def epochs_ahead(self) -> int:
        """Those before which the fit cannot end; 0 where it has to copy the parameters of the best one."""
        return 0 if self.restore_best_weights else max(1, self.patience - self.wait)

    def on_train_end(self) -> None:
        """Restore the best epoch."""
        if self._kept:
            restore_values(self.trainer.model, self._kept)
            for name, part in self.trainer._points().items():
                np.copyto(part, self._points[name])
            self._kept, self._points = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """The best score, the counts, and during a fit the values to restore: "kept/0.weight", ….

        "points/gap/0.weight", …: the vectors of an optimizer or average that belong to these values.
        """
        kept = vector_state("kept", self._kept) | vector_state("points", self._points)
        return {**super().state_dict(), **kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state_dict` of a callback with equal arguments, or raise StateDictError."""
        check_names("state_dict", state, self._counted, state)
        found: dict[str, dict[str, Array]] = {"kept": {}, "points": {}}
        names = [name for name in state if str(name).partition("/")[0] in found]
        for name in names:
            kind, _, inner = name.partition("/")
            given = state[name]
            found[kind][inner] = np.array(
                check_array(f"state_dict[{name!r}]", given, np.shape(given))
            )
        super().load_state_dict({n: v for n, v in state.items() if n not in names})
        self._kept, self._points = found["kept"], found["points"]


class KeepBest(EarlyStopping):
    """`fit(restore_best=True)`: restores the epoch with the best score and never stops the fit."""

    @classmethod
    def among(cls, callbacks: Iterable[Callback]) -> KeepBest:
        """One for the score that the first EarlyStopping of these monitors, else for val_loss."""
        asked = (cls(c.monitor, c.mode, c.ties) for c in callbacks if isinstance(c, EarlyStopping))
        return next(asked, cls())

    def __init__(self, monitor: str = "val_loss", mode: str = "auto", ties: str = "first") -> None:
        super().__init__(monitor, 2**62, mode=mode, restore_best_weights=True, ties=ties)

    def see(
        self, first: int, scores: Iterable[float], values: Callable[[int], dict[str, Array]]
    ) -> None:
        """`on_epoch_end` for several epochs, the first of which has this number.

        values: the model's state dict at the end of one of them, counted from 0.
        """
        best: int | None = None
        for i, score in enumerate(scores):
            self.wait += 1
            if self._is_better(score):
                self.best, self.best_epoch, self.wait, best = score, first + i, 0, i
        if best is not None:
            self._kept, self._points = values(best), {}

    def check(self, names: Iterable[str]) -> None:
        """Raise HyperparameterError where the fit does not record the score."""
        if self.monitor not in names:
            raise HyperparameterError("restore_best=True needs validation_data=(X, y)")


class ReduceLROnPlateau(Monitor):
    """lr ← max(lr·factor, min_lr) after more than `patience` epochs in a row without a better score.

    With b the best score so far, a score is better below b − threshold·|b| ("min", "rel") or
    b − threshold ("min", "abs"), or above b + threshold·|b| ("max", "rel") or b + threshold ("max",
    "abs"). PyTorch takes b·(1 ± threshold) for "rel", which is the same where b ≥ 0.

    monitor: name of a log (default "val_loss").
    factor: number in [0, 1) (default 0.1); 0.5 halves the rate.
    patience: integer ≥ 0 (default 10). The number of epochs without a better score that are tolerated.
    threshold: number ≥ 0 (default 1e-4). How much better a score must be, see above.
    threshold_mode: "rel" (default) or "abs".
    cooldown: integer ≥ 0 (default 0). The number of epochs after a reduction that are not counted.
    min_lr: number ≥ 0 (default 0). The lowest rate.
    eps: number ≥ 0 (default 1e-8). A reduction by eps or less is left out.
    mode: "min", "max" or "auto" (default): "min" for losses and errors, "max" for other metrics with names.

    Arguments and defaults are PyTorch's. The callback reduces the rates of parameter groups together with
    the optimizer's own. It multiplies a schedule by the one number that brings its next rate to the value
    above. NaN is never better. A further fit of the same trainer continues with best score and counts,
    also after both were pickled; with another trainer, or after `trainer.reset()`, the callback starts
    anew. `trainer.reset()` leaves the rate as it is.
    Source: PyTorch's scheduler of this name.
    """

    factor: float
    patience: int
    threshold: float
    threshold_mode: str
    cooldown: int
    min_lr: float
    eps: float
    cooling: int
    trained_key: int | None  # key of the trainer of the last fit
    trained_epoch: int
    _counted = ("best", "wait", "cooling", "trained_key", "trained_epoch")

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
        mode: str = "auto",
    ) -> None:
        super().__init__(monitor, mode)
        self.factor = check_real("factor", factor, low=0.0, high=1.0, open_high=True)
        self.patience = check_int("patience", patience)
        self.threshold = check_real("threshold", threshold, low=0.0)
        self.threshold_mode = check_choice("threshold_mode", threshold_mode, ("rel", "abs"))
        self.cooldown = check_int("cooldown", cooldown)
        self.min_lr = check_real("min_lr", min_lr, low=0.0)
        self.eps = check_real("eps", eps, low=0.0)
        self.trained_key, self.trained_epoch = None, 0
        self._start()

    def _start(self) -> None:
        self.best = math.inf if self.mode == "min" else -math.inf
        self.wait = self.cooling = 0

    def on_train_begin(self) -> None:
        """Continue with a trainer that this callback knows; with another, start anew."""
        if self.trained_key != self.trainer.key or self.trained_epoch > self.trainer.epoch:
            self._start()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Compare the score with the best, count the epoch, reduce the rate."""
        self.trained_key, self.trained_epoch = self.trainer.key, epoch
        score, self.wait = logs[self.monitor], self.wait + 1
        if self._is_better(score):
            self.best, self.wait = score, 0
        if self.cooling:
            self.cooling, self.wait = self.cooling - 1, 0
        if self.wait > self.patience:
            self.cooling, self.wait = self.cooldown, 0
            self._reduce()

    def epochs_ahead(self) -> int:
        """Those before which the rate cannot be reduced."""
        tolerated = self.cooling + self.patience if self.cooling else self.patience - self.wait
        return max(1, tolerated + 1)

    def _is_better(self, score: float) -> bool:
        gain = score - self.best if self.mode == "max" else self.best - score
        if math.isinf(self.best):  # no score yet, or an infinite one
            return gain > 0
        return gain > self.threshold * (abs(self.best) if self.threshold_mode == "rel" else 1.0)

    def _reduce(self) -> None:
        optimizer = self.trainer.optimizer
        step = self.trainer.model.optimizer_state(optimizer).steps
        groups = [self._reduced(group, step) for group in optimizer.groups]
        optimizer.lr = self._reduced({"lr": optimizer.lr}, step)["lr"]
        optimizer.groups = groups

    def _reduced(self, group: Mapping[str, Any], step: int) -> dict[str, Any]:
        """The group with its own rate reduced, if it has one."""
        if "lr" not in group:
            return dict(group)
        rate = group["lr"]
        scheduled = isinstance(rate, Schedule)
        old = rate(step) if scheduled else rate
        new = max(old * self.factor, self.min_lr)
        if old - new > self.eps:
            part = self.factor if new == old * self.factor else new / old
            rate = part * rate if scheduled else new
        return {**group, "lr": rate}
