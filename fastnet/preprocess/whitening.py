"""Whitening: linear maps after which columns are uncorrelated."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import HyperparameterError, ShapeError, check_flag, check_int, check_real
from fastnet.layers.base import Shape
from fastnet.layers.linear import linear
from fastnet.op import Array
from fastnet.preprocess.base import Preprocessor, Values, split
from fastnet.preprocess.scaling import rescale
from fastnet.preprocess.statistics import mean_and_covariance


class _Whitening(Preprocessor, base=True):
    """Base of y = (x − mean)·W."""

    least_rows = 2

    def _outputs(self, features: int) -> int:
        """The number of output columns."""
        return features

    def _declare_numbers(self, features: int) -> None:
        outputs = self._outputs(features)
        self._number("centre_", (features,))
        self._number("centre_rest_", (features,))
        self._number("weight_", (features, outputs), transposed=True)
        self._number("explained_variance_", (outputs,), low=0.0)

    def _fitted(self, X: Array) -> Values:
        self._outputs(X.shape[1])
        mean, covariance = mean_and_covariance(X)
        first, rest = split(mean)
        found = {"centre_": first, "centre_rest_": rest}
        values, vectors = _principal(covariance)
        return found | self._of(values, vectors)

    def _of(self, values: Array, vectors: Array) -> Values:
        """The other numbers, of the covariance's eigenvalues and eigenvectors."""
        raise NotImplementedError

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `rescale` to centre, then `linear`."""
        self._check_ready()
        p = self._parameters
        x = g.apply(rescale, x=x, c=p["centre_"], r=p["centre_rest_"], f=None, offset=0.0)
        return g.apply(linear, x=x, w=p["weight_"], b=None)

    @property
    def mean_(self) -> Array:
        """The mean of each column, float64."""
        return self._centre()


class PCA(_Whitening):
    """y = (x − mean)·U: the coordinates along the n_components directions of largest variance.

    With whiten=True y = (x − mean)·U·(Λ + eps)^(−1/2): whitened, the covariance is Λ/(Λ + eps). U and Λ are
    the eigenvectors and eigenvalues of the covariance matrix with the divisor n − 1, the largest first.

    n_components: integer in [1, num_features], or None (default): as many as features.
    whiten: bool (default False).
    eps: number ≥ 0 (default 1e-5), used if whiten is True. It keeps directions without variance from being
        blown up. With 0, directions whose variance is 0 become 0.
    num_features: integer ≥ 1, or None (default): that of the data of `fit`, which needs two rows.

    Fitted, as in scikit-learn: `mean_` (features,), `components_` (n_components, features), orthonormal
    rows whose entry of largest magnitude is positive, `explained_variance_` (n_components,).
    Source: I. T. Jolliffe, "Principal component analysis", 2nd edition, 2002; H. Hotelling, 1933.
    """

    def __init__(
        self,
        n_components: int | None = None,
        whiten: bool = False,
        eps: float = 1e-5,
        num_features: int | None = None,
    ) -> None:
        known = None
        if n_components is not None:
            known = check_int("n_components", n_components, low=1)
        super().__init__(
            num_features,
            n_components=known,
            whiten=check_flag("whiten", whiten),
            eps=check_real("eps", eps, low=0.0),
        )

    def _outputs(self, features: int) -> int:
        count: int = features if self.n_components is None else self.n_components
        if count > features:
            raise HyperparameterError(
                f"n_components is {count} and the data have {features} features; expected an integer in "
                f"[1, {features}]"
            )
        return count

    def output_shape(self, shape: Shape) -> Shape:
        """(num_features,) → (n_components,)."""
        shape = super().output_shape(shape)
        if len(shape) != 1:
            raise ShapeError(f"{self.label}: rows of shape {shape} came, expected (features,)")
        return (self._outputs(shape[0]),)

    def _of(self, values: Array, vectors: Array) -> Values:
        count = self._outputs(len(values))
        values, vectors = values[:count], vectors[:, :count]
        weight = vectors * _inverse_roots(values, self.eps) if self.whiten else vectors
        return {"weight_": weight, "explained_variance_": values}

    def _inverse(self, y: Array) -> Array:
        if self.whiten:  # the weight is U·(Λ + eps)^(−1/2)
            y = y * (self._buffer("explained_variance_") + self.eps)
        found: Array = y @ self._buffer("weight_").T + self.mean_
        return found

    @property
    def components_(self) -> Array:
        """Uᵀ (n_components, features), float64."""
        self._check_ready()
        weight = self._buffer("weight_").T
        if not self.whiten:
            return weight
        rows: Array = weight * np.sqrt(self._buffer("explained_variance_") + self.eps)[:, None]
        return rows


class ZCA(_Whitening):
    """y = (x − mean)·W with W = U·(Λ + eps)^(−1/2)·Uᵀ, U and Λ as in PCA: whitened, and close to x.

    Of all W that whiten, this one gives the y that is closest to x − mean in the mean square (for eps = 0):
    images stay images.

    eps: number ≥ 0 (default 1e-5). The covariance of y is U·Λ/(Λ + eps)·Uᵀ. With 0, directions whose
        variance is 0 become 0.
    num_features: integer ≥ 1, or None (default): that of the data of `fit`, which needs two rows.

    Fitted: `mean_` (features,), `weight_` W (features, features), `explained_variance_` (features,).
    Source: A. J. Bell, T. J. Sejnowski, "The 'independent components' of natural scenes are edge filters",
    Vision Research 37, 1997; A. Kessy, A. Lewin, K. Strimmer, "Optimal whitening and decorrelation", The
    American Statistician 72, 2018, for the closeness.
    """

    def __init__(self, eps: float = 1e-5, num_features: int | None = None) -> None:
        super().__init__(num_features, eps=check_real("eps", eps, low=0.0))

    def _of(self, values: Array, vectors: Array) -> Values:
        weight = (vectors * _inverse_roots(values, self.eps)) @ vectors.T
        return {"weight_": (weight + weight.T) / 2, "explained_variance_": values}

    def _inverse(self, y: Array) -> Array:
        # Its eigenvalues are (λ + eps)^(−1/2), or 0 where no variance was.
        roots, vectors = np.linalg.eigh(self._buffer("weight_"))
        kept = roots > roots[-1] * len(roots) * np.finfo(np.float64).eps
        back = vectors[:, kept] / roots[kept] @ vectors[:, kept].T
        found: Array = y @ back + self.mean_
        return found


def _principal(covariance: Array) -> tuple[Array, Array]:
    """Eigenvalues, the largest first, and eigenvectors as columns; what rounding leaves of 0 is 0."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    least = max(values[0], 0.0) * len(values) * np.finfo(np.float64).eps
    largest = np.abs(vectors).argmax(axis=0)
    sign = np.sign(vectors[largest, np.arange(len(values))])
    return np.where(values > least, values, 0.0), vectors * np.where(sign == 0, 1.0, sign)


def _inverse_roots(values: Array, eps: float) -> Array:
    """(Λ + eps)^(−1/2), 0 where that is infinite."""
    shifted = values + eps
    return np.where(shifted > 0, 1 / np.sqrt(np.where(shifted > 0, shifted, 1.0)), 0.0)
