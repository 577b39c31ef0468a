"""Saddle-free Newton: the Hessian with the absolute values of its eigenvalues."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.op import Array
from fastnet.train.full_batch.base import (
    FLAT,
    STUCK,
    Method,
    Note,
    above_0,
    converged,
    ended,
    lowers,
    result_of,
    whole,
)
from fastnet.train.full_batch.dense import hessian
from fastnet.train.full_batch.krylov import lanczos
from fastnet.train.full_batch.objective import Objective
from fastnet.train.full_batch.settings import Settings

EXACT = 500  # parameters up to which the whole Hessian is computed by default
DIMENSION = 50  # of the subspace for more of them
LEAST, MOST = 1e-12, 1e12  # damping
FACTOR = 10.0  # by which it changes
MINIMUM = f"{FLAT}, and no eigenvalue of the Hessian is negative"


def minimize(objective: Objective, settings: Settings, note: Note) -> Any:
    """x ← x − (|H| + μ·max|λ|·I)⁻¹·g, where |H| has the eigenvectors of H and |λ|.

    A step that raises the loss is tried again with ten times the μ; one that does not divides μ by ten.
    Where the gradient is flat and the least eigenvalue negative, the step goes along its eigenvector.
    """
    damping = settings.options["damping"]
    for _ in range(settings.max_iter):
        here = objective.accepted
        values, vectors = _eigen(objective, settings)
        size = np.abs(values)
        largest = float(size.max())
        # Products of the Hessian have errors of this size where they are differences.
        noise = float(np.cbrt(np.finfo(objective.storage.dtype).eps)) * largest
        negative = int((values < -noise).sum())
        if converged(objective, settings):
            if not negative:
                return result_of(objective, True, MINIMUM)
            x = _down(objective, vectors[:, 0], values[0])
            if x is None:
                return result_of(objective, False, STUCK)
            note(x, damping=damping, negative_eigenvalues=negative)
            continue
        slopes = vectors.T @ here.gradient
        while True:
            divisor = size + max(damping * largest, np.finfo(float).tiny)
            scaled = slopes / divisor
            x = here.x - vectors @ scaled
            predicted = float(slopes @ scaled) - 0.5 * float(size @ scaled**2)
            if lowers(objective, objective.at(x), predicted):
                break
            damping *= FACTOR
            if damping > MOST or objective.same(x, here.x):
                return result_of(objective, False, STUCK)
        note(x, damping=damping, negative_eigenvalues=negative)
        damping = max(damping / FACTOR, LEAST)
    return ended(objective, settings)


def _eigen(objective: Objective, settings: Settings) -> tuple[Array, Array]:
    """Eigenvalues, ascending, and eigenvectors of the Hessian, or of it in a Krylov subspace."""
    here, dimension = objective.accepted, settings.options["dimension"]
    n = len(here.x)
    if dimension is None:
        dimension = n if n <= EXACT else DIMENSION
    if dimension >= n:
        values, vectors = np.linalg.eigh(hessian(objective, here.x))
        return values, vectors
    start = here.gradient
    if converged(objective, settings):  # it says nothing; any direction may lead down
        start = np.random.default_rng(0).standard_normal(n)
    basis, projected = lanczos(objective.linearize(here.x).hvp, start, dimension)
    values, vectors = np.linalg.eigh(projected)
    return values, basis @ vectors


def _down(objective: Objective, direction: Array, curvature: float) -> Array | None:
    """A point along a direction of negative curvature that lowers the loss; None: there is none."""
    here = objective.accepted
    if here.gradient @ direction > 0:
        direction = -direction
    length = 1.0
    while True:
        x = here.x + length * direction
        if objective.same(x, here.x):
            return None
        if objective.at(x).value <= here.value + 0.25 * length * length * curvature:
            return x
        length /= 2


METHOD = Method(
    "saddle-free-newton",
    minimize,
    {"damping": above_0(1e-3), "dimension": whole(None)},
)
