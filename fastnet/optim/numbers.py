"""Hyper-parameters that are numbers or schedules: checks, and values at steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastnet.errors import HyperparameterError, check_real, interval_text, shown
from fastnet.op import Array
from fastnet.schedules.base import Schedule

Number = float | Schedule  # a hyper-parameter: one number for all steps, or one for each step
Intervals = tuple[dict[str, Any], ...]  # of numbers that belong together
BETA = {"low": 0.0, "high": 1.0, "open_high": True}


def is_on(value: Number) -> bool:
    """Whether a number such as momentum has an effect: it is positive, or a schedule."""
    return isinstance(value, Schedule) or value > 0.0


def holds_schedule(values: Iterable[Any]) -> bool:
    """Whether a value, or an item of a tuple among them, is a schedule."""
    return any(
        holds_schedule(v) if isinstance(v, tuple) else isinstance(v, Schedule) for v in values
    )


def check_number(name: str, value: Any, interval: dict[str, Any]) -> Number:
    """Check a number, or the first one of a schedule; `evaluate` checks the others when they are due."""
    if isinstance(value, Schedule):
        evaluate(name, value, np.zeros(1, np.int64), interval)
        return value
    return check_real(name, value, **interval)


def evaluate(name: str, value: Any, t: Array, interval: dict[str, Any]) -> Any:
    """The number itself, or a schedule's numbers at steps t: float64 (n,), checked."""
    if not isinstance(value, Schedule):
        return value
    column = value(t)
    for place in (int(column.argmin()), int(column.argmax())):  # a NaN is both
        check_real(f"{name} at step {t[place]}", float(column[place]), **interval)
    return column


def check_numbers(name: str, value: Any, intervals: Intervals) -> tuple[Number, ...]:
    """Check several numbers or schedules, each in its interval."""
    try:
        given = list(zip(value, intervals, strict=True))
    except (TypeError, ValueError):
        texts = [interval_text(**interval) for interval in intervals]
        wanted = f"a number in {' and one in '.join(texts)}"
        if len(set(texts)) == 1:
            wanted = f"{('two', 'three')[len(texts) - 2]} numbers in {texts[0]}"
        raise HyperparameterError(f"{name} is {shown(value)}; expected {wanted}") from None
    return tuple(
        check_number(f"{name}[{i}]", one, interval) for i, (one, interval) in enumerate(given)
    )
