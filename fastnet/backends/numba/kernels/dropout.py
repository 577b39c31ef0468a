"""Dropout, with the random words of fastnet.random."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import copy, flat, window
from fastnet.op import Array

_U = np.uint64
_LOW, _HALF = _U(0xFFFFFFFF), _U(32)
_M0, _M1, _W0, _W1 = _U(0xD2511F53), _U(0xCD9E8D57), _U(0x9E3779B9), _U(0xBB67AE85)


@njit(forceinline=True)
def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Philox4x32-10; words are uint64 whose upper halves are zero."""
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@njit(error_model="numpy")
def _mask(a: Any, threshold: float, scale: float, seed: Any, step: Any, stream: Any) -> None:
    """Scale or zero each element of a, in place: 64 elements from 16 neighbouring blocks."""
    least, factor, zero = _U(threshold), a.dtype.type(scale), a.dtype.type(0)
    k0, k1 = _U(seed) & _LOW, _U(seed) >> _HALF
    s0, s1, own = _U(step) & _LOW, _U(step) >> _HALF, _U(stream)
    whole = a.size // 64
    for group in range(whole):
        b = window(a, group * 64, 64)
        for lane in range(16):
            block = _U(group * 16 + lane) & _LOW
            w0, w1, w2, w3 = _philox(block, s0, s1, own, k0, k1)
            v0, v1, v2, v3 = b[lane], b[lane + 16], b[lane + 32], b[lane + 48]
            b[lane] = v0 * factor if w0 >= least else zero
            b[lane + 16] = v1 * factor if w1 >= least else zero
            b[lane + 32] = v2 * factor if w2 >= least else zero
            b[lane + 48] = v3 * factor if w3 >= least else zero
    for e in range(whole * 64, a.size):
        block = _U(whole * 16 + e % 16) & _LOW
        words = _philox(block, s0, s1, own, k0, k1)
        a[e] = a[e] * factor if words[(e // 16) % 4] >= least else zero


@kernel
def dropout_forward(
    y: Array, x: Array, threshold: float, scale: float, seed: int, step: int, stream: int
) -> None:
    """y = scale·x where the element's word is at least the threshold, else 0."""
    copy(y, x)
    _mask(flat(y), threshold, scale, seed, step, stream)


@kernel
def dropout_vjp(
    dx: Array, dy: Array, threshold: float, scale: float, seed: int, step: int, stream: int
) -> None:
    """The same map as forward, with the same mask."""
    copy(dx, dy)
    _mask(flat(dx), threshold, scale, seed, step, stream)
