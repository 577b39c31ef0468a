"""The functions of formulas on the device: libdevice's, which keep NaN and overflow to infinity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import SIMULATOR, device

# The simulator uses NumPy's, because Python's compute in float64 and raise errors.
_LIBRARY: Any = np if SIMULATOR else math
exp, expm1, log, log1p, sqrt, tanh, cos, sin = (
    getattr(_LIBRARY, name)
    for name in ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "cos", "sin")
)

_TINY = tuple(float(np.finfo(kind).tiny) for kind in ("float32", "float64"))
_TINY4, _TINY8 = _TINY


@device
def sigmoid(x: Any) -> Any:
    """1 / (1 + e^−x), computed from e^−|x|."""
    one = type(x)(1)
    e = exp(-abs(x))
    return (one if x >= type(x)(0) else e) / (one + e)


@device
def log1p_exp(x: Any) -> Any:
    """ln(1 + e^x) for x ≤ 0."""
    return log1p(exp(x))


@device
def is_single(x: Any) -> Any:
    """Whether x is a float32: in float64 adding 1e-10 to 1 changes it."""
    one = type(x)(1)
    return one + type(x)(1e-10) == one


@device
def is_tiny(x: Any) -> Any:
    """Whether x is subnormal or zero."""
    return abs(x) < (type(x)(_TINY4) if is_single(x) else type(x)(_TINY8))


@device
def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b."""
    return a if condition else b


@device
def madd(a: Any, b: Any, c: Any) -> Any:
    """a·b + c."""
    return a * b + c


@device
def sign(x: Any) -> Any:
    """−1, 1, or x where it is 0 or NaN."""
    one = type(x)(1)
    return one if x > 0 else -one if x < 0 else x


@device
def maximum(a: Any, bound: Any) -> Any:
    """The larger one; NaN if a is NaN."""
    return bound if bound > a else a


@device
def minimum(a: Any, bound: Any) -> Any:
    """The smaller one; NaN if a is NaN."""
    return bound if bound < a else a


# The functions that formulas call, by their names there.
NAMES: dict[str, Any] = {
    "where": where, "madd": madd, "sign": sign, "maximum": maximum, "minimum": minimum,
    "is_tiny": is_tiny, "abs": abs, "sigmoid": sigmoid, "log1p_exp": log1p_exp, "erf": math.erf,
    "exp": exp, "exp_below_0": exp, "expm1": expm1, "log": log, "log1p": log1p, "sqrt": sqrt, "tanh": tanh,
    "cos": cos, "sin": sin,
}  # fmt: skip
