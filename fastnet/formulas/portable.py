"""Elementary functions of float64 arrays with the same bits on every machine.

NumPy's own differ in the last bit between instruction sets. These use only additions, multiplications,
divisions and square roots, which IEEE 754 rounds in exactly one way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray
LN_2 = 0.693147180559945309417

# erf(x)/x is a polynomial of x² for |x| < 1, the first. Beyond, erf|x| = 1 − e^−x²·q/(1 + 2|x|) with the
# second one, q, of (|x| − 2)/(|x| + 2); from 6 on it rounds to 1. The lowest powers come first.
# csrc/lib/elementary.h has the same coefficients, and says where they come from.
ERF_NEAR = (
    *(1.1283791670955125738, -0.37612638903183748056, 0.11283791670954878666),
    *(-0.026866170645076793248, 0.0052239776248180144673, -0.00085483269808337899052),
    *(0.00012055331111642710923, -0.000014925595266831181565, 1.6461000484121368033e-6),
    *(-1.6350312701054695011e-7, 1.4659775274047435814e-8, -1.137284885679167367e-9),
    5.9571761477489114044e-11,
)
ERF_FAR = (
    *(1.2769783815525287212, -0.092763826585745974566, -0.16603039761529119611),
    *(0.16405128003343078877, -0.054220000991740027815, -0.008034015081439547607),
    *(0.0087226538567504472261, 0.0012713389344749737232, -0.0014568133389369066081),
    *(-0.00045434052737427712832, 0.00020635643377054064868, 0.00015104323296688812221),
    *(-1.4032896296295188993e-6, -0.000036538027494362448063, -0.000014033004419668610599),
    *(4.6395474024346053805e-6, 6.211065075417665369e-6, -1.2194400343890490579e-6),
)


def horner(coefficients: tuple[float, ...], x: Any) -> Any:
    """The polynomial with these coefficients, highest power first."""
    value = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        value = value * x + c
    return value


def log(x: Array) -> Array:
    """Natural logarithm of x > 0.

    With x = m·2ᵉ, √½ ≤ m < √2 and s = (m − 1)/(m + 1): ln x = e·ln 2 + 2 artanh(s), whose series in
    s² ≤ 0.03 ends after 12 terms.
    """
    of_mantissa, exponent = _log_parts(x)
    return np.asarray(of_mantissa + exponent * LN_2)


def log2(x: Array) -> Array:
    """Logarithm of x > 0 to base 2, exact for powers of 2."""
    of_mantissa, exponent = _log_parts(x)
    return np.asarray(of_mantissa / LN_2 + exponent)


def _log_parts(x: Array) -> tuple[Array, Array]:
    """ln m and e for x = m·2ᵉ with √½ ≤ m < √2."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < np.sqrt(0.5)
    mantissa = np.where(low, 2.0 * mantissa, mantissa)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = horner(tuple(1.0 / k for k in range(23, 0, -2)), s * s)
    return 2.0 * s * series, exponent - low


def integer_power(base: Any, exponent: Array) -> Array:
    """base (a number or an array) to integer powers ≥ 0, by multiplications."""
    with np.errstate(all="ignore"):  # unused squares may overflow
        if np.ndim(base):
            return _by_squaring(base, exponent)
        blocks = exponent // POWERS
        first, last = (blocks.min(), blocks.max()) if blocks.size else (0, 0)
        if last - first < blocks.size:  # few distinct blocks: compute each once
            high = _by_squaring(base, POWERS * np.arange(first, last + 1))[blocks - first]
        else:
            high = _by_squaring(base, POWERS * blocks)
        return np.asarray(_powers(float(base), 0)[exponent - POWERS * blocks] * high)


def _by_squaring(base: Any, exponent: Array) -> Array:
    square, left = np.asarray(base, np.float64), exponent
    result = np.ones(np.broadcast(square, left).shape)
    while left.any():
        result = np.where(left & 1, result * square, result)
        square, left = square * square, left >> 1
    return result


def powers(base: Any, first: int, count: int) -> Array:
    """`base`, a number or one for each power, to the powers first ≥ 0, first + 1, …: float64 (count,).

    Uses squaring, so that the bits do not depend on a machine's `pow`.
    """
    if np.ndim(base):
        return integer_power(base, np.arange(first, first + count))
    numbers = range(first // POWERS, (first + count - 1) // POWERS + 1)
    blocks = [_powers(base, number) for number in numbers]
    begin = first % POWERS
    return (blocks[0] if len(blocks) == 1 else np.concatenate(blocks))[begin : begin + count]


POWERS = 1024  # powers in one block; the cache keeps blocks because steps are consecutive


@lru_cache(maxsize=64)
def _powers(base: float, number: int) -> Array:
    result = np.ones(POWERS)
    square, filled = base, 1  # square = base^filled
    while filled < POWERS:
        np.multiply(result[:filled], square, out=result[filled : 2 * filled])
        square, filled = square * square, 2 * filled
    for bit in bin(number)[:1:-1]:  # times base^(number·POWERS), lowest bit first
        if bit == "1":
            result *= square
        square *= square
    return result


def exp(x: Array) -> Array:
    """eˣ for finite x ≤ 709: x = k·ln 2 + r with |r| ≤ ½ ln 2, whose series ends after 15 terms."""
    x = np.maximum(x, -800.0)  # the result is 0 already at −800
    k = np.rint(x * 1.44269504088896340736)
    r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10  # ln 2 in two parts
    series = np.ones_like(r)
    for n in range(14, 0, -1):
        series = 1.0 + series * r / n
    return np.asarray(np.ldexp(series, k.astype(np.int64)))


def power(base: Array, exponent: float) -> Array:
    """base ≥ 0 to a real power ≥ 0, with 0⁰ = 1; integers and half-integers to the last bits."""
    whole = int(exponent)
    if exponent - whole in (0.0, 0.5) and whole < 64:
        result = integer_power(base, np.full(base.shape, whole))
        return result if exponent == whole else result * np.sqrt(base)
    positive = base > 0.0
    return np.where(positive, exp(exponent * log(np.where(positive, base, 1.0))), 0.0)


def cosine_ramp(x: Array) -> Array:
    """(1 − cos πx)/2 = sin²(πx/2) for x in [0, ½], rising from 0 to ½.

    The sine is its Taylor series on [0, π/4], 9 terms, so that small values are accurate too.
    """
    z = x * 1.57079632679489661923
    square = z * z
    series = np.ones_like(z)
    for n in range(16, 0, -2):
        series = 1.0 - series * square * (1.0 / (n * (n + 1)))
    return np.asarray(np.square(z * series))
