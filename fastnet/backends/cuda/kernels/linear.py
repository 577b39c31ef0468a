"""The linear layer: matrix products, bias and sums of rows."""

from __future__ import annotations

from typing import Any

from fastnet.backends.cuda.device import scratch
from fastnet.backends.cuda.gemm import gemm
from fastnet.backends.cuda.kernels.loops import cells, each
from fastnet.backends.cuda.kernels.registry import launcher
from fastnet.backends.cuda.kernels.sums import column_sums
from fastnet.op import MANY_ROWS


@cells("y")
def write_bias(row: int, column: int, y: Any, b: Any) -> None:
    """Each row of y becomes the bias."""
    y[row, column] = b[column]


@launcher
def linear_forward(queue: Any, y: Any, x: Any, w: Any, b: Any) -> None:
    """y = x·w + b: writes the bias, then adds the product."""
    if b.size:
        write_bias(queue, y, b)
    gemm(queue, y, x, w, add=bool(b.size))


@launcher
def linear_vjp(
    queue: Any, dx: Any, dw: Any, db: Any, dy: Any, x: Any, w: Any, accumulate: int
) -> None:
    """dx = dy·wᵀ; dw = xᵀ·dy; db = Σ_rows dy."""
    if dx.size:
        gemm(queue, dx, dy, w, trans_b=True)
    if dw.size:
        weight_gradient(queue, dw, x, dy, accumulate)
    if db.size:
        column_sums(queue, db, dy, accumulate)


def weight_gradient(queue: Any, dw: Any, x: Any, dy: Any, accumulate: int) -> None:
    """dw ← xᵀ·dy, or dw plus that."""
    if x.shape[0] > MANY_ROWS:
        _product_of_many_rows(queue, dw, x, dy, accumulate)
    else:
        gemm(queue, dw, x, dy, trans_a=True, add=bool(accumulate))


@each("totals")
def _add_block(i: int, totals: Any, lost: Any, block: Any, first: int) -> None:
    """Add to the totals, or begin them; `lost` sums the rounding errors of the additions."""
    total, term = totals[i], block[i]
    new = total + term
    part = new - total
    totals[i] = term if first else new
    rounded = (total - (new - part)) + (term - part)
    lost[i] = totals.dtype.type(0) if first else lost[i] + rounded


@each("dw")
def _put_sum(i: int, dw: Any, totals: Any, lost: Any, accumulate: int) -> None:
    """Write or add the totals with their rounding errors, which are NaN where a total is infinite."""
    total = totals[i] + lost[i] if lost[i] == lost[i] else totals[i]
    dw[i] = dw[i] + total if accumulate else total


def _product_of_many_rows(queue: Any, dw: Any, x: Any, dy: Any, accumulate: int) -> None:
    """xᵀ·dy, from products of MANY_ROWS rows; within one, cuBLAS chooses the order of additions."""
    workspace = scratch(queue, 3 * dw.size, dw.dtype)
    totals, lost, block = (workspace[k * dw.size : (k + 1) * dw.size] for k in range(3))
    for top in range(0, x.shape[0], MANY_ROWS):
        rows = slice(top, top + MANY_ROWS)
        gemm(queue, block.reshape(dw.shape), x[rows], dy[rows], trans_a=True)
        _add_block(queue, totals, lost, block, int(top == 0))
    _put_sum(queue, dw, totals, lost, accumulate)
