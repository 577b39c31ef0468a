"""The linear layer with products in bfloat16: cuBLAS multiplies rounded copies of the operands."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import scratch
from fastnet.backends.cuda.elementary import is_single, is_tiny
from fastnet.backends.cuda.gemm import gemm
from fastnet.backends.cuda.kernels.linear import weight_gradient, write_bias
from fastnet.backends.cuda.kernels.loops import each
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.sums import column_sums

# Adding and subtracting one rounds to an integer, ties to even.
_MAGIC4, _MAGIC8 = 1.5 * 2**23, 1.5 * 2**52


@each("into")
def _round(i: int, into: Any, x: Any) -> None:
    """x rounded to bfloat16, as fastnet.layers.bfloat16_linear.round_to_bfloat16 rounds an array."""
    value = x[i]
    kind = type(value)
    fraction, exponent = math.frexp(value)
    magic = kind(_MAGIC4) if is_single(value) else kind(_MAGIC8)
    number = (kind(fraction) * kind(256) + magic) - magic
    zero = is_single(value) and is_tiny(value)
    into[i] = kind(0) * value if zero else kind(math.ldexp(number, exponent - 8))


def _rounded(queue: Any, *arrays: Any) -> list[Any]:
    """Rounded copies, in the stream's memory of a dtype that nothing else in these kernels uses."""
    kind = np.dtype(arrays[0].dtype)
    memory = scratch(queue, sum(a.size for a in arrays), f"u{kind.itemsize}").view(kind)
    begin, made = 0, []
    for array in arrays:
        copy = memory[begin : begin + array.size].reshape(array.shape)
        begin += array.size
        _round(queue, copy, array)
        made.append(copy)
    return made


@launcher
def bfloat16_linear_forward(queue: Any, y: Any, x: Any, w: Any, b: Any) -> None:
    """y = r(x)·r(w) + b: writes the bias, then adds the product."""
    if b.size:
        write_bias(queue, y, b)
    gemm(queue, y, *_rounded(queue, x, w), add=bool(b.size))


@launcher
def bfloat16_linear_vjp(
    queue: Any, dx: Any, dw: Any, db: Any, dy: Any, x: Any, w: Any, accumulate: int
) -> None:
    """dx = r(dy)·r(w)ᵀ; dw = r(x)ᵀ·r(dy); db = Σ_rows dy."""
    slope, inputs, weights = _rounded(queue, dy, x, w)
    if dx.size:
        gemm(queue, dx, slope, weights, trans_b=True)
    if dw.size:
        weight_gradient(queue, dw, inputs, slope, accumulate)
    if db.size:
        column_sums(queue, db, dy, accumulate)
