"""Nonlinear conjugate gradients: SciPy's for Polak–Ribière⁺, and a loop for other formulas of beta."""

from __future__ import annotations

import warnings
from typing import Any

from fastnet.op import Array
from fastnet.train.full_batch import of_scipy
from fastnet.train.full_batch.base import (
    STUCK,
    Method,
    Note,
    choice,
    converged,
    ended,
    result_of,
)
from fastnet.train.full_batch.objective import Objective
from fastnet.train.full_batch.settings import Settings

OF_SCIPY = "polak-ribiere+"


def fletcher_reeves(after: Array, before: Array, p: Array) -> float:
    """‖g₊‖²/‖g‖²."""
    return float(after @ after) / float(before @ before)


def hestenes_stiefel(after: Array, before: Array, p: Array) -> float:
    """g₊·(g₊ − g)/p·(g₊ − g); Wolfe's condition makes the divisor positive."""
    change = after - before
    return float(after @ change) / float(p @ change)


BETAS = {"fletcher-reeves": fletcher_reeves, "hestenes-stiefel": hestenes_stiefel}


def minimize(objective: Objective, settings: Settings, note: Note) -> Any:
    """Minimise along p ← −g + beta·p by steps that meet the strong Wolfe conditions.

    A direction that does not lead down, or along which the search fails, is replaced by −g.
    """
    name = settings.options["beta"]
    if name == OF_SCIPY:
        return of_scipy.minimize(objective, settings, note, leave_out=("beta",))
    beta, here = BETAS[name], objective.accepted
    p, last = -here.gradient, None
    for _ in range(settings.max_iter):
        if converged(objective, settings):
            break
        here = objective.accepted
        x = _search(objective, p, last, settings)
        if x is None and (p != -here.gradient).any():
            p = -here.gradient
            x = _search(objective, p, None, settings)
        if x is None:
            return result_of(objective, False, STUCK)
        last = here.value
        note(x)
        after = objective.accepted.gradient
        p = beta(after, here.gradient, p) * p - after
        if not p @ after < 0:
            p = -after
    return ended(objective, settings)


def _search(objective: Objective, p: Array, last: float | None, settings: Settings) -> Array | None:
    """The point along p that meets the conditions; None where SciPy's search finds none.

    last: the value before the accepted one, from which the first step follows.
    """
    here, optimize = objective.accepted, of_scipy.scipy_optimize("CG")
    before = here.value + float(abs(here.gradient @ p)) / 2 if last is None else last
    c1, c2 = (settings.options[name] for name in ("c1", "c2"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a search that finds none
        step, *_, slope = optimize.line_search(
            lambda x: objective.value_and_grad(x)[0],
            lambda x: objective.value_and_grad(x)[1],
            here.x,
            p,
            here.gradient,
            here.value,
            before,
            c1=1e-4 if c1 is None else c1,
            c2=0.4 if c2 is None else c2,
            maxiter=30,
        )
    return None if step is None or slope is None else here.x + step * p


METHOD = Method(
    "CG",
    minimize,
    {
        "beta": choice(OF_SCIPY, *BETAS),
        **of_scipy.WOLFE,
    },
    of_scipy.prepare,
)
