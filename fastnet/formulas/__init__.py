"""Formulas: their language, their derivatives, their text in Python and C, and portable functions.

These are the functions that a formula, such as one of fastnet.elementwise, may use. They take arrays too.
"""

from fastnet.formulas.language import (
    erf,
    exp,
    exp_below_0,
    expm1,
    formula,
    log,
    log1p,
    log1p_exp,
    madd,
    maximum,
    minimum,
    sigmoid,
    sign,
    sqrt,
    tanh,
    where,
)
from fastnet.formulas.portable import horner

__all__ = [
    "erf",
    "exp",
    "exp_below_0",
    "expm1",
    "formula",
    "horner",
    "log",
    "log1p",
    "log1p_exp",
    "madd",
    "maximum",
    "minimum",
    "sigmoid",
    "sign",
    "sqrt",
    "tanh",
    "where",
]
