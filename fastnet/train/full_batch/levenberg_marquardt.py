"""Levenberg–Marquardt for sums of squares, and Bayesian regularisation by it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.op import Array
from fastnet.train.full_batch.base import (
    STUCK,
    Method,
    Note,
    above_0,
    choice,
    converged,
    ended,
    flag,
    inside,
    lowers,
    real,
    result_of,
)
from fastnet.train.full_batch.bayes import Evidence
from fastnet.train.full_batch.objective import Objective
from fastnet.train.full_batch.residuals import Residuals
from fastnet.train.full_batch.settings import Settings

LEAST_DAMPING = 1e-20


def prepare(objective: Objective, settings: Settings) -> None:
    """Refuse a loss that is no sum of squares, layers that join rows, and too many parameters."""
    Residuals(objective)


def minimize(objective: Objective, settings: Settings, note: Note) -> Any:
    """x ← x − (A + μ·D)⁻¹·g, A = 2·Σ f·JᵀJ + weight decay, J the Jacobian of outputs by rows.

    D is the diagonal of A at its largest so far (Marquardt, Moré) or I (Levenberg). A step that does not
    lower the loss is tried again with a larger μ. After one that does, μ shrinks where the loss fell by
    more than three quarters of what the model says, and grows where by less than a quarter.
    """
    o, residuals = settings.options, Residuals(objective)
    mu, scale = o["mu"], np.zeros_like(objective.accepted.x)
    evidence = Evidence(objective, residuals, settings) if o["bayesian"] else None
    for _ in range(settings.max_iter):
        if evidence is None and converged(objective, settings):
            break
        squares = residuals.gram(objective.accepted.x)
        if evidence is not None:
            evidence.estimate(squares)
            if evidence.settled and converged(objective, settings):
                break
        matrix = squares if objective.decay is None else squares + np.diag(objective.decay)
        here = objective.accepted
        if o["damping"] == "marquardt":
            scale = np.maximum(scale, matrix.diagonal())
            floor = float(scale.max()) * float(np.finfo(objective.storage.dtype).eps)
            scale = np.maximum(scale, floor or 1.0)  # of parameters that change no output
        else:
            scale = np.ones_like(here.x)
        while True:
            step = _solve(matrix, mu * scale, here.gradient)
            if step is not None:
                x = here.x + step
                predicted = -float(here.gradient @ step) - 0.5 * float(step @ matrix @ step)
                point = objective.at(x)
                if lowers(objective, point, predicted):
                    break
                if objective.same(x, here.x):
                    return result_of(objective, False, STUCK)
            mu *= o["mu_increase"]
            if mu > o["mu_max"]:
                return result_of(objective, False, f"mu exceeds {o['mu_max']:g}: {STUCK}")
        gain = (here.value - point.value) / predicted
        note(x, mu=mu, **({} if evidence is None else evidence.numbers))
        if gain > 0.75:
            mu = max(mu * o["mu_decrease"], LEAST_DAMPING)
        elif gain < 0.25:
            mu *= o["mu_increase"]
    return ended(objective, settings)


def _solve(matrix: Array, damping: Array, gradient: Array) -> Array | None:
    """−(A + diag(damping))⁻¹·g; None where that is singular in float64."""
    try:
        step: Array = -np.linalg.solve(matrix + np.diag(damping), gradient)
    except np.linalg.LinAlgError:
        return None
    return step if np.isfinite(step).all() else None


METHOD = Method(
    "levenberg-marquardt",
    minimize,
    {
        "mu": above_0(1e-3),
        "mu_increase": real(3.0, low=1.0, open_low=True),
        "mu_decrease": inside(0.2),
        "mu_max": above_0(1e10),
        "damping": choice("marquardt", "levenberg"),
        "bayesian": flag(False),
    },
    prepare,
)
