"""Gradient descent with a step that Armijo's condition shortens."""

from __future__ import annotations

from typing import Any

from fastnet.train.full_batch.base import (
    Method,
    Note,
    above_0,
    converged,
    ended,
    inside,
    real,
    result_of,
)
from fastnet.train.full_batch.objective import Objective
from fastnet.train.full_batch.settings import Settings


def minimize(objective: Objective, settings: Settings, note: Note) -> Any:
    """x ← x − α·g with the first α of step, step·shrink, … that lowers the loss by c1·α·‖g‖²."""
    step, shrink, grow, c1 = (settings.options[name] for name in METHOD.options)
    for _ in range(settings.max_iter):
        here = objective.accepted
        if converged(objective, settings):
            break
        slope = float(here.gradient @ here.gradient)
        while True:
            x = here.x - step * here.gradient
            if objective.at(x).value <= here.value - c1 * step * slope:
                break
            step *= shrink
            if objective.same(x, here.x):
                return result_of(objective, False, "no step along the gradient lowers the loss")
        note(x)
        step *= grow
    return ended(objective, settings)


METHOD = Method(
    "gradient-descent",
    minimize,
    {
        "step": above_0(1.0),
        "shrink": inside(0.5),
        "grow": real(2.0, low=1.0),
        "c1": inside(1e-4),
    },
)
