"""Affine maps of columns, and a smooth clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import HyperparameterError, check_flag, check_real, shown
from fastnet.formulas.language import Real, each, maximum, minimum, sqrt
from fastnet.layers.pointwise import Elementwise
from fastnet.layers.rectifiers import hardtanh
from fastnet.op import Array, Op
from fastnet.preprocess.base import Preprocessor, Values, split
from fastnet.preprocess.statistics import bounds, mean_and_var, quantiles


class rescale(Op):
    """y = ((x − c) − r)·f + offset with numbers c, r and f of each column; dx = dy·f.

    c + r is the centre with twice the digits of the model's dtype: x − c is exact near it.
    """

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N", "c": "N", "r": "N", "f": "N"}
    optional = ("f",)
    dims = ("N",)
    scalars = ("offset",)
    inplace = True

    @staticmethod
    def forward(y: Array, x: Array, c: Array, r: Array, f: Array, offset: float) -> None:
        """The affine map."""
        centred = (x - c) - r
        np.add(centred * f if f.size else centred, y.dtype.type(offset), out=y)

    @staticmethod
    def vjp(dx: Array, dy: Array, f: Array) -> None:
        """The numbers of columns are constants."""
        if dx.size:
            np.copyto(dx, dy * f if f.size else dy)


FAR = 2.0**40  # whose square is finite in float32, and beside which 1 is nothing


class smooth_clip(Elementwise):
    """y = x/√(1 + (x/bound)²); dx = dy/√(1 + (x/bound)²)³."""

    scalars = ("bound",)

    @each
    def forward(x: Real, bound: float) -> Real:
        """Close to x near 0, and within ±bound."""
        u = minimum(maximum(x * (1 / bound), -FAR), FAR)
        return bound * (u / sqrt(1 + u * u))

    @each
    def vjp(dy: Real, x: Real, bound: float) -> Real:
        """One over the cube of the root."""
        u = minimum(maximum(x * (1 / bound), -FAR), FAR)
        s = 1 / sqrt(1 + u * u)
        return dy * (s * s * s)


class _Affine(Preprocessor, base=True):
    """Base of y = (x − centre)·factor + offset."""

    _scaled = True  # whether there is a factor

    @property
    def _offset(self) -> float:
        return 0.0

    def _declare_numbers(self, features: int) -> None:
        self._number("centre_", (features,))
        self._number("centre_rest_", (features,))
        if self._scaled:
            self._number("factor_", (features,))

    def _values(self, centre: Array, factor: Array | None = None) -> Values:
        first, rest = split(centre)
        found = {"centre_": first, "centre_rest_": rest}
        return found if factor is None else {**found, "factor_": factor}

    @property
    def _divisor(self) -> Array:
        self._check_ready()
        with np.errstate(divide="ignore"):
            divisor: Array = 1.0 / self._buffer("factor_")
        return divisor

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `rescale`."""
        self._check_ready()
        p = self._parameters
        c, r, f = p["centre_"], p["centre_rest_"], p.get("factor_")
        return g.apply(rescale, x=x, c=c, r=r, f=f, offset=self._offset)

    def _inverse(self, y: Array) -> Array:
        found = y - self._offset
        if self._scaled:
            factor = self._buffer("factor_")
            found = np.where(factor == 0, 0.0, found / np.where(factor == 0, 1.0, factor))
        whole: Array = found + self._centre()
        return whole


class Center(_Affine):
    """y = x − mean for each column.

    num_features: integer ≥ 1, or None (default): that of the data of `fit`.

    Fitted: `mean_` (features,). It is StandardScaler(with_std=False) of scikit-learn.
    Source: elementary; Y. LeCun, L. Bottou, G. B. Orr, K.-R. Müller, "Efficient BackProp", 1998, section
    4.3, on why inputs are centred.
    """

    _scaled = False

    def __init__(self, num_features: int | None = None) -> None:
        super().__init__(num_features)

    def _fitted(self, X: Array) -> Values:
        return self._values(mean_and_var(X)[0])

    @property
    def mean_(self) -> Array:
        """The mean of each column, float64."""
        return self._centre()


class StandardScaler(_Affine):
    """y = (x − mean)/std for each column, with the biased standard deviation, or 1 where that is 0.

    num_features: integer ≥ 1, or None (default): that of the data of `fit`.

    Fitted: `mean_`, `scale_` and `var_` (features,), as in scikit-learn. A constant column becomes 0.
    Source: elementary; Y. LeCun, L. Bottou, G. B. Orr, K.-R. Müller, "Efficient BackProp", 1998, section
    4.3.
    """

    def __init__(self, num_features: int | None = None) -> None:
        super().__init__(num_features)

    def _declare_numbers(self, features: int) -> None:
        super()._declare_numbers(features)
        self._number("var_", (features,), low=0.0)

    def _fitted(self, X: Array) -> Values:
        mean, var = mean_and_var(X)
        std = np.sqrt(var)
        return {**self._values(mean, 1 / np.where(std == 0, 1.0, std)), "var_": var}

    @property
    def mean_(self) -> Array:
        """The mean of each column, float64."""
        return self._centre()

    @property
    def scale_(self) -> Array:
        """What divides each column: its standard deviation, or 1 where that is 0; float64."""
        return self._divisor


class MinMaxScaler(_Affine):
    """y = low + (high − low)·(x − min)/(max − min + eps) for each column, with (low, high) = feature_range.

    feature_range: two numbers low < high (default (0, 1)).
    eps: number ≥ 0 (default 1e-8). It keeps a constant column finite: it becomes low. Other values in
        such a column at predict become large, unless clip is True. With 0, the divisor of a constant column
        is 1, as in scikit-learn.
    clip: bool (default False). True clips y to [low, high], which values outside the fitted range leave.
    num_features: integer ≥ 1, or None (default): that of the data of `fit`.

    Fitted: `data_min_`, `data_max_`, `data_range_` and `scale_` (features,), as in scikit-learn, where
    scale_ = (high − low)/(max − min + eps). The inverse does not undo a clip.
    Source: elementary; scikit-learn's MinMaxScaler, without its eps.
    """

    def __init__(
        self,
        feature_range: Sequence[Any] = (0.0, 1.0),
        eps: float = 1e-8,
        clip: bool = False,
        num_features: int | None = None,
    ) -> None:
        low, high = _range(feature_range)
        super().__init__(
            num_features,
            feature_range=(low, high),
            eps=check_real("eps", eps, low=0.0),
            clip=check_flag("clip", clip),
        )

    @property
    def _offset(self) -> float:
        return float(self.feature_range[0])

    def _declare_numbers(self, features: int) -> None:
        super()._declare_numbers(features)
        self._number("data_max_", (features,))

    def _fitted(self, X: Array) -> Values:
        least, most = bounds(X)
        low, high = self.feature_range
        divisor = most - least + self.eps
        factor = (high - low) / np.where(divisor == 0, 1.0, divisor)
        return {**self._values(least, factor), "data_max_": most}

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `rescale`, and `hardtanh` to clip."""
        low, high = self.feature_range
        y = super().emit(g, x)
        return g.apply(hardtanh, x=y, min_val=low, max_val=high) if self.clip else y

    @property
    def data_min_(self) -> Array:
        """The least value of each column, float64."""
        return self._centre()

    @property
    def data_range_(self) -> Array:
        """data_max_ − data_min_, float64."""
        width: Array = self._buffer("data_max_") - self.data_min_
        return width

    @property
    def scale_(self) -> Array:
        """What multiplies each column, float64."""
        self._check_ready()
        return self._buffer("factor_")


class RobustScaler(_Affine):
    """z = (x − median)·f for each column, then y = z/√(1 + (z/clip)²), which lies within ±clip.

    f = 1/(q75 − q25) with the quartiles q25 and q75, or 2/(max − min) where that divisor is 0, or 0 where
    both are. So a constant column becomes 0, also at predict.

    clip: number > 0, or None for y = z (default 3).
    num_features: integer ≥ 1, or None (default): that of the data of `fit`.

    Fitted: `center_` (features,), and `scale_`, which divides (infinite where f = 0). The inverse cannot
    tell apart what lies close to ±clip.
    Source: D. Holzmüller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and
    boosted trees on tabular data", NeurIPS 2024, for f and the clip; scikit-learn's RobustScaler has
    neither.
    """

    def __init__(self, clip: float | None = 3.0, num_features: int | None = None) -> None:
        known = None if clip is None else check_real("clip", clip, low=0.0, open_low=True)
        super().__init__(num_features, clip=known)

    def _fitted(self, X: Array) -> Values:
        low, median, high = quantiles(X, np.array([0.25, 0.5, 0.75]))
        least, most = bounds(X)
        width = np.where(high > low, high - low, (most - least) / 2)
        factor = np.where(width > 0, 1 / np.where(width > 0, width, 1.0), 0.0)
        return self._values(median, factor)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `rescale`, then `smooth_clip`."""
        z = super().emit(g, x)
        return z if self.clip is None else g.apply(smooth_clip, x=z, bound=self.clip)

    def _inverse(self, y: Array) -> Array:
        if self.clip is None:
            return super()._inverse(y)
        share = np.clip(y / self.clip, -1 + 2.0**-24, 1 - 2.0**-24)
        return super()._inverse(self.clip * share / np.sqrt(1 - share * share))

    @property
    def center_(self) -> Array:
        """The median of each column, float64."""
        return self._centre()

    @property
    def scale_(self) -> Array:
        """What divides each column, float64."""
        return self._divisor


def _range(given: Any) -> tuple[float, float]:
    """The argument feature_range."""
    try:
        low, high = given
        low, high = check_real("low", low), check_real("high", high)
        if not (low < high and math.isfinite(high - low)):
            raise ValueError
    except (TypeError, ValueError):
        raise HyperparameterError(
            f"feature_range is {shown(given)}; expected two finite numbers, the lower first"
        ) from None
    return low, high
