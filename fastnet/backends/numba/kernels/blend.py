"""x moved towards f(x), a trained share of the way; gradients by blocks of LOCAL columns."""

from __future__ import annotations

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.kernels.sums import add_block, add_lost, clear, put, rows_of_block
from fastnet.backends.numba.lowlevel import LOCAL, copy, local, window
from fastnet.op import Array


@kernel
def blend_forward(y: Array, x: Array, f: Array, a: Array) -> None:
    """y = x + a·(f − x) by columns."""
    copy(y, x)
    rows, columns = y.shape
    for i in range(rows):
        to, other = window(y, i * columns, columns), window(f, i * columns, columns)
        for j in range(columns):
            to[j] += a[j] * (other[j] - to[j])


@kernel
def blend_vjp(
    dx: Array, dy: Array, df: Array, da: Array, x: Array, f: Array, a: Array, accumulate: int
) -> None:
    """da = Σ_rows dy·(f − x), df = dy·a; then dx = dy·(1 − a), which may overwrite dy."""
    rows, columns = dy.shape
    if da.size > 0:
        step = rows_of_block(rows)
        sums, lost, block = local(dy), local(dy), local(dy)
        for begin in range(0, columns, LOCAL):
            width = min(LOCAL, columns - begin)
            clear(width, sums, lost, block)
            for top in range(0, rows, step):
                for i in range(top, min(top + step, rows)):
                    place = i * columns + begin
                    d = window(dy, place, width)
                    u, v = window(x, place, width), window(f, place, width)
                    for j in range(width):
                        block[j] += d[j] * (v[j] - u[j])
                add_block(sums, lost, block, width)
            add_lost(sums, lost, width)
            put(da, sums, begin, width, accumulate)
    if df.size > 0:
        for i in range(rows):
            to, d = window(df, i * columns, columns), window(dy, i * columns, columns)
            for j in range(columns):
                to[j] = d[j] * a[j]
    if dx.size > 0:
        copy(dx, dy)
        for i in range(rows):
            to = window(dx, i * columns, columns)
            for j in range(columns):
                to[j] *= 1 - a[j]
