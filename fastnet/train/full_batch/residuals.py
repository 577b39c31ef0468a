"""The errors of a least-squares loss and their Jacobian by rows, as Levenberg–Marquardt needs them."""

from __future__ import annotations

import numpy as np

from fastnet.errors import HyperparameterError, UsageError
from fastnet.op import Array
from fastnet.train.full_batch.objective import Objective

MOST = 10_000  # parameters, of which JᵀJ takes 800 MB


class Residuals:
    """Σ f_i·(y_ij − t_ij)² of an objective: its factors f, its errors, and 2·Σ f_i·∇y_ij·∇y_ijᵀ.

    factor: f of a row with weight 1. count: the number of errors in rows whose weight is not 0.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective, data, loss = objective, objective.data, objective.loss
        shape = objective.output_shape
        square = loss.square_factor(shape)
        name = type(loss).__name__
        if square is None:
            raise HyperparameterError(
                f"method='levenberg-marquardt' needs a loss that is a sum of squared errors, and {name} is "
                "none; take MSELoss or HalfMSELoss, or another method, such as 'L-BFGS-B'"
            )
        if len(objective.accepted.x) > MOST:
            raise UsageError(
                f"method='levenberg-marquardt' needs a matrix of n² numbers for n parameters, and the "
                f"model has {len(objective.accepted.x)}, more than {MOST}; take 'L-BFGS-B' or "
                "'hessian-free'"
            )
        self.gradients = objective.row_gradients()
        self.factor = square / (1 if loss.reduction == "sum" else data.rows)
        self.weights = np.ones(data.rows) if data.w is None else data.w.astype(np.float64)
        self.outputs = int(np.prod(shape))
        self.count = int((self.weights > 0).sum()) * self.outputs

    def gram(self, x: Array) -> Array:
        """2·Σ f_i·∇y_ij·∇y_ijᵀ at x, float64 (n, n)."""
        objective, n = self.objective, len(x)
        total = np.zeros((n, n))
        roots = np.sqrt(2 * self.factor * self.weights)
        for of, begin, count in objective.by_blocks(x, self.gradients):
            for j in range(self.outputs):
                dy = np.zeros((count, self.outputs))
                dy[:, j] = 1.0
                for first, part in of(dy.reshape(count, *objective.output_shape)).parts():
                    part *= roots[begin + first : begin + first + len(part), None]
                    total += part.T @ part
        return total
