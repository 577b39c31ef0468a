"""Decisions of rows of outputs."""

from __future__ import annotations

import numpy as np

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.op import Array


@kernel
def decision_forward(d: Array, y: Array, threshold: float) -> None:
    """The column of the largest output; of one column, whether it reaches the threshold."""
    for b in range(y.shape[0]):
        best = 0
        for j in range(1, y.shape[1]):
            if np.isnan(y[b, best]):
                break
            if y[b, j] > y[b, best] or np.isnan(y[b, j]):
                best = j
        if y.shape[1] == 1:
            best = 1 if y[b, 0] >= threshold else 0
        d[b] = best
