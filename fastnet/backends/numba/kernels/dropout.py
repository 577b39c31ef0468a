"""Dropout, with the random words of fastnet.random."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.lowlevel import copy, flat, window
from fastnet.backends.numba.philox import counter, philox, place_of
from fastnet.op import Array

_U, _LOW = np.uint64, np.uint64(0xFFFFFFFF)


@njit(error_model="numpy")
def _map(
    a: Any,
    threshold: float,
    scale: float,
    kept: float,
    dropped: float,
    seed: Any,
    step: Any,
    stream: Any,
    width: int,
) -> None:
    """Make scale·v + kept or `dropped` of each element v of a: 64 elements from 16 consecutive blocks.

    width: elements of a row.
    """
    least, factor = _U(threshold), a.dtype.type(scale)
    more, other = a.dtype.type(kept), a.dtype.type(dropped)
    place, own_step = place_of(step)
    k0, k1, s0, s1, own = counter(seed, stream, own_step)
    before = place * width  # elements of rows before these
    first = before // 64
    whole = 0 if before % 64 else a.size // 64
    for group in range(whole):
        b = window(a, group * 64, 64)
        for lane in range(16):
            block = _U((first + group) * 16 + lane) & _LOW
            w0, w1, w2, w3 = philox(block, s0, s1, own, k0, k1)
            v0, v1, v2, v3 = b[lane], b[lane + 16], b[lane + 32], b[lane + 48]
            b[lane] = v0 * factor + more if w0 >= least else other
            b[lane + 16] = v1 * factor + more if w1 >= least else other
            b[lane + 32] = v2 * factor + more if w2 >= least else other
            b[lane + 48] = v3 * factor + more if w3 >= least else other
    for e in range(whole * 64, a.size):
        at = before + e
        block = _U(at // 64 * 16 + at % 16) & _LOW
        words = philox(block, s0, s1, own, k0, k1)
        a[e] = a[e] * factor + more if words[(at // 16) % 4] >= least else other


@njit(error_model="numpy")
def _mask(
    a: Any, threshold: float, scale: float, seed: Any, step: Any, stream: Any, width: int
) -> None:
    """Scale or zero each element of a, in place."""
    _map(a, threshold, scale, 0.0, 0.0, seed, step, stream, width)


@njit(forceinline=True)
def _width(rows: Any) -> Any:
    """The elements of a row."""
    return rows.size // max(1, rows.shape[0])


@kernel
def dropout_forward(
    y: Array, x: Array, threshold: float, scale: float, seed: int, step: int, stream: int
) -> None:
    """y = scale·x where the element's word is at least the threshold, else 0."""
    copy(y, x)
    _mask(flat(y), threshold, scale, seed, step, stream, _width(y))


@kernel
def dropout_vjp(
    dx: Array, dy: Array, threshold: float, scale: float, seed: int, step: int, stream: int
) -> None:
    """The same map as forward, with the same mask."""
    copy(dx, dy)
    _mask(flat(dx), threshold, scale, seed, step, stream, _width(dx))


@kernel
def scheduled_dropout_forward(
    y: Array, x: Array, n: Array, seed: int, step: int, stream: int
) -> None:
    """The same with a threshold and a scale of the step."""
    copy(y, x)
    _mask(flat(y), n[0], n[1], seed, step, stream, _width(y))


@kernel
def scheduled_dropout_vjp(
    dx: Array, dy: Array, n: Array, seed: int, step: int, stream: int
) -> None:
    """The same map as forward."""
    copy(dx, dy)
    _mask(flat(dx), n[0], n[1], seed, step, stream, _width(dx))


@kernel
def relu_dropout_forward(
    y: Array, x: Array, threshold: float, scale: float, seed: int, step: int, stream: int
) -> None:
    """y = scale·max(x, 0) where the element's word is at least the threshold, else 0."""
    to, source, zero = flat(y), flat(x), x.dtype.type(0)
    for e in range(to.size):
        to[e] = zero if source[e] <= zero else source[e]
    _mask(to, threshold, scale, seed, step, stream, _width(y))


@kernel
def alpha_dropout_forward(
    y: Array,
    x: Array,
    threshold: float,
    scale: float,
    kept: float,
    dropped: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """y = scale·x + kept where the element's word is at least the threshold, else dropped."""
    copy(y, x)
    _map(flat(y), threshold, scale, kept, dropped, seed, step, stream, _width(y))


@kernel
def alpha_dropout_vjp(
    dx: Array, dy: Array, threshold: float, scale: float, seed: int, step: int, stream: int
) -> None:
    """Dropout of dy."""
    copy(dx, dy)
    _mask(flat(dx), threshold, scale, seed, step, stream, _width(dx))
