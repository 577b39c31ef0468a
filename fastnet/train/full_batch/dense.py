"""The whole Hessian of an objective, as products with unit vectors, and its eigenvectors."""

from __future__ import annotations

import numpy as np

from fastnet.errors import UsageError
from fastnet.op import Array
from fastnet.train.full_batch.objective import Objective

MOST = 4096  # parameters, of which the matrix takes 128 MiB


def hessian(objective: Objective, x: Array) -> Array:
    """∇²L(x), symmetric float64 (n, n)."""
    at, n = objective.linearize(x), len(x)
    if n > MOST:
        raise UsageError(
            f"the model has {n} trainable parameters; the whole Hessian is for at most {MOST}: take "
            "method='Newton-CG', or 'saddle-free-newton' with options={'dimension': 50}"
        )
    rows, unit = np.empty((n, n)), np.zeros(n)
    for i in range(n):
        unit[i] = 1.0
        rows[i] = at.hvp(unit)
        unit[i] = 0.0
    return (rows + rows.T) / 2
