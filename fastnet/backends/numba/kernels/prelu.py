"""A rectifier with trained slopes."""

from __future__ import annotations

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.kernels.sums import add_block, add_lost, clear, put, rows_of_block
from fastnet.backends.numba.lowlevel import LOCAL, local, window
from fastnet.op import Array


@kernel
def prelu_forward(y: Array, x: Array, a: Array) -> None:
    """y = x where x > 0, else a[j mod A]·x."""
    zero, count = x.dtype.type(0), a.size
    for b in range(x.shape[0]):
        for j in range(x.shape[1]):
            v = x[b, j]
            y[b, j] = v if v > zero else a[j % count] * v


@kernel
def prelu_vjp(dx: Array, da: Array, dy: Array, x: Array, a: Array, accumulate: int) -> None:
    """dx = dy or a·dy; da sums dy·min(x, 0) over the rows and over the columns of a slope."""
    rows, columns = x.shape
    zero, count = x.dtype.type(0), a.size
    if dx.size > 0:
        for b in range(rows):
            for j in range(columns):
                dx[b, j] = dy[b, j] if x[b, j] > zero else a[j % count] * dy[b, j]
    if da.size == 0:
        return
    # Sum several columns of each slope side by side, then add these sums pairwise.
    repeats = 1
    while 2 * repeats * count <= LOCAL:
        repeats *= 2
    step = rows_of_block(rows)
    sums, lost, block = local(dy), local(dy), local(dy)
    for first in range(0, count, LOCAL):
        slopes = min(LOCAL, count - first)
        clear(LOCAL, sums, lost, block)
        for begin in range(first, columns, count * repeats):
            width = min(slopes * repeats, columns - begin)
            for top in range(0, rows, step):
                for i in range(top, min(top + step, rows)):
                    place = i * columns + begin
                    d, v = window(dy, place, width), window(x, place, width)
                    for j in range(width):
                        block[j] += zero if v[j] > zero else d[j] * v[j]
                add_block(sums, lost, block, width)
        add_lost(sums, lost, LOCAL)
        half = slopes * repeats // 2
        while half >= slopes:
            for j in range(half):
                sums[j] += sums[half + j]
            half //= 2
        put(da, sums, first, slopes, accumulate)
