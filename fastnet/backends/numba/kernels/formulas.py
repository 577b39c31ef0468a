"""Kernels of formulas: loops over elements, made from the formulas that ops declare.

A kernel that may work in place copies its first input to its output and works there. Then its loop has one
array less that could overlap another.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.base import kernel_of
from fastnet.backends.numba import elementary
from fastnet.backends.numba.kernels.registry import FUNCTIONS
from fastnet.backends.numba.lowlevel import LOCAL, copy, flat, local
from fastnet.backends.numba.philox import draw_tails
from fastnet.formulas.language import COUNTER, RowSum
from fastnet.formulas.python_text import PythonText
from fastnet.formulas.translate import indented
from fastnet.late import load_ops
from fastnet.op import KERNELS, Kernel

compiled = njit(error_model="numpy", forceinline=True)


@compiled
def _where(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


@compiled
def _madd(a: Any, b: Any, c: Any) -> Any:
    return a * b + c


@compiled
def _sign(x: Any) -> Any:
    one = type(x)(1)
    return one if x > 0 else -one if x < 0 else x


@compiled
def _maximum(a: Any, bound: Any) -> Any:
    return bound if bound > a else a


@compiled
def _minimum(a: Any, bound: Any) -> Any:
    return bound if bound < a else a


PRIMITIVES = {
    "where": _where,
    "madd": _madd,
    "sign": _sign,
    "maximum": _maximum,
    "minimum": _minimum,
    "is_tiny": elementary.is_tiny,
    "abs": abs,
    "exp": elementary.exp,
    "exp_below_0": elementary.exp,
    "sigmoid": elementary.sigmoid,
    "tanh": elementary.tanh,
    "expm1": elementary.expm1,
    "log": elementary.log,
    "log1p_exp": elementary.log1p_exp,
    "log1p": elementary.log1p,
    "sqrt": math.sqrt,
    "erf": elementary.erf,
    "cos": math.cos,
    "sin": math.sin,
}


def elementwise(text: PythonText) -> str:
    """The text of an elementwise kernel."""
    kernel, out = text.kernel, text.written[0]
    place, lines = {name: name for name in kernel.tensors}, []
    if kernel.op.inplace:
        place[text.tensors[0]] = out
        lines.append(f"copy({out}, {text.tensors[0]})")
    lines += [f"{name}_flat = flat({name})" for name in dict.fromkeys(place.values())]
    body = text.element(lambda name: f"{place[name]}_flat[i]", "drawn[i - begin]")
    if not text.formula.draws:
        loop = [f"for i in range({out}_flat.size):", *indented(body)]
    else:  # draw LOCAL random numbers at a time
        loop = [
            f"drawn = local({out}_flat)",
            f"for begin in range(0, {out}_flat.size, {LOCAL}):",
            f"    draw_tails(drawn, begin // {LOCAL}, {', '.join(COUNTER)})",
            f"    for i in range(begin, min(begin + {LOCAL}, {out}_flat.size)):",
            *indented(body, 2),
        ]
    return text.function([], [*lines, *text.numbers, *loop])


def loss(text: PythonText) -> str:
    """The text of a pointwise loss's kernel: sums of rows, or slopes times the rows' shares."""
    columns = text.kernel.columns
    lines, (value,) = text.value(lambda name: f"{name}[{'j' if name in columns else 'b, j'}]")
    forward = isinstance(text.formula, RowSum)
    like = "y" if forward else "dy"
    first = "total = 0.0" if forward else "d = drow_loss[b] / divisor"
    term = f"total += float64({value})" if forward else f"dy[b, j] = dy.dtype.type(d) * ({value})"
    rows = [first, f"for j in range({like}.shape[1]):", *indented([*lines, term])]
    rows += ["row_loss[b] = total / divisor"] if forward else []
    return text.function([], [*text.numbers, f"for b in range({like}.shape[0]):", *indented(rows)])


def define(kernel: Kernel) -> Any:
    """The jitted kernel."""
    text = PythonText(kernel)
    names = {"copy": copy, "flat": flat, "local": local, "draw_tails": draw_tails}
    names |= {"float64": np.float64, "__name__": __name__}
    source = loss(text) if text.is_loss else elementwise(text)
    return njit(error_model="numpy")(text.made(source, PRIMITIVES, names, compiled))


load_ops()
FUNCTIONS |= {
    name: define(kernel) for name, kernel in KERNELS.items() if kernel.formula is not None
}


def function(kernel: Kernel) -> Any:
    """A kernel's jitted function; made now if its op was declared after this module."""
    return kernel_of("numba", FUNCTIONS, kernel, define)
