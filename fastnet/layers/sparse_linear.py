"""The linear layer of a minibatch of sparse rows, which reads their elements alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from fastnet.op import Array, Op, put, row_products, row_sums

NEAR = 8  # multiplications by a row of w that lies in the caches take as long as one that must be fetched


class sparse_linear(Op):
    """y = X·w + b; dw = Xᵀ·dy, db = Σ_rows dy; X (B, I) has zeros but for its elements.

    Row i has the numbers x[k] in columns[k] for k from ends[i − 1] on (the first: 0), before ends[i]. The
    same elements column by column, and there row by row, are xt[k] in columns_t[k] and rows_t[k]. Of N
    numbers those from ends[B − 1] on mean nothing.
    """

    outputs: ClassVar = {"y": "B O"}
    inputs: ClassVar = {
        "x": "N",
        "columns": "int64 N",
        "ends": "int64 B",
        "w": "I O",
        "b": "O",
        "xt": "N",
        "columns_t": "int64 N",
        "rows_t": "int64 N",
    }
    optional = ("b",)
    dims = ("I", "O", "N")
    lazy = touches_rows = True

    @staticmethod
    def forward(y: Array, x: Array, columns: Array, ends: Array, w: Array, b: Array) -> None:
        """y (B, O) of the elements, w (I, O) and b (O)."""
        rows = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        np.matmul(_dense(x, columns, rows, len(ends), len(w)), w, out=y)
        if b.size:
            np.add(y, b, out=y)

    @staticmethod
    def vjp(
        dw: Array,
        db: Array,
        dy: Array,
        xt: Array,
        columns_t: Array,
        rows_t: Array,
        ends: Array,
        accumulate: int,
    ) -> None:
        """Gradients of the weights (I, O) and the bias (O) for dy (B, O)."""
        if dw.size:
            count = int(ends[-1]) if len(ends) else 0
            x = _dense(xt, columns_t, rows_t[:count], len(ends), len(dw))
            put(dw, row_products(x, dy), accumulate)
        if db.size:
            put(db, row_sums(dy), accumulate)

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """The multiplications by the elements of a row, of the fullest minibatch."""
        return NEAR * sizes["O"] * sizes["N"] // max(1, rows)


def _dense(x: Array, columns: Array, rows: Array, height: int, width: int) -> Array:
    """The matrix with the first elements, as many as there are rows."""
    made = np.zeros((height, width), x.dtype)
    np.add.at(made, (rows, columns[: len(rows)]), x[: len(rows)])
    return made
