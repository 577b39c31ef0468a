"""The linear layer: matrix products, and what is added to them."""

from __future__ import annotations

from typing import Any

from fastnet.backends.cuda.gemm import gemm
from fastnet.backends.cuda.kernels.loops import cells
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.sums import column_sums


@cells("y")
def _bias(row: int, column: int, y: Any, b: Any) -> None:
    y[row, column] = b[column]


@launcher
def linear_forward(queue: Any, y: Any, x: Any, w: Any, b: Any) -> None:
    """y = x·w + b: the bias first, the product added."""
    if b.size:
        _bias(queue, y, b)
    gemm(queue, y, x, w, add=bool(b.size))


@launcher
def linear_vjp(
    queue: Any, dx: Any, dw: Any, db: Any, dy: Any, x: Any, w: Any, accumulate: int
) -> None:
    """dx = dy·wᵀ; dw = xᵀ·dy; db = Σ_rows dy."""
    if dx.size:
        gemm(queue, dx, dy, w, flip_b=True)
    if dw.size:
        gemm(queue, dw, x, dy, flip_a=True, add=bool(accumulate))
    if db.size:
        column_sums(queue, db, dy, accumulate)
