"""The linear layer with products in bfloat16: BLAS multiplies rounded copies of the operands."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from fastnet.backends.numba.kernels.linear import product, sum_rows, weight_gradient
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import bits, flat
from fastnet.op import Array

_TINY = np.finfo(np.float32).tiny


def _round4(x: Any) -> Any:
    b = bits(x)
    kept = bits(np.int32((np.int64(b) + 0x7FFF + ((b >> 16) & 1)) & ~0xFFFF & 0xFFFFFFFF))
    return x if x != x else kept if abs(x) >= _TINY else np.float32(0) * x


def _round8(x: Any) -> Any:
    b = bits(x)
    kept = bits(np.int64((b + (1 << 44) - 1 + ((b >> 45) & 1)) >> 45 << 45))
    return x if x != x else kept


def round_one(x: Any) -> Any:
    """x rounded to bfloat16, as fastnet.layers.bfloat16_linear.round_to_bfloat16 rounds an array."""
    return _round4(x) if x.dtype == np.float32 else _round8(x)


@overload(round_one, jit_options={"forceinline": True})
def _round_one(x: Any) -> Any:
    return _round4 if x == types.float32 else _round8


@njit(error_model="numpy")
def rounded(x: Any) -> Any:
    """A rounded copy; allocates memory."""
    copy = np.empty_like(x)
    into, source = flat(copy), flat(x)
    for i in range(source.size):
        into[i] = round_one(source[i])
    return copy


@kernel
def bfloat16_linear_forward(y: Array, x: Array, w: Array, b: Array) -> None:
    """y = r(x)·r(w) + b: writes the bias, then adds the product."""
    rows, columns = y.shape
    zero, one = y.dtype.type(0), y.dtype.type(1)
    for i in range(rows):
        for j in range(columns):
            y[i, j] = b[j] if b.size > 0 else zero
    if rows > 0:
        product(y, rounded(x), rounded(w), False, False, one)


@kernel
def bfloat16_linear_vjp(
    dx: Array, dw: Array, db: Array, dy: Array, x: Array, w: Array, accumulate: int
) -> None:
    """dx = r(dy)·r(w)ᵀ; dw = r(x)ᵀ·r(dy); db = Σ_rows dy."""
    slope = rounded(dy)
    if dx.size > 0:
        product(dx, slope, rounded(w), False, True, dy.dtype.type(0))
    if dw.size > 0:
        weight_gradient(dw, rounded(x), slope, accumulate)
    if db.size > 0:
        sum_rows(db, dy, accumulate)
