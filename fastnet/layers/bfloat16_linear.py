"""The linear layer's op with products in bfloat16."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.op import Array, Op, put, row_products, row_sums


def round_to_bfloat16(x: Array) -> Array:
    """x rounded to the nearest bfloat16, ties to even, in an array of x's dtype and shape.

    A bfloat16 is a float32 with 8 significant bits. Infinity and NaN stay what they are; what is larger
    than the largest bfloat16 by half its last bit becomes infinity. Denormal numbers (below 2⁻¹²⁶)
    become zero, as the instructions for bfloat16 read them. float64, which serves tests, is rounded to as
    many significant bits, with its own range.

    Source: Intel, "BFLOAT16: hardware numerics definition", 2018.
    """
    x = np.asarray(x)
    kind, dropped = (np.uint64, 45) if x.dtype == np.float64 else (np.uint32, 16)
    one, shift = kind(1), kind(dropped)
    bits: Any = np.ascontiguousarray(x).view(kind)
    last = (bits >> shift) & one
    kept = ((bits + last + (one << (shift - one)) - one) >> shift) << shift
    rounded = np.where(np.isnan(x), x, kept.view(x.dtype).reshape(x.shape))
    if x.dtype == np.float32:
        rounded = np.where(
            np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(x.dtype.type(0), x), rounded
        )
    return rounded


class bfloat16_linear(Op):
    """y = r(x)·r(w) + b; dx = r(dy)·r(w)ᵀ, dw = r(x)ᵀ·r(dy), db = Σ_rows dy; r rounds to bfloat16."""

    outputs: ClassVar = {"y": "B O"}
    inputs: ClassVar = {"x": "B I", "w": "I O", "b": "O"}
    optional = ("b",)
    dims = ("I", "O")

    @staticmethod
    def forward(y: Array, x: Array, w: Array, b: Array) -> None:
        """y (B, O) = r(x) (B, I) · r(w) (I, O) + b (O)."""
        np.matmul(round_to_bfloat16(x), round_to_bfloat16(w), out=y)
        if b.size:
            np.add(y, b, out=y)

    @staticmethod
    def vjp(
        dx: Array, dw: Array, db: Array, dy: Array, x: Array, w: Array, accumulate: int
    ) -> None:
        """Gradients of the input (B, I), the weights (I, O) and the bias (O) for dy (B, O).

        The rounding counts as the identity, so that they are products of rounded operands too.
        """
        rounded = round_to_bfloat16(dy)
        if dx.size:
            np.matmul(rounded, round_to_bfloat16(w).T, out=dx)
        if dw.size:
            put(dw, row_products(round_to_bfloat16(x), rounded), accumulate)
        if db.size:
            put(db, row_sums(dy), accumulate)
