"""Hessian-free optimisation: conjugate gradients on the damped Gauss–Newton model of the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.op import Array
from fastnet.train.full_batch.base import (
    STUCK,
    Method,
    Note,
    above_0,
    converged,
    ended,
    inside,
    lowers,
    real,
    result_of,
    whole,
)
from fastnet.train.full_batch.objective import Objective
from fastnet.train.full_batch.settings import Settings

LEAST, MOST = 1e-20, 1e10  # damping
GROWTH = 1.3  # of the numbers of the inner iterations whose points are kept
WINDOW = 10  # inner iterations, at least, over which progress is measured


def minimize(objective: Objective, settings: Settings, note: Note) -> Any:
    """x ← x + α·d, where d nearly minimises g·d + d·(G + λI)·d/2, G the Gauss–Newton matrix.

    Conjugate gradients begin at `warm_start` times the last d. Of the points on their way the last one is
    taken from which the loss no longer falls backwards, and α is the first of 1, 0.8, 0.64, … that lowers
    it. λ grows by 3/2 where the loss fell by less than a quarter of what the model without λ says, and
    shrinks by 2/3 where by more than three quarters.
    """
    o = settings.options
    damping, last = o["damping"], np.zeros_like(objective.accepted.x)
    for _ in range(settings.max_iter):
        if converged(objective, settings):
            break
        here = objective.accepted
        product = objective.linearize(here.x).gnvp
        while True:
            steps = _conjugate_gradients(product, damping, here.gradient, o["warm_start"] * last, o)
            step, curved = _backtracked(objective, steps)
            predicted = -float(here.gradient @ step + 0.5 * (step @ (curved - damping * step)))
            rate = _rate(objective, step)
            if rate > 0:
                break
            damping, last = 10 * damping, np.zeros_like(last)
            if damping > MOST or objective.same(here.x + step, here.x):
                return result_of(objective, False, STUCK)
        fell = here.value - objective.at(here.x + step).value
        if fell < 0.25 * predicted:
            damping *= 1.5
        elif fell > 0.75 * predicted:
            damping = max(damping / 1.5, LEAST)
        last = step
        note(here.x + rate * step, damping=damping, cg_iterations=steps[-1][0])
    return ended(objective, settings)


Steps = list[
    tuple[int, Array, Array]
]  # numbers of inner iterations, points d and products (G + λI)·d


def _conjugate_gradients(
    product: Callable[[Array], Array],
    damping: float,
    gradient: Array,
    start: Array,
    options: dict[str, Any],
) -> Steps:
    """Points on the way to the minimum of q(d) = g·d + d·(G + λI)·d/2.

    It ends where q fell, over the last tenth of the iterations but at least ten, by less than `cg_tol` of
    q for each of them.
    """
    d = start
    curved = product(d) + damping * d if d.any() else np.zeros_like(d)
    residual = -gradient - curved
    p, size = residual.copy(), float(residual @ residual)
    kept: Steps = []
    values, keep = [0.5 * float(d @ (gradient - residual))], 1.0
    for i in range(1, options["cg_iter"] + 1):
        ap = product(p) + damping * p
        along = float(p @ ap)
        if not along > 0 or size == 0.0:  # rounding, or there already
            break
        alpha = size / along
        d = d + alpha * p
        curved = curved + alpha * ap
        residual = residual - alpha * ap
        size, before = float(residual @ residual), size
        p = residual + size / before * p
        values.append(0.5 * float(d @ (gradient - residual)))
        window = max(WINDOW, i // 10)
        small = (
            i > window
            and values[-1] < 0
            and values[-1 - window] - values[-1] <= -values[-1] * window * options["cg_tol"]
        )
        if i >= keep or small:
            kept.append((i, d, curved))
            keep = max(keep * GROWTH, i + 1.0)
        if small:
            break
    if not kept or kept[-1][1] is not d:
        kept.append((len(values) - 1, d, curved))
    return kept


def _backtracked(objective: Objective, steps: Steps) -> tuple[Array, Array]:
    """The point before which, going back from the last, the loss rises."""
    here = objective.accepted.x
    _, best, curved = steps[-1]
    least = objective.at(here + best).value
    for _, step, other in reversed(steps[:-1]):
        value = objective.at(here + step).value
        if value >= least:
            break
        best, curved, least = step, other, value
    return best, curved


def _rate(objective: Objective, step: Array) -> float:
    """The first of 1, 0.8, 0.64, … by which the step lowers the loss; 0 where none does."""
    here, rate = objective.accepted, 1.0
    slope = -float(here.gradient @ step)
    while rate > 1e-4:
        if lowers(objective, objective.at(here.x + rate * step), 0.5 * rate * slope):
            return rate
        rate *= 0.8
    return 0.0


METHOD = Method(
    "hessian-free",
    minimize,
    {
        "damping": above_0(1.0),
        "warm_start": real(0.95, low=0.0, high=1.0),
        "cg_iter": whole(250),
        "cg_tol": inside(5e-4),
    },
)
