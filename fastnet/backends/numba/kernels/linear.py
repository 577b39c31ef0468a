"""The linear layer: NumPy's BLAS for products that are worth the call, loops for the tiny ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.blas import FOUND, gemm
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import PLAIN
from fastnet.op import Array

# Multiplications below which a loop beats the call of BLAS.
_TINY = 0 if PLAIN else 256 if FOUND else 1 << 62


@njit(error_model="numpy")
def _add_product(c: Any, a: Any, b: Any) -> None:
    """c += a·b."""
    rows, inner = a.shape
    columns = b.shape[1]
    for i in range(rows):
        for k in range(inner):
            factor = a[i, k]
            for j in range(columns):
                c[i, j] += factor * b[k, j]


@njit(error_model="numpy")
def _put_product_of_transposed(c: Any, a: Any, b: Any) -> None:
    """c = a·bᵀ."""
    rows, inner = a.shape
    columns = b.shape[0]
    for i in range(rows):
        for j in range(columns):
            total = a.dtype.type(0)
            for k in range(inner):
                total += a[i, k] * b[j, k]
            c[i, j] = total


@njit(error_model="numpy")
def _add_product_with_transposed(c: Any, a: Any, b: Any) -> None:
    """c += aᵀ·b."""
    inner, rows = a.shape
    columns = b.shape[1]
    for k in range(inner):
        for i in range(rows):
            factor = a[k, i]
            for j in range(columns):
                c[i, j] += factor * b[k, j]


if PLAIN:

    def _gemm(c: Any, a: Any, b: Any, flip_a: bool, flip_b: bool, beta: Any) -> None:
        product = (a.T if flip_a else a) @ (b.T if flip_b else b)
        np.copyto(c, product + c if beta else product)
elif FOUND:
    _gemm = gemm
else:

    @njit
    def _gemm(c: Any, a: Any, b: Any, flip_a: bool, flip_b: bool, beta: Any) -> None:
        pass  # never reached: every product counts as tiny


@kernel
def linear_forward(y: Array, x: Array, w: Array, b: Array) -> None:
    """y = x·w + b: the bias first, the product added."""
    rows, columns = y.shape
    zero = y.dtype.type(0)
    for i in range(rows):
        for j in range(columns):
            y[i, j] = b[j] if b.size > 0 else zero
    if x.size * columns < _TINY:
        _add_product(y, x, w)
    elif rows > 0:
        _gemm(y, x, w, False, False, y.dtype.type(1))


@kernel
def linear_vjp(
    dx: Array, dw: Array, db: Array, dy: Array, x: Array, w: Array, accumulate: int
) -> None:
    """dx = dy·wᵀ; dw = xᵀ·dy; db = Σ_rows dy."""
    rows, columns = dy.shape
    zero, one = dy.dtype.type(0), dy.dtype.type(1)
    tiny = x.size * columns < _TINY
    if dx.size > 0:
        if tiny:
            _put_product_of_transposed(dx, dy, w)
        else:
            _gemm(dx, dy, w, False, True, zero)
    if dw.size > 0:
        if tiny:
            if not accumulate:
                dw[:] = zero
            _add_product_with_transposed(dw, x, dy)
        else:
            _gemm(dw, x, dy, True, False, one if accumulate else zero)
    if db.size > 0:
        if not accumulate:
            db[:] = zero
        for i in range(rows):
            for j in range(columns):
                db[j] += dy[i, j]
