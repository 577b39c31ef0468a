"""Row-major matrix products by cuBLAS, or by fastnet's own kernel if cuBLAS is missing."""

from __future__ import annotations

from typing import Any

from fastnet.backends.cuda import cublas
from fastnet.backends.cuda.device import SIMULATOR, cuda, enqueue, kernel, launch, syncthreads

_TILE = 2 if SIMULATOR else 16


@kernel
def _tiled(c: Any, a: Any, b: Any, inner: int, trans_a: int, trans_b: int, add: int) -> None:
    """c ← op(a)·op(b), or c plus it; one block computes a tile of c from tiles of a and b."""
    left = cuda.shared.array((_TILE, _TILE), c.dtype)
    right = cuda.shared.array((_TILE, _TILE), c.dtype)
    rows, columns = c.shape
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    # Rows and columns share the grid's first dimension, because the second is too short for many columns.
    across = (columns + _TILE - 1) // _TILE
    top = cuda.blockIdx.x // across * _TILE
    side = cuda.blockIdx.x % across * _TILE
    zero = c.dtype.type(0)
    total = zero
    for first in range(0, inner, _TILE):
        # Neighbouring threads read neighbouring elements, transposed or not.
        if trans_a:
            k, i = first + y, top + x
            left[x, y] = a[k, i] if k < inner and i < rows else zero
        else:
            i, k = top + y, first + x
            left[y, x] = a[i, k] if k < inner and i < rows else zero
        if trans_b:
            j, k = side + y, first + x
            right[x, y] = b[j, k] if k < inner and j < columns else zero
        else:
            k, j = first + y, side + x
            right[y, x] = b[k, j] if k < inner and j < columns else zero
        syncthreads()
        for k in range(_TILE):
            total += left[y, k] * right[k, x]
        syncthreads()
    i, j = top + y, side + x
    if i < rows and j < columns:
        c[i, j] = c[i, j] + total if add else total


def gemm(
    queue: Any,
    c: Any,
    a: Any,
    b: Any,
    *,
    trans_a: bool = False,
    trans_b: bool = False,
    add: bool = False,
) -> None:
    """c ← op(a)·op(b), or with `add` c plus it; op transposes if its flag is set."""
    if not c.size:
        return
    inner = a.shape[0] if trans_a else a.shape[1]
    if inner and cublas.handle(queue):
        enqueue(queue, cublas.product, c, a, b, inner, trans_a, trans_b, add)
        return
    blocks = -(-c.shape[0] // _TILE) * -(-c.shape[1] // _TILE)
    given = inner, int(trans_a), int(trans_b), int(add)
    launch(_tiled, blocks, (_TILE, _TILE), queue, c, a, b, *given)
