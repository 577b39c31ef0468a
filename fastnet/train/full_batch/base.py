"""What a full-batch method is: a name, its options with their checks, and a loop over an objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np

from fastnet.errors import (
    HyperparameterError,
    check_choice,
    check_flag,
    check_int,
    check_real,
)
from fastnet.op import Array
from fastnet.train.full_batch.objective import Objective, Point
from fastnet.train.full_batch.settings import Settings

FLAT = "no component of the gradient is larger than tol"
STUCK = "no step along the direction lowers the loss"
SPENT = "max_iter iterations are done"


@dataclass(frozen=True, eq=False, repr=False)
class Option:
    """A method's option: its default, and a function (name, value) that checks a value and returns it.

    None as the default leaves the choice to SciPy.
    """

    default: Any
    check: Callable[[str, Any], Any]


def real(default: float | None, **bounds: Any) -> Option:
    """A real number within bounds (see check_real)."""
    return Option(default, partial(check_real, **bounds))


def inside(default: float | None) -> Option:
    """A number in (0, 1)."""
    return real(default, low=0.0, high=1.0, open_low=True, open_high=True)


def above_0(default: float | None) -> Option:
    """A number > 0."""
    return real(default, low=0.0, open_low=True)


def whole(default: int | None) -> Option:
    """An integer ≥ 1."""
    return Option(default, partial(check_int, low=1))


def flag(default: bool | None) -> Option:
    """True or False."""
    return Option(default, check_flag)


def choice(*choices: str) -> Option:
    """One of several words, of which the first is the default."""
    return Option(choices[0], partial(check_choice, choices=choices))


class Note(Protocol):
    """Accepts an iterate and records it, with numbers of the method's own."""

    def __call__(self, x: Array, **numbers: float) -> None:
        """Make x the accepted iterate."""


def _nothing(objective: Objective, settings: Settings) -> None:
    """No further condition."""


@dataclass(frozen=True, eq=False, repr=False)
class Method:
    """A method: its name, its options, and its loop.

    minimize: a function (objective, settings, note) that hands accepted iterates to `note`, at most
        `max_iter`, and returns the result. It begins at `objective.accepted`, which is recorded already.
    prepare: a function (objective, settings) that refuses, before anything runs, what the method cannot do.
    """

    name: str
    minimize: Callable[[Objective, Settings, Note], Any]
    options: Mapping[str, Option] = field(default_factory=dict)
    prepare: Callable[[Objective, Settings], None] = _nothing

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options, defaults included; raises where one is unknown or invalid."""
        if unknown := [name for name in given if name not in self.options]:
            known = ", ".join(self.options) or "none"
            raise HyperparameterError(
                f"options has {unknown[0]!r}; method {self.name!r} has {known}"
            )
        found = {}
        for name, option in self.options.items():
            value = given.get(name, option.default)
            if name in given and not (value is None and option.default is None):
                value = option.check(f"options[{name!r}]", value)
            found[name] = value
        return found


def converged(objective: Objective, settings: Settings) -> bool:
    """Whether no component of the gradient at the accepted iterate is larger than tol."""
    return objective.accepted.grad_norm <= settings.tol


def result_of(objective: Objective, success: bool, message: str) -> SimpleNamespace:
    """The result of a method that is not SciPy's."""
    point = objective.accepted
    return SimpleNamespace(
        x=point.x, fun=point.value, jac=point.gradient, success=success, message=message
    )


def ended(objective: Objective, settings: Settings) -> SimpleNamespace:
    """The result after the last iteration."""
    flat = converged(objective, settings)
    return result_of(objective, flat, FLAT if flat else SPENT)


def lowers(objective: Objective, point: Point, predicted: float) -> bool:
    """Whether a trial lowers the loss by at least a ten-thousandth of what a model of it predicted.

    Where the prediction is below the rounding of the loss, the gradient tells instead: it must become
    smaller.
    """
    here = objective.accepted
    if not predicted > 0:
        return False
    if here.value - point.value >= 1e-4 * predicted:
        return True
    rounding = 16 * float(np.finfo(objective.storage.dtype).eps) * abs(here.value)
    near = predicted <= rounding and point.value <= here.value + rounding
    return bool(near and point.grad_norm < here.grad_norm)
