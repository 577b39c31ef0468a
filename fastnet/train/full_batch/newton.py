"""Newton's method with the whole Hessian, which goes to the nearest critical point of any kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.train.full_batch.base import Method, Note, converged, ended, real, result_of
from fastnet.train.full_batch.dense import hessian
from fastnet.train.full_batch.objective import Objective
from fastnet.train.full_batch.settings import Settings


def minimize(objective: Objective, settings: Settings, note: Note) -> Any:
    """x ← x − H⁺·g with the pseudo-inverse H⁺; a step is halved where its loss is not finite."""
    for _ in range(settings.max_iter):
        here = objective.accepted
        if converged(objective, settings):
            break
        values, vectors = np.linalg.eigh(hessian(objective, here.x))
        size = np.abs(values)
        kept = size > settings.options["rcond"] * size.max()
        scaled = np.divide(vectors.T @ here.gradient, values, where=kept, out=np.zeros_like(values))
        step = -(vectors @ scaled)
        while not np.isfinite(objective.at(here.x + step).value):
            step /= 2
            if objective.same(here.x + step, here.x):
                return result_of(objective, False, "no finite loss near the last iterate")
        note(here.x + step, negative_eigenvalues=int((kept & (values < 0)).sum()))
    return ended(objective, settings)


METHOD = Method("newton", minimize, {"rcond": real(1e-8, low=0.0, high=1.0, open_high=True)})
