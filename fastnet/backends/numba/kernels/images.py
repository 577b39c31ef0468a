"""Random changes of images, by four random words of each row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.numba.kernels.registry import kernel
from fastnet.backends.numba.philox import counter, philox
from fastnet.op import Array

_U, _HALF, _LOW = np.uint64, np.uint64(32), np.uint64(0xFFFFFFFF)


@njit(error_model="numpy")
def _move(
    to: Any, of: Any, b: int, width: int, depth: int, mirrored: Any, down: Any, right: Any
) -> None:
    """The image of a row, mirrored and then shifted."""
    size = to.shape[1]
    line = width * depth
    high = size // line
    zero = to.dtype.type(0)
    for i in range(high):
        for j in range(width):
            k = (high - 1 - i if mirrored & 2 else i) - down
            m = (width - 1 - j if mirrored & 1 else j) - right
            inside = 0 <= k < high and 0 <= m < width
            here, there = i * line + j * depth, k * line + m * depth
            for c in range(depth):
                to[b, here + c] = of[b, there + c] if inside else zero
    for e in range(high * line, size):
        to[b, e] = of[b, e]


@njit(error_model="numpy")
def _shift(word: Any, most: int) -> Any:
    """A uniform integer in [−most, most]."""
    return np.int64((word * _U(2 * most + 1)) >> _HALF) - most


@kernel
def move_image_forward(
    y: Array,
    x: Array,
    across: float,
    channels: float,
    down: float,
    right: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """y = x, shifted."""
    k0, k1, s0, s1, own = counter(seed, stream, step)
    for b in range(y.shape[0]):
        w0, w1, _, _ = philox(_U(b) & _LOW, s0, s1, own, k0, k1)
        shifts = _shift(w0, int(down)), _shift(w1, int(right))
        _move(y, x, b, int(across), int(channels), 0, shifts[0], shifts[1])


@kernel
def move_image_vjp(
    dx: Array,
    dy: Array,
    across: float,
    channels: float,
    down: float,
    right: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """dx = dy, shifted back."""
    k0, k1, s0, s1, own = counter(seed, stream, step)
    for b in range(dx.shape[0]):
        w0, w1, _, _ = philox(_U(b) & _LOW, s0, s1, own, k0, k1)
        shifts = _shift(w0, int(down)), _shift(w1, int(right))
        _move(dx, dy, b, int(across), int(channels), 0, -shifts[0], -shifts[1])


@kernel
def mirror_image_forward(
    y: Array,
    x: Array,
    across: float,
    channels: float,
    flips: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """y = x, mirrored or not."""
    k0, k1, s0, s1, own = counter(seed, stream, step)
    for b in range(y.shape[0]):
        _, _, w2, _ = philox(_U(b) & _LOW, s0, s1, own, k0, k1)
        _move(y, x, b, int(across), int(channels), np.int64(w2) & int(flips), 0, 0)


@kernel
def mirror_image_vjp(
    dx: Array,
    dy: Array,
    across: float,
    channels: float,
    flips: float,
    seed: int,
    step: int,
    stream: int,
) -> None:
    """The same map of dy."""
    k0, k1, s0, s1, own = counter(seed, stream, step)
    for b in range(dx.shape[0]):
        _, _, w2, _ = philox(_U(b) & _LOW, s0, s1, own, k0, k1)
        _move(dx, dy, b, int(across), int(channels), np.int64(w2) & int(flips), 0, 0)


@njit(error_model="numpy")
def _stretch(to: Any, of: Any, spread: float, seed: Any, step: Any, stream: Any) -> None:
    """to = m + f·(of − m)."""
    rows, size = to.shape
    k0, k1, s0, s1, own = counter(seed, stream, step)
    for b in range(rows):
        _, _, _, w3 = philox(_U(b) & _LOW, s0, s1, own, k0, k1)
        word = float(np.int64(w3))
        factor = to.dtype.type(1 + spread * ((2 * word + 1) * 2.0**-32 - 1))
        total = 0.0
        for e in range(size):
            total += np.float64(of[b, e])
        mean = to.dtype.type(total / size)
        for e in range(size):
            to[b, e] = mean + factor * (of[b, e] - mean)


@kernel
def contrast_forward(y: Array, x: Array, spread: float, seed: int, step: int, stream: int) -> None:
    """y = m + f·(x − m)."""
    _stretch(y, x, spread, seed, step, stream)


@kernel
def contrast_vjp(dx: Array, dy: Array, spread: float, seed: int, step: int, stream: int) -> None:
    """The same map of dy."""
    if dx.size > 0:
        _stretch(dx, dy, spread, seed, step, stream)
