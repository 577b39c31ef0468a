"""Elementary functions of float64 arrays with the same bits on every machine.

NumPy's own differ in the last bit between instruction sets. These are made of additions,
multiplications, divisions and square roots alone, which IEEE 754 rounds in one way only.
"""

from __future__ import annotations

from functools import lru_cache
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


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
    mantissa, exponent = np.frexp(x)
    low = mantissa < np.sqrt(0.5)
    mantissa = np.where(low, 2.0 * mantissa, mantissa)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = horner(tuple(1.0 / k for k in range(23, 0, -2)), s * s)
    return np.asarray(2.0 * s * series + (exponent - low) * 0.693147180559945309417)


def exp(x: Array) -> Array:
    """e to the power x.

    With x = k·ln 2 + r and |r| ≤ ½ ln 2: eˣ = 2ᵏ·eʳ, whose series ends after 17 terms.
    """
    k = np.rint(x / 0.693147180559945309417)
    r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10
    series = horner(tuple(1.0 / factorial(n) for n in range(17, -1, -1)), r)
    return np.asarray(np.ldexp(series, k.astype(np.int64)))


def integer_power(base: Any, exponent: Array) -> Array:
    """base (a number or an array) to integer powers ≥ 0, by squaring."""
    left = np.asarray(exponent, np.int64)
    square, result = np.asarray(base, np.float64), np.ones(np.broadcast(base, exponent).shape)
    with np.errstate(all="ignore"):  # of squares that no exponent asks for
        while left.any():
            result = np.where(left & 1, result * square, result)
            square, left = square * square, left >> 1
    return result


def powers(base: Any, first: int, count: int) -> Array:
    """`base`, a number or one for each, to the powers first ≥ 0, first + 1, …: float64 (count,).

    By squaring: multiplications alone, so that the bits do not depend on a machine's `pow`.
    """
    if np.ndim(base):
        return integer_power(base, np.arange(first, first + count))
    numbers = range(first // POWERS, (first + count - 1) // POWERS + 1)
    blocks = [_powers(base, number) for number in numbers]
    begin = first % POWERS
    return (blocks[0] if len(blocks) == 1 else np.concatenate(blocks))[begin : begin + count]


POWERS = 1024  # in one block; those in use are kept, as steps come one after the other


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
