"""The objective's second derivatives at a point, as products with vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.errors import DivergenceError
from fastnet.op import Array


class Linearization:
    """The Hessian and the Gauss–Newton matrix of an objective at x, as exact products.

    x, v and the products are vectors of the trainable parameters in the model's order, without padding,
    float64. The weight decay's part, decay·v, is in both products. Forward and backward at x are made once
    for all products, and kept.

    objective: an Objective.
    """

    def __init__(self, objective: Any, x: Array) -> None:
        self.objective, self.x = objective, x

    def hvp(self, v: Array) -> Array:
        """∇²L(x)·v."""
        return self._product(v, gauss_newton=False)

    def gnvp(self, v: Array) -> Array:
        """Jᵀ·H·J·v for outputs with the Jacobian J and a loss with the Hessian H in the outputs."""
        return self._product(v, gauss_newton=True)

    def _product(self, v: Array, *, gauss_newton: bool) -> Array:
        objective = self.objective
        curvature = objective.curvature(gauss_newton=gauss_newton)
        assert curvature is not None
        objective.put(self.x)
        if curvature.of is not self.x:
            curvature.of = None
            curvature.linearize()
            curvature.of = self.x
        found: Array = curvature.product(v)
        if not np.isfinite(found).all():
            raise _no_derivatives()
        if objective.decay is not None:
            found += objective.decay * v
        return found


class ByDifferences(Linearization):
    """The same where the loss or a layer is Python code, whose second derivatives are not known.

    Products with the Hessian are central differences of gradients.
    """

    def __init__(self, objective: Any, x: Array) -> None:
        super().__init__(objective, x)
        self._size = 1.0 + float(np.linalg.norm(x))
        self._eps = float(np.cbrt(np.finfo(objective.storage.dtype).eps))

    def hvp(self, v: Array) -> Array:
        """∇²L(x)·v."""
        norm = float(np.linalg.norm(v))
        if norm == 0.0:
            return np.zeros_like(v)
        h = self._eps * self._size / norm
        ends = [self.objective.evaluate(self.x + sign * h * v) for sign in (1, -1)]
        if not all(math.isfinite(end.value) for end in ends):
            raise _no_derivatives()
        product: Array = (ends[0].gradient - ends[1].gradient) / (2 * h)
        return product

    def gnvp(self, v: Array) -> Array:
        """Jᵀ·H·J·v for outputs with the Jacobian J and a loss with the Hessian H in the outputs.

        J·v and H·u are central differences; the product with Jᵀ is exact, by a backward.
        """
        objective, norm = self.objective, float(np.linalg.norm(v))
        if norm == 0.0:
            return np.zeros_like(v)
        h, found = self._eps * self._size / norm, np.zeros_like(v)
        ends = [objective.outputs(self.x + sign * h * v) for sign in (1, -1)]
        slopes = self._slopes(*([e.astype(np.float64) for e in end] for end in ends))
        for gradient in objective.pulled_back(self.x, [s / (2 * h) for s in slopes]):
            found += gradient
        if not np.isfinite(found).all():
            raise _no_derivatives()
        if objective.decay is not None:
            found += objective.decay * v
        return found

    def _slopes(self, above: list[Array], below: list[Array]) -> list[Array]:
        """dL/d-output at outputs above minus that at outputs below, for each block."""
        slope = self.objective.output_slope
        return [
            slope(number, a) - slope(number, b)
            for number, (a, b) in enumerate(zip(above, below, strict=True))
        ]


def _no_derivatives() -> DivergenceError:
    return DivergenceError(
        "the loss is not finite near the last iterate, so that it has no second derivatives there; "
        "another method, or weight_decay, usually helps"
    )
