"""The linear layer's op with products in bfloat16."""

from __future__ import annotations

from collections.abc import Mapping
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


PANEL = 32  # columns of a panel of pairs


def pairs_of(w: Array) -> Array:
    """Weights (I, O), rounded to bfloat16, as pairs in panels: int64 (16·⌈O/32⌉·⌈I/2⌉,).

    A pair is a word of 32 bits: the bits of w[2u, o] below those of w[2u + 1, o], as instructions for
    bfloat16 multiply them. A panel has the pairs of 32 neighbouring columns, one u after the other. The
    panels follow each other; what lies beyond w is zero. float64 is rounded to float32 first.
    """
    inputs, outputs = w.shape
    panels, pairs = -(-outputs // PANEL), -(-inputs // 2)
    with np.errstate(over="ignore", invalid="ignore"):
        bits: Any = round_to_bfloat16(np.asarray(w, np.float32)).view(np.uint32) >> np.uint32(16)
    bits = np.where(np.isnan(w), bits | np.uint32(0x40), bits)  # a NaN's upper half may be infinity
    halves = np.zeros((2 * pairs, PANEL * panels), np.uint16)
    halves[:inputs, :outputs] = bits
    ordered = halves.reshape(pairs, 2, panels, PANEL).transpose(2, 0, 3, 1)
    found: Array = np.ascontiguousarray(ordered).ravel().view(np.int64)
    return found


def weights_of(p: Array, inputs: int, outputs: int) -> Array:
    """The rounded weights (inputs, outputs) of pairs in panels, float32; the inverse of `pairs_of`."""
    panels, pairs = -(-outputs // PANEL), -(-inputs // 2)
    halves = np.ascontiguousarray(p).view(np.uint16).reshape(panels, pairs, PANEL, 2)
    ordered = halves.transpose(1, 3, 0, 2).reshape(2 * pairs, panels * PANEL)[:inputs, :outputs]
    found: Array = (ordered.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return found


class bfloat16_pairs(Op):
    """p = r(w) as pairs in panels (see pairs_of): weights that `bfloat16_pairs_linear` reads."""

    outputs: ClassVar = {"p": "int64 P"}
    inputs: ClassVar = {"w": "I O"}
    dims = ("I", "O", "P")
    packs = True

    @staticmethod
    def forward(p: Array, w: Array) -> None:
        """p (P) of w (I, O)."""
        np.copyto(p, pairs_of(w))

    @classmethod
    def fitted(cls, sizes: dict[str, int]) -> dict[str, int]:
        """P follows from I and O."""
        return {**sizes, "P": PANEL // 2 * -(-sizes["O"] // PANEL) * -(-sizes["I"] // 2)}


class bfloat16_pairs_linear(Op):
    """y = r(x)·w + b, with w (I, O) as pairs p; the bits of `bfloat16_linear`, for prediction."""

    outputs: ClassVar = {"y": "B O"}
    inputs: ClassVar = {"x": "B I", "p": "int64 P", "b": "O"}
    optional = ("b",)
    dims = ("I", "O", "P")
    packs = True

    @staticmethod
    def forward(y: Array, x: Array, p: Array, b: Array) -> None:
        """y (B, O) = r(x) (B, I) · w (I, O) + b (O)."""
        w = weights_of(p, x.shape[1], y.shape[1])
        np.matmul(round_to_bfloat16(x), w.astype(x.dtype, copy=False), out=y)
        if b.size:
            np.add(y, b, out=y)

    @classmethod
    def fitted(cls, sizes: dict[str, int]) -> dict[str, int]:
        """P follows from I and O."""
        return bfloat16_pairs.fitted(sizes)

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """The multiplications of a row."""
        return sizes["I"] * sizes["O"]
