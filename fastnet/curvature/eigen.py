"""The outermost eigenvalues of a Hessian, from products with vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.curvature.vectors import by_name
from fastnet.errors import (
    DivergenceError,
    MissingExtra,
    check_choice,
    check_flag,
    check_int,
    check_kind,
    check_real,
    check_seed,
)
from fastnet.model import Sequential
from fastnet.model.curvature import Curvature
from fastnet.model.matrices import check_size, checked, finite, located, whole
from fastnet.op import Array

ENDS = {"largest": "LA", "smallest": "SA", "both": "BE", "magnitude": "LM"}  # and ARPACK's names
WHOLE = 64  # parameters up to which the whole matrix is computed


@dataclass(frozen=True, eq=False, repr=False)
class Eigen:
    """Eigenvalues of a Hessian, ascending, with their eigenvectors.

    values: float64 (k,). vectors: a list of k dicts, each an eigenvector of norm 1 as arrays by the names of
        `named_parameters` and in their shapes, in the model's dtype; its sign says nothing.
    """

    values: Array
    vectors: list[dict[str, Array]]

    def __repr__(self) -> str:
        return f"<Eigen of {len(self.values)} values: {', '.join(f'{v:.4g}' for v in self.values)}>"


def eigenvalues(
    model: Any,
    loss: Any,
    X: Any,
    y: Any,
    k: int = 1,
    which: str = "largest",
    *,
    sample_weight: Any = None,
    gauss_newton: bool = False,
    tol: float = 1e-6,
    max_iter: int | None = None,
    seed: int | None = 0,
) -> Eigen:
    """The outermost eigenvalues of the loss's Hessian, and their eigenvectors.

    model, loss, X, y, sample_weight: as for `Sequential.hvp`. k: integer in [1, P], how many of P (default
        1); at least 2 for "both".
    which: "largest" (default), "smallest", that is the most negative, "both", the half of k from either end
        and one more of the large ones where k is odd, or "magnitude", the largest of |λ|.
    gauss_newton: True takes `gnvp`'s matrix (default False).
    tol: number ≥ 0 (default 1e-6), the error of values, relative; products of a float32 model have errors
        of about 1e-6 of the largest themselves. max_iter: integer ≥ 1, restarts of the method (default
        None: ten times P).
    seed: of the start, an integer in [0, 2⁶⁴) (default 0) or None, a random one.

    Returns an Eigen: `values`, ascending, and `vectors`, by name. It takes some dozens of products: SciPy's
    `eigsh` finds them by implicitly restarted Lanczos iteration. Up to 64 parameters, and where k is nearly
    P, the whole matrix is computed, without SciPy. Raises MissingExtra where SciPy is wanted and missing,
    DivergenceError where max_iter restarts do not reach tol, and what `hvp` raises.
    Source: R. Lehoucq, D. Sorensen, C. Yang, "ARPACK Users' Guide", SIAM 1998; eigenvalues of nets:
    L. Sagun, L. Bottou, Y. LeCun, "Eigenvalues of the Hessian in deep learning", arXiv 1611.07476.
    """
    check_kind("model", model, Sequential)
    check_choice("which", which, tuple(ENDS))
    gauss_newton = check_flag("gauss_newton", gauss_newton)
    tol = check_real("tol", tol, low=0.0)
    max_iter = None if max_iter is None else check_int("max_iter", max_iter, low=1)
    rng = np.random.default_rng(check_seed("seed", seed))
    known, data = checked(model, "eigenvalues", loss, X, y, sample_weight)
    with model.training_lock():
        curvature = located(model, known, data, gauss_newton=gauss_newton)
        size = len(curvature.places)
        k = check_int("k", k, low=2 if which == "both" else 1, high=size)
        if size <= WHOLE or k > size - 2:
            check_size("eigenvalues", size)
            values, vectors = _whole(curvature, k, which)
        else:
            options = {"maxiter": max_iter, "tol": tol, "v0": rng.standard_normal(size)}
            values, vectors = _outermost(curvature, k, which, options)
        return Eigen(values, [by_name(model, vectors[:, i]) for i in range(k)])


def _whole(curvature: Curvature, k: int, which: str) -> tuple[Array, Array]:
    """From the whole matrix."""
    values, vectors = np.linalg.eigh(whole(curvature, np.arange(len(curvature.places))))
    n, low = len(values), k // 2
    chosen = {
        "largest": np.arange(n - k, n),
        "smallest": np.arange(k),
        "both": np.concatenate([np.arange(low), np.arange(n - (k - low), n)]),
        "magnitude": np.sort(np.argsort(np.abs(values), kind="stable")[n - k :]),
    }[which]
    return values[chosen], vectors[:, chosen]


def _outermost(
    curvature: Curvature, k: int, which: str, options: dict[str, Any]
) -> tuple[Array, Array]:
    """By SciPy's ARPACK."""
    try:
        import scipy.sparse.linalg as linalg
    except ImportError as error:
        raise MissingExtra(
            f"eigenvalues of {len(curvature.places)} parameters need SciPy ({error}); install it with "
            'pip install "fastnet-engine[scipy]", or take np.linalg.eigh(model.hessian(loss, X, y))'
        ) from None
    n = len(curvature.places)
    operator = linalg.LinearOperator(
        (n, n), matvec=lambda v: finite(curvature.product(v.ravel())), dtype=np.float64
    )
    try:
        values, vectors = linalg.eigsh(operator, k, which=ENDS[which], **options)
    except linalg.ArpackNoConvergence as error:
        raise DivergenceError(
            f"eigenvalues: {len(error.eigenvalues)} of {k} have converged to tol={options['tol']:g}; take a "
            "larger max_iter, a larger tol, or a model in float64"
        ) from None
    order = np.argsort(values)
    return values[order], vectors[:, order]
