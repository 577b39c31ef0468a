"""The table of the full-batch methods."""

from __future__ import annotations

from fastnet.train.full_batch import (
    conjugate_gradient,
    descent,
    hessian_free,
    irprop,
    levenberg_marquardt,
    newton,
    of_scipy,
    saddle_free,
)

TABLE = {
    method.name: method
    for method in (
        *of_scipy.QUASI_NEWTON,
        conjugate_gradient.METHOD,
        *of_scipy.NEWTON,
        levenberg_marquardt.METHOD,
        hessian_free.METHOD,
        saddle_free.METHOD,
        newton.METHOD,
        irprop.METHOD,
        descent.METHOD,
    )
}
METHODS = tuple(TABLE)
