"""Gated linear units of pairs of halves."""

from __future__ import annotations

from fastnet.backends.numba.elementary import sigmoid
from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import window
from fastnet.op import Array


@kernel
def glu_forward(y: Array, x: Array) -> None:
    """y = a·σ(b)."""
    rows, half = y.shape
    for i in range(rows):
        a, b = window(x, 2 * i * half, half), window(x, (2 * i + 1) * half, half)
        to = window(y, i * half, half)
        for j in range(half):
            to[j] = a[j] * sigmoid(b[j])


@kernel
def glu_vjp(dx: Array, dy: Array, x: Array) -> None:
    """da = dy·σ(b), db = dy·a·σ(b)·σ(−b)."""
    rows, half = dy.shape
    for i in range(rows):
        a, b = window(x, 2 * i * half, half), window(x, (2 * i + 1) * half, half)
        da, db = window(dx, 2 * i * half, half), window(dx, (2 * i + 1) * half, half)
        d = window(dy, i * half, half)
        for j in range(half):
            gate = sigmoid(b[j])
            da[j] = d[j] * gate
            db[j] = d[j] * a[j] * gate * sigmoid(-b[j])


@kernel
def swiglu_forward(y: Array, x: Array) -> None:
    """y = a·σ(a)·b."""
    rows, half = y.shape
    for i in range(rows):
        a, b = window(x, 2 * i * half, half), window(x, (2 * i + 1) * half, half)
        to = window(y, i * half, half)
        for j in range(half):
            to[j] = a[j] * sigmoid(a[j]) * b[j]


@kernel
def swiglu_vjp(dx: Array, dy: Array, x: Array) -> None:
    """da = dy·b·σ(a)·(1 + a·σ(−a)), db = dy·a·σ(a)."""
    rows, half = dy.shape
    one = dy.dtype.type(1)
    for i in range(rows):
        a, b = window(x, 2 * i * half, half), window(x, (2 * i + 1) * half, half)
        da, db = window(dx, 2 * i * half, half), window(dx, (2 * i + 1) * half, half)
        d = window(dy, i * half, half)
        for j in range(half):
            gate = sigmoid(a[j])
            da[j] = d[j] * b[j] * gate * (one + a[j] * sigmoid(-a[j]))
            db[j] = d[j] * (a[j] * gate)
