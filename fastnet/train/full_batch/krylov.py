"""Lanczos' orthonormal basis of a Krylov subspace, and the matrix in it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastnet.op import Array


def lanczos(product: Callable[[Array], Array], start: Array, dimension: int) -> tuple[Array, Array]:
    """V (n, k) with VᵀV = I, which spans start, A·start, …, and VᵀAV (k, k); k ≤ dimension.

    Each new vector is made orthogonal to all earlier ones, twice: with rounding a short recurrence loses
    orthogonality. k is smaller where the subspace is invariant.
    Source: C. Lanczos, "An iteration method for the solution of the eigenvalue problem of linear
    differential and integral operators", 1950; the second pass: B. N. Parlett, "The symmetric eigenvalue
    problem", 1980.
    """
    dimension = min(dimension, len(start))
    basis, products = np.empty((2, dimension, len(start)))
    v = start / np.linalg.norm(start)
    k = 0
    while k < dimension:
        basis[k], products[k] = v, product(v)
        k += 1
        v = products[k - 1].copy()
        size = np.linalg.norm(v)
        for _ in range(2):
            v -= basis[:k].T @ (basis[:k] @ v)
        rest = np.linalg.norm(v)
        if not rest > 1e-10 * size:
            break
        v /= rest
    projected = basis[:k] @ products[:k].T
    return basis[:k].T, (projected + projected.T) / 2
