"""iRprop⁻: a step size for each parameter, by the signs of successive gradients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from fastnet.errors import HyperparameterError
from fastnet.optim.rprop import rprop
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


def prepare(objective: Objective, settings: Settings) -> None:
    """Refuse a least step above the greatest."""
    least, most = (settings.options[name] for name in ("least", "most"))
    if least > most:
        raise HyperparameterError(
            f"options['least'] is {least:g} and options['most'] is {most:g}; expected a least step that is "
            "not above the greatest"
        )


def minimize(objective: Objective, settings: Settings, note: Note) -> Any:
    """The rule of `Rprop`, in float64; a trial whose loss is not finite shrinks all steps."""
    o = settings.options
    numbers = SimpleNamespace(
        lr=o["step"],
        weight_decay=0.0,  # the objective's gradient has it
        shrink=1.0,
        eta_minus=o["eta_minus"],
        eta_plus=o["eta_plus"],
        least=o["least"],
        most=o["most"],
    )
    last, size = np.zeros((2, *objective.accepted.x.shape))
    for _ in range(settings.max_iter):
        here = objective.accepted
        if converged(objective, settings):
            break
        while True:
            x, kept, moved = rprop.update.function(here.x, last, size, here.gradient, numbers)
            if np.isfinite(objective.at(x).value):
                break
            if objective.same(x, here.x):
                return result_of(objective, False, "no finite loss near the last iterate")
            last, size = np.zeros_like(last), moved * o["eta_minus"]
        last, size = kept, moved
        note(x)
    return ended(objective, settings)


METHOD = Method(
    "irprop-",
    minimize,
    {
        "step": above_0(1e-2),
        "eta_minus": inside(0.5),
        "eta_plus": real(1.2, low=1.0, open_low=True),
        "least": above_0(1e-15),
        "most": above_0(50.0),
    },
    prepare,
)
