"""Bayesian regularisation: the weight decay that the evidence of the data calls for."""

from __future__ import annotations

import math

import numpy as np

from fastnet.errors import UsageError
from fastnet.op import Array
from fastnet.train.full_batch.objective import Objective
from fastnet.train.full_batch.residuals import Residuals
from fastnet.train.full_batch.settings import Settings

SETTLED = 1e-4  # relative change of the decay
STEADY = (
    0.1  # relative fall of the loss in an iteration, below which there is something to estimate
)
WEAK = 1e-2  # of the decay that the errors of the start would call for


class Evidence:
    """α and β of the objective β·E_D + α·E_W, re-estimated at each iterate.

    E_D is the sum of squared errors, each times its row's weight, E_W that of the squares of the decayed
    parameters. γ = N − 2α·tr H⁻¹ is the number of parameters that the data determine, with the
    Gauss–Newton matrix H = 2βJᵀJ + 2αI; then α = γ/2E_W and β = (n − γ)/2E_D for n errors. Parameters that
    are not decayed count as determined. fit_full_batch divides the objective by β and multiplies it by the
    loss's factor c of E_D, so that it is the loss plus λ/2·E_W with λ = 2cα/β.

    The errors of a net that has not learnt yet are no noise: taken for such, they would call for a decay
    under which nothing is learnt. So a fit begins with `weight_decay`, or if that is 0 with a weak decay,
    and estimates after iterations that lower the loss by less than a tenth.

    Source: D. J. C. MacKay, "Bayesian interpolation", Neural Computation 4 (1992); the Gauss–Newton matrix:
    F. D. Foresee, M. T. Hagan, "Gauss-Newton approximation to Bayesian learning", ICNN 1997.
    """

    def __init__(self, objective: Objective, residuals: Residuals, settings: Settings) -> None:
        self.objective, self.residuals = objective, residuals
        self.decayed = objective.decayed
        if not self.decayed.any():
            raise UsageError(
                "options['bayesian'] is True, and no parameter is decayed; expected "
                "decay_biases_and_norms=True, or a model with a matrix of weights"
            )
        here, x = objective.accepted, objective.accepted.x[self.decayed]
        self.strength = settings.weight_decay or 2 * WEAK * here.value / max(
            float(x @ x), float(np.finfo(np.float64).tiny)
        )
        objective.set_decay(self.strength)
        self._tol, self._before = settings.tol, math.inf  # the loss at the last call
        self.settled = False
        self.numbers: dict[str, float] = {}

    def estimate(self, squares: Array) -> None:
        """Re-estimate at the accepted iterate, whose 2c·JᵀJ is `squares`, and set the weight decay."""
        objective, decayed = self.objective, self.decayed
        here = objective.accepted
        flat = here.grad_norm <= self._tol
        steady = flat or here.value >= (1 - STEADY) * self._before
        self._before = here.value
        if not steady:
            return
        free = int((~decayed).sum())
        determined = float(decayed.sum())
        matrix = squares + np.diag(self.strength * decayed)
        determined -= self.strength * _trace_of_inverse(matrix, decayed)
        determined = min(max(determined, 0.0), float(decayed.sum()))
        decay = 0.5 * self.strength * float(here.x[decayed] @ here.x[decayed])
        errors = max(here.value - decay, 0.0) / self.residuals.factor  # E_D
        weights = float(here.x[decayed] @ here.x[decayed])  # E_W
        tiny = float(np.finfo(np.float64).tiny)
        beta = max(self.residuals.count - determined - free, 1.0) / max(2 * errors, tiny)
        alpha = determined / max(2 * weights, tiny)
        before, self.strength = self.strength, 2 * self.residuals.factor * alpha / beta
        self.settled = math.isclose(before, self.strength, rel_tol=SETTLED)
        objective.set_decay(self.strength)
        self._before = objective.accepted.value
        self.numbers = {
            "effective_parameters": determined + free,
            "alpha": alpha,
            "beta": beta,
            "weight_decay": self.strength,
        }


def _trace_of_inverse(matrix: Array, of: Array) -> float:
    """The sum of some elements of the diagonal of the inverse of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > np.finfo(float).eps * len(values) * values[-1]
    return float((vectors[of][:, kept] ** 2 / values[kept]).sum())
