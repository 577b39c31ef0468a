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

ENDS = ("largest", "smallest", "both", "magnitude")
WHOLE = 64  # parameters up to which the whole matrix is computed
BASIS, BASIS_BYTES = 100, 1 << 28  # vectors of a basis between restarts, and their memory, at most


@dataclass(frozen=True, eq=False, repr=False)
class Eigen:
    """Eigenvalues of a Hessian, ascending, with their eigenvectors.

    values: float64 (k,). vectors: a list of k dicts, each an eigenvector of norm 1 as arrays by the names
        of `named_parameters` and in their shapes, in the model's dtype; its sign says nothing.
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
    tol: number ≥ 0 (default 1e-6), about the error of values relative to the largest |λ|. Products of a
        float32 model have errors of this size; 0 asks for the rounding error of float64.
    max_iter: integer ≥ 1, restarts of the method (default None: ten times P).
    seed: of the start, an integer in [0, 2⁶⁴) (default 0) or None, a random one.

    Returns an Eigen: `values`, ascending, and `vectors`, by name. It takes some dozens of products: SciPy's
    `eigsh` finds them by implicitly restarted Lanczos iteration, which may count a multiple eigenvalue,
    such as 0 of a Gauss–Newton matrix, less often than it is there. Up to 64 parameters, and where k is
    more than P/2, the whole matrix is computed, without SciPy. Raises MissingExtra where SciPy is wanted
    and missing, DivergenceError where max_iter restarts do not reach tol, and what `hvp` raises.
    Source: R. Lehoucq, D. Sorensen, C. Yang, "ARPACK Users' Guide", SIAM 1998; eigenvalues of nets:
    L. Sagun, L. Bottou, Y. LeCun, "Eigenvalues of the Hessian in deep learning", arXiv 1611.07476.
    """
    check_kind("model", model, Sequential)
    check_choice("which", which, ENDS)
    gauss_newton = check_flag("gauss_newton", gauss_newton)
    tol = check_real("tol", tol, low=0.0)
    max_iter = None if max_iter is None else check_int("max_iter", max_iter, low=1)
    rng = np.random.default_rng(check_seed("seed", seed))
    known, data = checked(model, "eigenvalues", loss, X, y, sample_weight)
    with model.training_lock():
        curvature = located(model, known, data, gauss_newton=gauss_newton)
        size = len(curvature.places)
        k = check_int("k", k, low=2 if which == "both" else 1, high=size)
        if size <= WHOLE or k > size // 2:
            check_size("eigenvalues", size)
            values, vectors = _whole(curvature, k, which)
        else:
            options = {"maxiter": max_iter, "tol": tol, "v0": rng.standard_normal(size)}
            values, vectors = _by_products(curvature, k, which, options)
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


class _Arpack:
    """SciPy's ARPACK on a curvature, with errors relative to the largest |λ|."""

    def __init__(self, curvature: Curvature, options: dict[str, Any]) -> None:
        try:
            import scipy.sparse.linalg as linalg
        except ImportError as error:
            raise MissingExtra(
                f"eigenvalues of {len(curvature.places)} parameters need SciPy ({error}); install it with "
                'pip install "fastnet-engine[scipy]", or take np.linalg.eigh(model.hessian(loss, X, y))'
            ) from None
        self._linalg, self._curvature, self._options = linalg, curvature, options
        # A first estimate is enough to shift by.
        (value,), _ = self._run(1, "LM", 0.0, {"tol": 1e-2})
        self._radius = abs(float(value))

    def outermost(self, k: int, which: str) -> tuple[Array, Array]:
        """k eigenvalues of an end, ascending, and eigenvectors as columns.

        ARPACK asks for errors relative to each value, which those near 0 never meet; so the matrix is
        shifted until the wanted end is as far from 0 as the spectrum is wide.
        """
        end, sign = ("LA", 1) if which == "largest" else ("SA", -1)
        return self._run(k, end, sign * self._radius, self._options)

    def _run(self, k: int, end: str, shift: float, options: dict[str, Any]) -> tuple[Array, Array]:
        n = len(self._curvature.places)

        def times(v: Array) -> Array:
            flat = v.ravel()
            return finite(self._curvature.product(flat)) + shift * flat

        operator = self._linalg.LinearOperator((n, n), matvec=times, dtype=np.float64)
        # A wide basis makes many restarts unnecessary where eigenvalues lie close together.
        wide = max(20, 2 * k + 1, min(BASIS, BASIS_BYTES // (8 * n)))
        given = {"ncv": min(n, wide), **self._options, **options}
        try:
            values, vectors = self._linalg.eigsh(operator, k, which=end, **given)
        except self._linalg.ArpackNoConvergence as error:
            raise DivergenceError(
                f"eigenvalues: {len(error.eigenvalues)} of {k} have converged to tol={given['tol']:g}; "
                "take a larger max_iter, a larger tol, or a model in float64"
            ) from None
        order = np.argsort(values)
        return values[order] - shift, vectors[:, order]


def _by_products(
    curvature: Curvature, k: int, which: str, options: dict[str, Any]
) -> tuple[Array, Array]:
    """From products with vectors."""
    n = len(curvature.places)
    if not finite(curvature.product(options["v0"])).any():  # all of it is 0
        return np.zeros(k), np.eye(n, k)
    arpack = _Arpack(curvature, options)
    if which in ("largest", "smallest"):
        return arpack.outermost(k, which)
    low, high = (k // 2, k - k // 2) if which == "both" else (k, k)
    ends = arpack.outermost(low, "smallest"), arpack.outermost(high, "largest")
    values, vectors = (np.concatenate(parts, axis=-1) for parts in zip(*ends, strict=True))
    if which == "magnitude":
        kept = np.sort(np.argsort(np.abs(values), kind="stable")[k:])
        values, vectors = values[kept], vectors[:, kept]
    return values, vectors
