"""Gated linear units of pairs of halves."""

from __future__ import annotations

from typing import Any

from fastnet.backends.cuda.elementary import sigmoid
from fastnet.backends.cuda.kernels.loops import cells
from fastnet.backends.cuda.kernels.registry import launcher


@launcher
@cells("y")
def glu_forward(row: int, column: int, y: Any, x: Any) -> None:
    """y = a·σ(b)."""
    y[row, column] = x[row, column] * sigmoid(x[row, y.shape[1] + column])


@launcher
@cells("dy")
def glu_vjp(row: int, column: int, dx: Any, dy: Any, x: Any) -> None:
    """da = dy·σ(b), db = dy·a·σ(b)·σ(−b)."""
    other = dy.shape[1] + column
    d, a, b = dy[row, column], x[row, column], x[row, other]
    gate = sigmoid(b)
    dx[row, column] = d * gate
    dx[row, other] = d * a * gate * sigmoid(-b)


@launcher
@cells("y")
def swiglu_forward(row: int, column: int, y: Any, x: Any) -> None:
    """y = a·σ(a)·b."""
    a = x[row, column]
    y[row, column] = a * sigmoid(a) * x[row, y.shape[1] + column]


@launcher
@cells("dy")
def swiglu_vjp(row: int, column: int, dx: Any, dy: Any, x: Any) -> None:
    """da = dy·b·σ(a)·(1 + a·σ(−a)), db = dy·a·σ(a)."""
    other = dy.shape[1] + column
    d, a, b = dy[row, column], x[row, column], x[row, other]
    gate = sigmoid(a)
    dx[row, column] = d * b * gate * (dy.dtype.type(1) + a * sigmoid(-a))
    dx[row, other] = d * (a * gate)
