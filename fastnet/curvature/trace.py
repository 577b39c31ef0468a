"""The trace of a Hessian, from products with random signs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastnet.errors import check_flag, check_int, check_kind, check_seed
from fastnet.model import Sequential
from fastnet.model.matrices import checked, finite, located


class Trace(NamedTuple):
    """An estimate of a trace, and the standard error of this mean of samples."""

    estimate: float
    standard_error: float


def hutchinson_trace(
    model: Any,
    loss: Any,
    X: Any,
    y: Any,
    *,
    samples: int = 100,
    seed: int | None = 0,
    sample_weight: Any = None,
    gauss_newton: bool = False,
) -> Trace:
    """Estimate the trace of the loss's Hessian, the sum of its eigenvalues: the mean of zᵀ·H·z.

    z has independent random signs, so that E(zᵀ·H·z) = tr H with the variance 2·Σ_{i≠j} H_ij².

    model, loss, X, y, sample_weight: as for `Sequential.hvp`. samples: integer ≥ 2, the number of products
        (default 100). seed: of the signs, an integer in [0, 2⁶⁴) (default 0) or None, a random one.
    gauss_newton: True estimates the trace of `gnvp`'s matrix (default False).

    Returns (estimate, standard_error), both floats, by their names too. The error is the standard deviation
    of the samples divided by the root of their number. Raises what `hvp` raises.
    Source: M. Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian
    smoothing splines", Communications in Statistics 19, 1990.
    """
    check_kind("model", model, Sequential)
    samples = check_int("samples", samples, low=2)
    rng = np.random.default_rng(check_seed("seed", seed))
    gauss_newton = check_flag("gauss_newton", gauss_newton)
    known, data = checked(model, "hutchinson_trace", loss, X, y, sample_weight)
    with model.training_lock():
        curvature = located(model, known, data, gauss_newton=gauss_newton)
        found = np.empty(samples)
        for i in range(samples):
            z = rng.choice([-1.0, 1.0], len(curvature.places))
            with np.errstate(all="ignore"):  # what is not finite is refused below
                found[i] = z @ finite(curvature.product(z))
        finite(found)
    return Trace(float(found.mean()), float(found.std(ddof=1) / np.sqrt(samples)))
