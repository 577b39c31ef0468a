"""Counter-based random numbers: every draw is a pure function of (seed, stream, step, position).

The generator is Philox4x32-10 (J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random
numbers: as easy as 1, 2, 3", SC 2011). The 64-bit seed is its key (low word first); its counter is
(block, step low, step high, stream). The generator uses only integer arithmetic, additions and
multiplications, so that the numbers are the same on every machine.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fastnet.errors import UsageError
from fastnet.formulas import language, portable
from fastnet.formulas.language import Real
from fastnet.formulas.portable import horner

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array = np.ndarray

# `words64` by a backend's native code, to the bit, once such a backend has been loaded: a call of NumPy's
# makes few numbers in many small steps.
native: Callable[[int, int, int, int, int], NDArray[np.uint64]] | None = None

# The purposes of streams. Purposes never share a counter, so equal seeds give independent draws.
DROPOUT, INIT, SHUFFLE, NOISE = range(4)
STREAMS_PER_KIND = 1 << 24
STREAMS_PER_USE = 1 << 26  # more than all purposes need
MOST_USES = 64  # of one layer, because a stream's number has 32 bits


def stream_of(kind: int, index: int = 0) -> int:
    """The stream number of the `index`-th user of one purpose (DROPOUT, INIT, SHUFFLE, NOISE)."""
    return kind * STREAMS_PER_KIND + index


def stream_of_use(stream: int, use: int) -> int:
    """The stream of a layer's use, counted from 0; use 0 has the layer's own stream."""
    if use >= MOST_USES:
        raise UsageError(
            f"a layer that draws is used more than {MOST_USES} times in one model; use copies of it "
            "(copy.deepcopy)"
        )
    return stream + use * STREAMS_PER_USE


PIECE = 1 << 14  # numbers drawn at once


def fresh_seed() -> int:
    """A seed from the operating system's entropy, short enough to read aloud."""
    return int.from_bytes(os.urandom(4), "little")


def philox4x32(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Philox4x32-10 of each row of `counter` (n, 4) under `key`; returns (n, 4) uint32."""
    c0, c1, c2, c3 = (counter[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    for _ in range(10):
        p0 = c0 * np.uint64(0xD2511F53)
        p1 = c2 * np.uint64(0xCD9E8D57)
        c0 = (p1 >> shift) ^ c1 ^ np.uint64(k0)
        c1 = p1 & low
        c2 = (p0 >> shift) ^ c3 ^ np.uint64(k1)
        c3 = p0 & low
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def blocks(count: int, seed: int, stream: int, step: int = 0, first: int = 0) -> NDArray[np.uint32]:
    """`count` blocks of a stream at a step, from block `first` on: (count, 4) uint32."""
    counter = np.empty((count, 4), np.uint32)
    counter[:, 0] = np.arange(first, first + count, dtype=np.uint32)
    counter[:, 1] = step & 0xFFFFFFFF
    counter[:, 2] = step >> 32
    counter[:, 3] = stream
    return philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))


def words(count: int, seed: int, stream: int, step: int = 0) -> NDArray[np.uint32]:
    """One uint32 for each of `count` elements, in an order that suits SIMD.

    Element e is word (e // 16) % 4 of block (e // 64)·16 + e % 16. So sixteen lanes that compute sixteen
    consecutive blocks write their four words as four whole vectors.
    """
    groups = -(-count // 64)
    drawn = blocks(groups * 16, seed, stream, step).reshape(groups, 16, 4)
    return np.ascontiguousarray(drawn.transpose(0, 2, 1)).reshape(-1)[:count]


# Rows that are part of a larger minibatch have the place of their first row there in the upper bits of the
# step, from STEP_BITS on; what draws by rows moves its words by so many rows and leaves these bits out.
STEP_BITS = 40


def at_place(step: int, place: int) -> int:
    """The step of rows whose first is row `place` of the minibatch."""
    return step | place << STEP_BITS


def words_of_rows(shape: tuple[int, ...], seed: int, stream: int, step: int) -> NDArray[np.uint32]:
    """`words` for the elements of rows, (rows, …), that begin where `at_place` has put them."""
    place, step = step >> STEP_BITS, step & (1 << STEP_BITS) - 1
    count = math.prod(shape)
    before = place * math.prod(shape[1:])
    first = before // 64
    groups = -(-(before + count) // 64) - first
    drawn = blocks(groups * 16, seed, stream, step, first * 16).reshape(groups, 16, 4)
    found = np.ascontiguousarray(drawn.transpose(0, 2, 1)).reshape(-1)
    return found[before - 64 * first :][:count].reshape(shape)


def words64(
    count: int, seed: int, stream: int, step: int = 0, first: int = 0
) -> NDArray[np.uint64]:
    """`count` draws of 64 bits from draw `first` on, which is even: two of them from each block."""
    if native is not None:
        return native(count, seed, stream, step, first)
    drawn = blocks(-(-count // 2), seed, stream, step, first // 2).astype(np.uint64)
    pairs = (drawn[:, 0::2] << np.uint64(32)) | drawn[:, 1::2]
    return pairs.reshape(-1)[:count]


def uniform(count: int, seed: int, stream: int, step: int = 0) -> NDArray[np.float64]:
    """`count` float64 in the open interval (0, 1): (k + ½)·2⁻⁵² of 52 random bits k."""
    found = np.empty(count)
    for begin in range(0, count, PIECE):  # whose words stay in the cache, and take little memory
        part = found[begin : begin + PIECE]
        part[...] = words64(len(part), seed, stream, step, begin) >> np.uint64(12)
        part += 0.5
        part *= 2.0**-52
    return found


def normal(count: int, seed: int, stream: int, step: int = 0) -> NDArray[np.float64]:
    """`count` standard normal float64: the normal quantile of `uniform`."""
    found = uniform(count, seed, stream, step)
    for begin in range(0, count, PIECE):
        part = found[begin : begin + PIECE]
        part[...] = normal_quantile(part)
    return found


def permutation(count: int, seed: int, step: int = 0, user: int = 0) -> NDArray[np.int64]:
    """A uniform permutation of range(count): the order of random keys of (seed, step).

    user: 0 for the orders of epochs, 1 for the split into training and validation.
    """
    keys = words64(count, seed, stream_of(SHUFFLE, user), step)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


# Rational approximations of the normal quantile, relative error about 1e-16: M. J. Wichura,
# "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37 (1988)
# 477-484. Highest power first.
CENTRE_OVER = (
    2.5090809287301226727e3,
    3.3430575583588128105e4,
    6.7265770927008700853e4,
    4.5921953931549871457e4,
    1.3731693765509461125e4,
    1.9715909503065514427e3,
    1.3314166789178437745e2,
    3.3871328727963666080e0,
)
CENTRE_UNDER = (
    5.2264952788528545610e3,
    2.8729085735721942674e4,
    3.9307895800092710610e4,
    2.1213794301586595867e4,
    5.3941960214247511077e3,
    6.8718700749205790830e2,
    4.2313330701600911252e1,
    1.0,
)
MIDDLE_OVER = (
    7.74545014278341407640e-4,
    2.27238449892691845833e-2,
    2.41780725177450611770e-1,
    1.27045825245236838258e0,
    3.64784832476320460504e0,
    5.76949722146069140550e0,
    4.63033784615654529590e0,
    1.42343711074968357734e0,
)
MIDDLE_UNDER = (
    1.05075007164441684324e-9,
    5.47593808499534494600e-4,
    1.51986665636164571966e-2,
    1.48103976427480074590e-1,
    6.89767334985100004550e-1,
    1.67638483018380384940e0,
    2.05319162663775882187e0,
    1.0,
)
TAIL_OVER = (
    2.01033439929228813265e-7,
    2.71155556874348757815e-5,
    1.24266094738807843860e-3,
    2.65321895265761230930e-2,
    2.96560571828504891230e-1,
    1.78482653991729133580e0,
    5.46378491116411436990e0,
    6.65790464350110377720e0,
)
TAIL_UNDER = (
    2.04426310338993978564e-15,
    1.42151175831644588870e-7,
    1.84631831751005468180e-5,
    7.86869131145613259100e-4,
    1.48753612908506148525e-2,
    1.36929880922735805310e-1,
    5.99832206555887937690e-1,
    1.0,
)


@language.formula
def central_quantile(q: Real) -> Real:
    """Φ⁻¹(½ + q) for |q| ≤ 0.425."""
    r = 0.180625 - q * q
    return q * (horner(CENTRE_OVER, r) / horner(CENTRE_UNDER, r))


@language.formula
def middle_quantile(root: Real) -> Real:
    """Φ⁻¹(1 − t) for t ≤ 0.075, given √(−ln t) ≤ 5."""
    r = root - 1.6
    return horner(MIDDLE_OVER, r) / horner(MIDDLE_UNDER, r)


def far_quantile(root: Array) -> Array:
    """Φ⁻¹(1 − t), given √(−ln t) > 5."""
    r = root - 5.0
    return np.asarray(horner(TAIL_OVER, r) / horner(TAIL_UNDER, r))


def normal_quantile(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Φ⁻¹(u) for u in (0, 1), the same bits on every machine."""
    q = u - 0.5
    z = central_quantile(q)
    outer = np.abs(q) > 0.425
    if outer.any():
        root = np.sqrt(-portable.log(np.minimum(u, 1.0 - u)[outer]))
        tail = np.where(root <= 5.0, middle_quantile(root), far_quantile(root))
        z[outer] = np.where(q[outer] < 0.0, -tail, tail)
    return np.asarray(z)


def tails(count: int, seed: int, stream: int, step: int = 0) -> NDArray[np.float64]:
    """A number for each of `count` elements: uniform in (−½, ½), with finer steps near 0.

    (k + ½)·2⁻³², where k are the lower 31 bits of the element's word (see `words`); negative if the upper
    bit is set.
    """
    word = words(count, seed, stream, step)
    size = ((word & np.uint32(0x7FFFFFFF)).astype(np.float64) + 0.5) * 2.0**-32
    return np.where(word >> np.uint32(31), -size, size)


@language.formula
def normal_of_tail(tail: Real) -> Real:
    """A standard normal z from one of `tails`: z has its sign, and |tail| of the mass lies beyond z."""
    t = abs(tail)
    q = 0.5 - t
    root = language.sqrt(-language.log(t))
    z = language.where(q > 0.425, middle_quantile(root), central_quantile(q))
    return language.sign(tail) * z
