"""Columns of two tensors side by side."""

from __future__ import annotations

from typing import Any

from fastnet.backends.cuda.kernels.loops import cells
from fastnet.backends.cuda.kernels.registry import launcher


@launcher
@cells("y")
def concat_forward(row: int, column: int, y: Any, a: Any, b: Any) -> None:
    """The columns of a, then those of b."""
    width = a.shape[1]
    y[row, column] = a[row, column] if column < width else b[row, column - width]


@cells("da")
def _first(row: int, column: int, da: Any, dy: Any) -> None:
    da[row, column] = dy[row, column]


@cells("db")
def _last(row: int, column: int, db: Any, dy: Any) -> None:
    db[row, column] = dy[row, dy.shape[1] - db.shape[1] + column]


@launcher
def concat_vjp(queue: Any, da: Any, db: Any, dy: Any) -> None:
    """Each input has its columns of the gradient."""
    if da.size:
        _first(queue, da, dy)
    if db.size:
        _last(queue, db, dy)
