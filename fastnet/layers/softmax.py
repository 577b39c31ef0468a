"""Softmax and log-softmax of each row."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastnet.errors import HyperparameterError, ShapeError, check_int, shown
from fastnet.layers.base import Shape
from fastnet.layers.pointwise import Activation
from fastnet.op import Array, Op


class _OfRows(Op):
    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N"}
    dims = ("N",)
    inplace = True


class softmax(_OfRows):
    """y = e^(x − m)/Σ e^(x − m), m the row's maximum; dx = y·(dy − Σ dy·y)."""

    @staticmethod
    def forward(y: Array, x: Array) -> None:
        """Subtracts the maximum, so that nothing overflows and the sum is at least 1."""
        e = np.exp(x - x.max(axis=1, keepdims=True))
        np.divide(e, e.sum(axis=1, keepdims=True), out=y)

    @staticmethod
    def vjp(dx: Array, dy: Array, y: Array) -> None:
        """The Jacobian of a row is diag(y) − y·yᵀ."""
        np.multiply(y, dy - (dy * y).sum(axis=1, keepdims=True), out=dx)


class log_softmax(_OfRows):
    """y = (x − m) − log Σ e^(x − m), m the row's maximum; dx = dy − e^y·Σ dy."""

    @staticmethod
    def forward(y: Array, x: Array) -> None:
        """Takes no logarithm of a softmax, which may be 0."""
        shifted = x - x.max(axis=1, keepdims=True)
        np.subtract(shifted, np.log(np.exp(shifted).sum(axis=1, keepdims=True)), out=y)

    @staticmethod
    def vjp(dx: Array, dy: Array, y: Array) -> None:
        """The Jacobian of a row is I − 1·softmaxᵀ, and e^y is the softmax."""
        np.subtract(dy, np.exp(y) * dy.sum(axis=1, keepdims=True), out=dx)


class _Rowwise(Activation):
    def __init__(self, dim: int = -1) -> None:
        if check_int("dim", dim, low=-1) not in (-1, 1):
            raise HyperparameterError(
                f"dim is {shown(dim)}; expected -1 or 1, the features of a row"
            )
        super().__init__(dim=int(dim))

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the input; ShapeError for one feature, whose softmax is constant."""
        if shape and shape[-1] < 2:
            raise ShapeError(
                f"{self.label}: rows of {shape[-1]} feature came, of which a softmax is always 1; expected "
                "at least 2. For a probability of one output take Sigmoid, or BCEWithLogitsLoss without it"
            )
        return shape


class Softmax(_Rowwise):
    """y_c = e^x_c / Σ_k e^x_k over the features of each row: x (rows, C) → y (rows, C), rows of sum 1.

    Subtracts the row's maximum, so that nothing overflows. CrossEntropyLoss has a softmax of its own and
    needs no layer before it. NLLLoss needs LogSoftmax, which loses no digits where softmax is near 0.

    dim: -1 (default) or 1, the features. (PyTorch's default, None, guesses and warns.)
    Source: J. S. Bridle, "Probabilistic interpretation of feedforward classification network outputs", in
    Neurocomputing, NATO ASI series F 68 (1990) 227-236.
    """

    op = softmax


class LogSoftmax(_Rowwise):
    """y_c = x_c − log Σ_k e^x_k over the features of each row: x (rows, C) → y (rows, C).

    Computed from x minus the row's maximum, never as the logarithm of a softmax.

    dim: -1 (default) or 1, the features.
    Source: as for Softmax.
    """

    op = log_softmax
