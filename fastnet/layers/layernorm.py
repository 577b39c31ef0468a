"""Normalisation of each row by its own statistics."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import (
    SMALLEST,
    HyperparameterError,
    ShapeError,
    check_flag,
    check_int,
    check_real,
    shown,
)
from fastnet.init import Constant, Zeros
from fastnet.layers.base import Layer, Shape
from fastnet.op import Array, Op, put, row_sums


class layernorm(Op):
    """x̂ = (x − mean)·rstd over the columns of each row, y = gamma·x̂ + beta.

    rstd = 1/√(var + eps) with the biased variance. The mean is centre + rest: the centre is found from x
    minus the row's first element and rounded, and the rest is what remains on average after subtracting
    it. So a constant row becomes exactly beta, and a row far from 0 loses no digits. With g = dy·gamma,
    dx = rstd·(g − mean(g) − x̂·mean(g·x̂)).
    """

    outputs: ClassVar = {"y": "B N", "centre": "B", "rest": "B", "rstd": "B"}
    inputs: ClassVar = {"x": "B N", "gamma": "N", "beta": "N"}
    optional = ("gamma", "beta")
    dims = ("N",)
    scalars = ("eps",)

    @staticmethod
    def forward(
        y: Array,
        centre: Array,
        rest: Array,
        rstd: Array,
        x: Array,
        gamma: Array,
        beta: Array,
        eps: float,
    ) -> None:
        """Normalise each row by its mean and variance."""
        first = x[:, 0]
        np.add(first, (x - first[:, None]).mean(axis=1), out=centre)
        from_centre = x - centre[:, None]
        np.copyto(rest, from_centre.mean(axis=1))
        centred = from_centre - rest[:, None]
        np.divide(1, np.sqrt((centred * centred).mean(axis=1) + eps), out=rstd)
        np.multiply(centred, rstd[:, None], out=y)
        if gamma.size:
            np.multiply(y, gamma, out=y)
        if beta.size:
            np.add(y, beta, out=y)

    @staticmethod
    def vjp(
        dx: Array,
        dgamma: Array,
        dbeta: Array,
        dy: Array,
        centre: Array,
        rest: Array,
        rstd: Array,
        x: Array,
        gamma: Array,
        accumulate: int,
    ) -> None:
        """The two means of g come from mean and variance, which depend on every column."""
        scale = rstd[:, None]
        xhat = (x - centre[:, None] - rest[:, None]) * scale
        if dx.size:
            g = dy * gamma if gamma.size else dy
            along = (g * xhat).mean(axis=1, keepdims=True)
            np.multiply(scale, g - g.mean(axis=1, keepdims=True) - xhat * along, out=dx)
        if dgamma.size:
            put(dgamma, row_sums(dy * xhat), accumulate)
        if dbeta.size:
            put(dbeta, row_sums(dy), accumulate)


class rmsnorm(Op):
    """x̂ = x·rstd with rstd = 1/√(mean(x²) + eps) over the columns of each row, y = gamma·x̂.

    eps = 0 stands for the dtype's machine epsilon. With g = dy·gamma, dx = rstd·(g − x̂·mean(g·x̂)).
    """

    outputs: ClassVar = {"y": "B N", "rstd": "B"}
    inputs: ClassVar = {"x": "B N", "gamma": "N"}
    optional = ("gamma",)
    dims = ("N",)
    scalars = ("eps",)

    @staticmethod
    def forward(y: Array, rstd: Array, x: Array, gamma: Array, eps: float) -> None:
        """Divide each row by its root mean square."""
        small = eps or float(np.finfo(x.dtype).eps)
        np.divide(1, np.sqrt((x * x).mean(axis=1) + small), out=rstd)
        np.multiply(x, rstd[:, None], out=y)
        if gamma.size:
            np.multiply(y, gamma, out=y)

    @staticmethod
    def vjp(
        dx: Array, dgamma: Array, dy: Array, rstd: Array, x: Array, gamma: Array, accumulate: int
    ) -> None:
        """The mean of g·x̂ comes from the root mean square, which depends on every column."""
        scale = rstd[:, None]
        xhat = x * scale
        if dx.size:
            g = dy * gamma if gamma.size else dy
            np.multiply(scale, g - xhat * (g * xhat).mean(axis=1, keepdims=True), out=dx)
        if dgamma.size:
            put(dgamma, row_sums(dy * xhat), accumulate)


def _normalized_shape(value: Any) -> tuple[int]:
    """The argument as PyTorch keeps it: an integer becomes a tuple of one."""
    given = value if isinstance(value, (list, tuple)) else [value]
    if len(given) > 1:
        raise HyperparameterError(
            f"normalized_shape is {shown(value)}; expected an integer ≥ 1 or a tuple of one: rows have one "
            "dimension"
        )
    try:
        return (check_int("normalized_shape", *given, low=1),)
    except (HyperparameterError, TypeError):
        raise HyperparameterError(
            f"normalized_shape is {shown(value)}; expected an integer ≥ 1"
        ) from None


class _OfRows(Layer, base=True):
    """Base of layers that normalise rows of normalized_shape."""

    @property
    def in_width(self) -> int:
        """The number of features."""
        return int(self.normalized_shape[0])

    def output_shape(self, shape: Shape) -> Shape:
        """normalized_shape → normalized_shape."""
        if shape != self.normalized_shape:
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came, expected normalized_shape = "
                f"{self.normalized_shape}"
            )
        return shape


class LayerNorm(_OfRows):
    """y = weight·(x − μ)/√(σ² + eps) + bias, with the mean μ and the biased variance σ² of each row.

    Training and evaluation are the same, and rows do not depend on one another.

    normalized_shape: integer ≥ 1, the number of features, or a list or tuple of this one integer; kept as a
        tuple.
    eps: number ≥ 1.2e-38, float32's smallest normal number (default 1e-5).
    elementwise_affine: bool (default True). False: no weight (features,), at first 1, and no bias.
    bias: bool (default True). False: no bias (features,), at first 0.

    A constant row becomes exactly the bias, and rows far from 0 lose no digits. x (rows, features) → y of
    the same shape; any other width raises ShapeError.
    Source: J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", arXiv 1607.06450 (2016), equations
    3 and 4; names and eps are PyTorch's.
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__(
            normalized_shape=_normalized_shape(normalized_shape),
            eps=check_real("eps", eps, low=SMALLEST),
            elementwise_affine=check_flag("elementwise_affine", elementwise_affine),
            bias=check_flag("bias", bias),
        )
        if self.elementwise_affine:
            self._declare("weight", self.normalized_shape, init=Constant(1.0))
        if elementwise_affine and bias:
            self._declare("bias", self.normalized_shape, init=Zeros())
        else:
            self.__dict__["bias"] = None  # as in PyTorch; the configuration has False

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `layernorm`."""
        p = self._parameters
        return g.apply(layernorm, x=x, gamma=p.get("weight"), beta=p.get("bias"), eps=self.eps)


class RMSNorm(_OfRows):
    """y = weight·x/√(mean(x²) + eps), with the mean over each row.

    Training and evaluation are the same, and rows do not depend on one another.

    normalized_shape: integer ≥ 1, the number of features, or a list or tuple of this one integer; kept as a
        tuple.
    eps: number ≥ 1.2e-38, float32's smallest normal number, or None (default): the machine epsilon of the
        model's dtype, 1.2e-7 or 2.2e-16.
    elementwise_affine: bool (default True). False: no weight (features,), at first 1.

    x (rows, features) → y of the same shape; any other width raises ShapeError.
    Source: B. Zhang, R. Sennrich, "Root mean square layer normalization", NeurIPS 2019, equation 4; names
    and eps are PyTorch's.
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
    ) -> None:
        super().__init__(
            normalized_shape=_normalized_shape(normalized_shape),
            eps=None if eps is None else check_real("eps", eps, low=SMALLEST),
            elementwise_affine=check_flag("elementwise_affine", elementwise_affine),
        )
        if self.elementwise_affine:
            self._declare("weight", self.normalized_shape, init=Constant(1.0))

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `rmsnorm`."""
        weight = self._parameters.get("weight")
        return g.apply(rmsnorm, x=x, gamma=weight, eps=0.0 if self.eps is None else self.eps)
