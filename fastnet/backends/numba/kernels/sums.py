"""Sums of gradients and over rows; beyond MANY_ROWS rows, sums of blocks are added with compensation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import flat, window
from fastnet.op import MANY_ROWS, ROW_BLOCK, Array


@kernel
def add_to_forward(y: Array, x: Array) -> None:
    """y ← y + x."""
    into, of = flat(y), flat(x)
    for i in range(into.size):
        into[i] += of[i]


@njit(error_model="numpy")
def rows_of_block(rows: int) -> int:
    """The number of rows that are added without compensation."""
    return ROW_BLOCK if rows > MANY_ROWS else max(rows, 1)


@njit(error_model="numpy")
def clear(width: int, *sums: Any) -> None:
    """Set the first `width` elements of each array to 0."""
    for values in sums:
        for j in range(width):
            values[j] = values.dtype.type(0)


@njit(error_model="numpy")
def add_block(totals: Any, lost: Any, block: Any, width: int) -> None:
    """Add a block's sums to the totals and the rounding errors to `lost`; clears the block."""
    for j in range(width):
        total = totals[j]
        new = total + block[j]
        part = new - total
        lost[j] += (total - (new - part)) + (block[j] - part)
        totals[j] = new
        block[j] = block.dtype.type(0)


@njit(error_model="numpy")
def add_lost(totals: Any, lost: Any, width: int) -> None:
    """Add the rounding errors to the totals; they are NaN where a total is infinite."""
    for j in range(width):
        if not np.isnan(lost[j]):
            totals[j] += lost[j]


@njit(error_model="numpy")
def put(into: Any, values: Any, begin: int, width: int, accumulate: int) -> None:
    """Write or add the gradients of `width` parameters, unless they are absent."""
    if into.size > 0:
        a = window(into, begin, width)
        for j in range(width):
            a[j] = values[j] + a[j] if accumulate else values[j]
