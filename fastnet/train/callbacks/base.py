"""Callback: the hooks of a fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from fastnet.configured import Configured
from fastnet.errors import HyperparameterError, UsageError, check_kind, shown
from fastnet.parameter import check_names
from fastnet.schedules import Schedule

Hook = Callable[..., None]


class Callback(Configured, base=True):
    """Base of the callbacks: a subclass overrides the hooks that it needs; all others do nothing.

    During a fit `self.trainer` is the trainer. A hook may read everything, predict, evaluate, assign
    hyper-parameters (`self.trainer.optimizer.lr = …` acts from the next step on) and end the fit after
    this epoch (`self.trainer.stop_training = True`). Until the fit ends it holds the model: editing,
    loading or training it raises UsageError. An error in a hook ends the fit, and model and trainer stay
    as they are then. Epochs and minibatches count from 1. A hook that nobody overrides costs nothing; one
    of minibatches makes each step a native call of its own. A constructor with arguments passes them to
    `super().__init__(path=path)`, which keeps them as attributes for `config()` and the repr.
    """

    trainer: Any = None
    resumed: bool = False  # whether the fit goes on with one that a file has kept
    writes_files: ClassVar[bool] = False  # so that no file of a trainer may make it
    saves_trainer: ClassVar[bool] = (
        False  # whether it has a `save`, called when all have seen an epoch
    )

    def __init__(self, **arguments: Any) -> None:
        for name, value in arguments.items():
            setattr(self, name, value)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        hooks = [name for name in vars(Callback) if name.startswith("on_")]
        for name in vars(cls):
            if name.startswith("on_") and name not in hooks:
                raise UsageError(
                    f"{cls.__name__}.{name} is no hook; the hooks are {', '.join(hooks)}"
                )

    def check(self, names: Iterable[str]) -> None:
        """Called before anything changes, with the names that the fit will log; may raise."""

    def on_train_begin(self) -> None:
        """Called when a fit begins; where it goes on with another, `load_state_dict` follows."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Called before each epoch with its number."""

    def on_train_batch_begin(self, batch: int) -> None:
        """Called before each step with the number of its minibatch in the epoch."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Called after each step with the number of its minibatch; logs: its "loss"."""

    def on_test_begin(self) -> None:
        """Called before the validation data are evaluated."""

    def on_test_end(self, logs: dict[str, Any]) -> None:
        """Called with the scores of the validation data, named as in the history."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Called after each epoch with its number and a copy of its record in the history."""

    def on_train_end(self) -> None:
        """Called when a fit ends, also after Ctrl-C or an error."""

    def epochs_ahead(self) -> int:
        """How many epochs may be trained before `on_epoch_end` is called for each of them; 0 here.

        For a callback that looks at records alone and acts after the last of so many epochs at the
        earliest. Then one native call trains them all. 0: `on_epoch_end` comes right after each epoch. A
        subclass with an `on_epoch_end` of its own has to say it anew.
        """
        return 0

    def save(self, save: Callable[[Path], None]) -> None:
        """Called where `saves_trainer`, when all have seen an epoch; `save` saves the trainer."""

    def state_dict(self) -> dict[str, Any]:
        """What the callback has counted and kept, by name; nothing here."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state_dict` of a callback with equal arguments, or raise StateDictError."""
        check_names("state_dict", state, ())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "trainer"}

    def learning_rate(self) -> float:
        """The optimizer's rate at the next step."""
        optimizer, model = self.trainer.optimizer, self.trainer.model
        rate = optimizer.lr
        return float(
            rate(model.optimizer_state(optimizer).steps) if isinstance(rate, Schedule) else rate
        )


def hooks(callbacks: Iterable[Callback], name: str) -> list[Hook]:
    """The hooks of a name that somebody has overridden."""
    own = getattr(Callback, name)
    return [getattr(one, name) for one in callbacks if getattr(type(one), name) is not own]


def is_patient(callback: Callback) -> bool:
    """Whether epochs may pass before a callback hears of them, and it has no hook within an epoch."""
    owners = {}
    for name in ("on_epoch_end", "epochs_ahead"):
        owners[name] = next(cls for cls in type(callback).__mro__ if name in vars(cls))
    within = any(hooks([callback], name) for name in _WITHIN) or callback.saves_trainer
    known = issubclass(owners["epochs_ahead"], owners["on_epoch_end"])
    return known and not within and callback.epochs_ahead() > 0


_WITHIN = (
    *("on_epoch_begin", "on_train_batch_begin", "on_train_batch_end"),
    *("on_test_begin", "on_test_end"),
)


def check_callbacks(callbacks: Any, names: list[str] | None) -> list[Callback]:
    """The callbacks of a fit that records these names (None: not known), or HyperparameterError."""
    try:
        found = list(callbacks)
    except TypeError:
        raise HyperparameterError(
            f"callbacks is {shown(callbacks)}; expected a list of callbacks, such as [EarlyStopping()]"
        ) from None
    for i, callback in enumerate(found):
        check_kind(f"callbacks[{i}]", callback, Callback)
        if names is not None:
            callback.check(names)
    return found
