"""Philox4x32-10 on the device: the words of fastnet.random."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends.cuda.device import device

_U = np.uint64
_LOW, _HALF = _U(0xFFFFFFFF), _U(32)
_M0, _M1, _W0, _W1 = _U(0xD2511F53), _U(0xCD9E8D57), _U(0x9E3779B9), _U(0xBB67AE85)
_SIZE = _U(0x7FFFFFFF)


@device
def counter(seed: Any, stream: Any, step: Any) -> Any:
    """(key low, key high, step low, step high, stream), each a uint64 whose upper half is zero."""
    return seed & _LOW, seed >> _HALF, step & _LOW, step >> _HALF, stream & _LOW


@device
def philox(block: Any, key: Any) -> Any:
    """The four words of a block."""
    k0, k1, c1, c2, c3 = key
    c0 = _U(block) & _LOW
    for _ in range(10):
        p0 = c0 * _M0
        p1 = c2 * _M1
        c0 = (p1 >> _HALF) ^ c1 ^ k0
        c2 = (p0 >> _HALF) ^ c3 ^ k1
        c1 = p1 & _LOW
        c3 = p0 & _LOW
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@device
def tail_of(word: Any, like: Any) -> Any:
    """fastnet.random.tails for a word, in the dtype of an array."""
    half, unit = like.dtype.type(0.5), like.dtype.type(2.0**-32)
    size = (like.dtype.type(np.int64(word & _SIZE)) + half) * unit
    return -size if word > _SIZE else size
