"""Elementary functions from additions and multiplications, which LLVM vectorises.

Exponentials reduce x = n·ln 2 + r with |r| ≤ ½ ln 2 and use a Taylor polynomial for e^r − 1. All keep NaN,
overflow to infinity, underflow gradually and compute in the dtype of x, float32 or float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from fastnet.backends.numba.lowlevel import bits
from fastnet.formulas.portable import ERF_FAR, ERF_NEAR

_f4, _f8 = np.float32, np.float64

# For each dtype: below the first limit e^x is 0, above the second it is infinite. Adding the magic number
# rounds to an integer and leaves it in the low bits. ln 2 has two parts, the first with so few bits that
# its products with n are exact.
_LOW4, _HIGH4, _LOW8, _HIGH8 = _f4(-104), _f4(89), _f8(-746), _f8(710)
_MAGIC4, _MAGIC8 = _f4(1.5 * 2**23), _f8(1.5 * 2**52)
_MAGIC_BITS4, _MAGIC_BITS8 = int(_MAGIC4.view(np.int32)), int(_MAGIC8.view(np.int64))
_LOG2E4, _LOG2E8 = _f4(1.4426950408889634), _f8(1.4426950408889634)
_HEAD4, _TAIL4 = _f4(0.693359375), _f4(-2.12194440054690583e-4)
_HEAD8, _TAIL8 = _f8(6.93145751953125e-1), _f8(1.42860682030941723212e-6)

# 1/2!, 1/3!, …: as many terms as each precision needs.
_TERMS = np.cumprod(1.0 / np.arange(1.0, 14.0))[1:]
_A2, _A3, _A4, _A5, _A6, _A7 = (_f4(c) for c in _TERMS[:6])
_B2, _B3, _B4, _B5, _B6, _B7, _B8, _B9, _B10, _B11, _B12, _B13 = (_f8(c) for c in _TERMS)


def _reduce4(x: Any) -> Any:
    x = _LOW4 if x < _LOW4 else x
    x = _HIGH4 if x > _HIGH4 else x
    rounded = x * _LOG2E4 + _MAGIC4
    n = rounded - _MAGIC4
    r = (x - n * _HEAD4) - n * _TAIL4
    q = _A2 + r * (_A3 + r * (_A4 + r * (_A5 + r * (_A6 + r * _A7))))
    return r + r * r * q, bits(rounded) - _MAGIC_BITS4


def _reduce8(x: Any) -> Any:
    x = _LOW8 if x < _LOW8 else x
    x = _HIGH8 if x > _HIGH8 else x
    rounded = x * _LOG2E8 + _MAGIC8
    n = rounded - _MAGIC8
    r = (x - n * _HEAD8) - n * _TAIL8
    q = _B8 + r * (_B9 + r * (_B10 + r * (_B11 + r * (_B12 + r * _B13))))
    q = _B2 + r * (_B3 + r * (_B4 + r * (_B5 + r * (_B6 + r * (_B7 + r * q)))))
    return r + r * r * q, bits(rounded) - _MAGIC_BITS8


def _power4(n: Any, x: Any) -> Any:
    return bits(np.int32((n + 127) << 23))


def _power8(n: Any, x: Any) -> Any:
    return bits(np.int64((n + 1023) << 52))


def reduce(x: Any) -> Any:
    """(e^r − 1, n) with x = n·ln 2 + r; x is clamped to the limits of e^x first."""
    return _reduce4(x) if x.dtype == np.float32 else _reduce8(x)


def power(n: Any, x: Any) -> Any:
    """2ⁿ in the dtype of x, for n in the range of normal numbers."""
    return _power4(n, x) if x.dtype == np.float32 else _power8(n, x)


@overload(reduce, jit_options={"forceinline": True})
def _reduce(x: Any) -> Any:
    return _reduce4 if x == types.float32 else _reduce8


@overload(power, jit_options={"forceinline": True})
def _power(n: Any, x: Any) -> Any:
    return _power4 if x == types.float32 else _power8


# 2/3, 2/5, …: 2 artanh s = 2s + s³·(their polynomial in s²).
_TERMS = 2.0 / np.arange(3.0, 33.0, 2.0)
_S1, _S2, _S3, _S4, _S5, _S6 = (_f4(c) for c in _TERMS[:6])
(_T1, _T2, _T3, _T4, _T5, _T6, _T7, _T8, _T9, _T10, _T11, _T12, _T13, _T14, _T15) = _TERMS.tolist()


def _artanh4(z: Any) -> Any:
    return _S1 + z * (_S2 + z * (_S3 + z * (_S4 + z * (_S5 + z * _S6))))


def _artanh8(z: Any) -> Any:
    q = _T9 + z * (_T10 + z * (_T11 + z * (_T12 + z * (_T13 + z * (_T14 + z * _T15)))))
    return _T1 + z * (
        _T2 + z * (_T3 + z * (_T4 + z * (_T5 + z * (_T6 + z * (_T7 + z * (_T8 + z * q))))))
    )


def artanh_series(z: Any) -> Any:
    """(2 artanh s − 2s)/s³ for z = s² ≤ 1/9."""
    return _artanh4(z) if z.dtype == np.float32 else _artanh8(z)


@overload(artanh_series, jit_options={"forceinline": True})
def _artanh_series(z: Any) -> Any:
    return _artanh4 if z == types.float32 else _artanh8


_TINY4, _TINY8 = _f4(np.finfo(_f4).tiny), _f8(np.finfo(_f8).tiny)


def _is_tiny4(x: Any) -> Any:
    return abs(x) < _TINY4


def _is_tiny8(x: Any) -> Any:
    return abs(x) < _TINY8


def is_tiny(x: Any) -> Any:
    """Whether x is subnormal or zero."""
    return _is_tiny4(x) if x.dtype == np.float32 else _is_tiny8(x)


@overload(is_tiny, jit_options={"forceinline": True})
def _is_tiny(x: Any) -> Any:
    return _is_tiny4 if x == types.float32 else _is_tiny8


@njit(error_model="numpy", forceinline=True)
def exp(x: Any) -> Any:
    """e^x. It multiplies by the power of 2 in two halves, because n may exceed the range of exponents."""
    one = type(x)(1)
    p, n = reduce(x)
    half = n >> 1
    return (one + p) * power(half, x) * power(n - half, x)


@njit(error_model="numpy", forceinline=True)
def sigmoid(x: Any) -> Any:
    """1 / (1 + e^−x), computed from e^−|x|."""
    one = type(x)(1)
    e = exp(-abs(x))
    return (one if x >= type(x)(0) else e) / (one + e)


@njit(error_model="numpy", forceinline=True)
def log1p_exp(x: Any) -> Any:
    """ln(1 + e^x) for x ≤ 0, as 2 artanh s with s = e/(2 + e) ≤ 1/3."""
    two, e = type(x)(2), exp(x)
    s = e / (two + e)
    z = s * s
    return two * s + s * z * artanh_series(z)


@njit(error_model="numpy", forceinline=True)
def tanh(x: Any) -> Any:
    """(e^2x − 1) / (e^2x + 1), computed from e^2x − 1, which is accurate near 0."""
    one, two, limit = type(x)(1), type(x)(2), type(x)(22)
    a = limit if x > limit else x
    a = -limit if a < -limit else a
    p, n = reduce(two * a)
    scale = power(n, x)
    e = p * scale + (scale - one)
    return e / (e + two)


@njit(error_model="numpy", forceinline=True)
def expm1(x: Any) -> Any:
    """e^x − 1 = 2ⁿ(e^r − 1) + (2ⁿ − 1), computed with 2ⁿ⁻¹ and doubled, because 2ⁿ may overflow."""
    half, two, low = type(x)(0.5), type(x)(2), type(x)(-40)
    p, n = reduce(low if x < low else x)
    scale = power(n - 1, x)
    return two * (scale * p + (scale - half))


# ln 2 in two parts, the first with so few bits that n times it is exact.
_LN_HEAD4, _LN_TAIL4 = _f4(0.693359375), _f4(-2.12194440054690583e-4)
_LN_HEAD8, _LN_TAIL8 = _f8(6.93147180369123816490e-01), _f8(1.90821492927058770002e-10)
_HALF4, _HALF8 = int(_f4(0.5**0.5).view(np.int32)), int(_f8(0.5**0.5).view(np.int64))
_SCALE4, _SCALE8 = _f4(2**24), _f8(2**53)


def _split4(x: Any) -> Any:
    tiny = x < _TINY4
    b = bits(x * (_SCALE4 if tiny else _f4(1))) - np.int32(_HALF4)
    e = (b >> 23) - np.int32(24 if tiny else 0)
    m = bits(np.int32((b & np.int32(0x7FFFFF)) + _HALF4))
    return m, _f4(e) * _LN_HEAD4, _f4(e) * _LN_TAIL4


def _split8(x: Any) -> Any:
    tiny = x < _TINY8
    b = bits(x * (_SCALE8 if tiny else _f8(1))) - np.int64(_HALF8)
    e = (b >> 52) - np.int64(53 if tiny else 0)
    m = bits(np.int64((b & np.int64(0xFFFFFFFFFFFFF)) + _HALF8))
    return m, _f8(e) * _LN_HEAD8, _f8(e) * _LN_TAIL8


def split(x: Any) -> Any:
    """(m, e·ln 2 in two parts) of x = m·2ᵉ > 0, √½ ≤ m < √2."""
    return _split4(x) if x.dtype == np.float32 else _split8(x)


@overload(split, jit_options={"forceinline": True})
def _split(x: Any) -> Any:
    return _split4 if x == types.float32 else _split8


@njit(error_model="numpy", forceinline=True)
def log(x: Any) -> Any:
    """ln x: for f = m − 1, s = f/(2 + f), z = s² and R as in log1p_exp, ln m = f − f²/2 + s(f²/2 + z·R)."""
    zero, half, two, infinite = type(x)(0), type(x)(0.5), type(x)(2), type(x)(np.inf)
    m, head, tail = split(x)
    f = m - type(x)(1)
    s = f / (two + f)
    z = s * s
    square = half * f * f
    small = s * (z * artanh_series(z) + square) + tail
    result = head + (f - (square - small))
    special = -infinite if x == zero else (x if x > zero else type(x)(np.nan))
    return result if (x > zero) & (x < infinite) else special


@njit(error_model="numpy", forceinline=True)
def log1p(x: Any) -> Any:
    """ln(1 + x): of u = 1 + x rounded, plus what rounding lost, over u."""
    zero, one, infinite = type(x)(0), type(x)(1), type(x)(np.inf)
    u = one + x
    lost = (x - (u - one)) / u
    return log(u) + (lost if (u > zero) & (u < infinite) else zero)


# float32: 1 − erf(|x|) = (1 − p/8)⁸. float64: a polynomial of x² below 1, 1 − e^−x²·q/(1 + 2|x|) beyond.
# csrc/lib/elementary.h has the same coefficients, and says where they come from.
_REST = tuple(
    _f4(c)
    for c in (
        *(5.94212963e-08, 0.557042956, 0.0167108737, -0.0527085811),
        *(-0.00149804156, 0.00410592416, -0.000712063513, 3.85647181e-05),
    )
)


def _horner(coefficients: tuple[Any, ...]) -> Any:
    """A function of x, which LLVM vectorises: the polynomial with these coefficients, lowest first."""
    names = [f"c{i}" for i in range(len(coefficients))]
    value = names[-1]
    for name in names[-2::-1]:
        value = f"{name} + x * ({value})"
    known = dict(zip(names, coefficients, strict=True)) | {"__name__": __name__}
    exec(f"def polynomial(x):\n    return {value}", known)
    return njit(error_model="numpy", forceinline=True)(known["polynomial"])


_rest, _near, _far = _horner(_REST), _horner(ERF_NEAR), _horner(ERF_FAR)


def _erf4(x: Any) -> Any:
    one, a = _f4(1), abs(x)
    p = a * _f4(1.12837911) + a * _rest(a)
    q = p * _f4(-0.0625) * p + p
    r = q * _f4(-0.125) * q + q
    result = one if a >= _f4(3.93) else r * _f4(-0.25) * r + r
    return -result if x < _f4(0) else result


def _erf8(x: Any) -> Any:
    one, two, a = _f8(1), _f8(2), abs(x)
    large = one - exp(-a * a) * _far((a - two) / (a + two)) / (one + two * a)
    result = a * _near(a * a) if a < one else large
    result = one if a >= _f8(6) else result
    return -result if x < _f8(0) else result


def erf(x: Any) -> Any:
    """The error function."""
    return _erf4(x) if x.dtype == np.float32 else _erf8(x)


@overload(erf, jit_options={"forceinline": True})
def _erf(x: Any) -> Any:
    return _erf4 if x == types.float32 else _erf8
