"""Philox4x32-10 in jitted code: the words of fastnet.random, 64 at a time from 16 consecutive blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fastnet.random import STEP_BITS

_U = np.uint64
_LOW, _HALF = _U(0xFFFFFFFF), _U(32)
_M0, _M1, _W0, _W1 = _U(0xD2511F53), _U(0xCD9E8D57), _U(0x9E3779B9), _U(0xBB67AE85)
_SIZE = _U(0x7FFFFFFF)
_PLACE, _STEP = _U(STEP_BITS), _U((1 << STEP_BITS) - 1)


@njit(forceinline=True)
def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Philox4x32-10; a word is a uint64 whose upper half is zero."""
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@njit(forceinline=True)
def counter(seed: Any, stream: Any, step: Any) -> Any:
    """(key low, key high, step low, step high, stream), as words."""
    k, s = _U(seed), _U(step)
    return k & _LOW, k >> _HALF, s & _LOW, s >> _HALF, _U(stream)


@njit(forceinline=True)
def place_of(step: Any) -> Any:
    """The place of the first row, and the step without it (see fastnet.random.at_place)."""
    s = _U(step)
    return np.int64(s >> _PLACE), s & _STEP


@njit(forceinline=True)
def _tail(word: Any, like: Any) -> Any:
    half, unit = like.dtype.type(0.5), like.dtype.type(2.0**-32)
    size = (like.dtype.type(np.int64(word & _SIZE)) + half) * unit
    return -size if word > _SIZE else size


@njit(error_model="numpy")
def draw_tails(tail: Any, group: int, seed: Any, stream: Any, step: Any) -> None:
    """fastnet.random.tails for the elements 64·group … 64·group + 63."""
    k0, k1, s0, s1, own = counter(seed, stream, step)
    for lane in range(16):
        block = _U(group * 16 + lane) & _LOW
        w0, w1, w2, w3 = philox(block, s0, s1, own, k0, k1)
        tail[lane], tail[lane + 16] = _tail(w0, tail), _tail(w1, tail)
        tail[lane + 32], tail[lane + 48] = _tail(w2, tail), _tail(w3, tail)
