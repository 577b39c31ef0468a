"""How instructions for bfloat16 add up, in NumPy: products as they compute them, to the bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastnet.layers.bfloat16_linear import round_to_bfloat16
from fastnet.op import Array

TINY = np.finfo(np.float32).tiny  # the smallest number that is not denormal
MANY_ROWS, ROW_BLOCK = 512, 64  # as in csrc/lib/rows.h

# C (M, N) + A (M, K) · B (K, N), of rounded operands.
Product = Callable[[Array, Array, Array], Array]


def odd_sum(a: Array, b: Array) -> Array:
    """a + b in float32, rounded to odd: toward zero, and the last bit of an inexact sum becomes 1.

    Denormal sums become zero."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    total = a + b
    part = total - a
    lost = (a - (total - part)) + (b - part)
    words = total.view(np.int64)
    towards = np.where((lost > 0) == (total > 0), words | 1, words - 1)
    total = np.where((lost != 0) & (words & 1 == 0), towards, words).view(np.float64)
    near = total.astype(np.float32)
    words = near.view(np.int32) - (np.abs(near.astype(np.float64)) > np.abs(total))
    odd = np.where(near == total, near, (words | 1).astype(np.int32).view(np.float32))
    return np.where(np.abs(odd) < TINY, np.float32(0), odd)


def by_bfdot(c: Array, a: Array, b: Array) -> Array:
    """Arm's BFDOT, with FPCR.EBF as Linux leaves it: sum + (a₀·b₀ + a₁·b₁), both sums rounded to odd."""
    for k in range(0, a.shape[1], 2):
        pairs = [a[:, i, None] * b[i] for i in range(k, min(k + 2, len(b)))]
        c = odd_sum(c, odd_sum(pairs[0], pairs[1] if len(pairs) == 2 else np.float32(0) * pairs[0]))
    return c


def linear_of(
    product: Product, given: dict[str, Array], into: dict[str, Array]
) -> dict[str, Array]:
    """y of x and w, or dx and dw of dy, x and w, by such products; `into`: what gradients start from."""
    x, w = round_to_bfloat16(given["x"]), round_to_bfloat16(given["w"])
    if "dy" not in given:
        zeros = np.zeros((len(x), w.shape[1]), np.float32)
        return {"y": product(zeros, x, w) + given.get("b", np.float32(0))}
    dy, nothing = round_to_bfloat16(given["dy"]), np.zeros_like(w)
    if len(x) <= MANY_ROWS:
        dw = product(into.get("dw", nothing), x.T, dy)
    else:
        total, lost = nothing.copy(), nothing.copy()
        for i in range(0, len(x), ROW_BLOCK):
            block = product(nothing, x[i : i + ROW_BLOCK].T, dy[i : i + ROW_BLOCK])
            both = total + block
            part = both - total
            lost += (total - (both - part)) + (block - part)
            total = both
        dw = into.get("dw", nothing) + (total + lost)
    return {"dx": product(np.zeros_like(x), dy, w.T), "dw": dw}
