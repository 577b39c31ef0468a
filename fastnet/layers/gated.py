"""Gated linear units: one half of the columns is the gate of the other."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import ShapeError
from fastnet.formulas.language import sigmoid
from fastnet.layers.base import Layer, Shape
from fastnet.op import Array, Op


class Gated(Op):
    """Base of the ops of pairs of halves x = [a, b]: N columns become H = N/2."""

    outputs: ClassVar = {"y": "B H"}
    inputs: ClassVar = {"x": "B N"}
    dims = ("H", "N")

    @classmethod
    def fitted(cls, sizes: dict[str, int]) -> dict[str, int]:
        """N = 2·H."""
        half = sizes.get("H", sizes.get("N", 0) // 2)
        return {**sizes, "H": half, "N": 2 * half}


class glu(Gated):
    """y = a·σ(b); da = dy·σ(b), db = dy·a·σ(b)·(1 − σ(b))."""

    @staticmethod
    def forward(y: Array, x: Array) -> None:
        """The first half, gated by the second."""
        a, b = halves(x)
        np.multiply(a, sigmoid(b), out=y)

    @staticmethod
    def vjp(dx: Array, dy: Array, x: Array) -> None:
        """The gradients of both halves."""
        a, b = halves(x)
        da, db = halves(dx)
        gate = sigmoid(b)
        da[...] = dy * gate
        db[...] = dy * a * gate * sigmoid(-b)


class swiglu(Gated):
    """y = a·σ(a)·b; da = dy·b·σ(a)·(1 + a·(1 − σ(a))), db = dy·a·σ(a)."""

    @staticmethod
    def forward(y: Array, x: Array) -> None:
        """The second half, gated by SiLU of the first."""
        a, b = halves(x)
        np.multiply(a * sigmoid(a), b, out=y)

    @staticmethod
    def vjp(dx: Array, dy: Array, x: Array) -> None:
        """The gradients of both halves."""
        a, b = halves(x)
        da, db = halves(dx)
        gate = sigmoid(a)
        da[...] = dy * b * gate * (1 + a * sigmoid(-a))
        db[...] = dy * (a * gate)


def halves(x: Array) -> tuple[Array, Array]:
    """Views of the first and the second half of the columns."""
    half = x.shape[1] // 2
    return x[:, :half], x[:, half:]


class _Halving(Layer, base=True):
    """Base of layers that make one column of two."""

    op: ClassVar[type[Op]]

    def width_before(self, width: int) -> int:
        """2·width."""
        return 2 * width

    def output_shape(self, shape: Shape) -> Shape:
        """(2k,) → (k,); ShapeError for an odd number of features."""
        if len(shape) != 1 or shape[0] % 2 or not shape[0]:
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came; expected an even number of features, of which "
                "the first and the second half are a pair"
            )
        return (shape[0] // 2,)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply the op."""
        return g.apply(self.op, x=x, H=int(x.shape[1]) // 2)


class GLU(_Halving):
    """y = a·σ(b), where a is the first half of the columns of x and b the second.

    x (rows, 2k) → y (rows, k), as torch.nn.GLU(dim=−1); an odd number of columns raises ShapeError.
    Source: Y. N. Dauphin et al., "Language modeling with gated convolutional networks", ICML 2017.
    """

    op = glu


class SwiGLU(_Halving):
    """y = SiLU(a)·b = a·σ(a)·b, where a is the first half of the columns of x and b the second.

    The gate comes first, as in the packed weights [gate, up] of LLaMA's feed-forward layers; GLU has it
    second.
    x (rows, 2k) → y (rows, k); an odd number of columns raises ShapeError.
    Source: N. Shazeer, "GLU variants improve Transformer", 2020, arXiv:2002.05202.
    """

    op = swiglu
