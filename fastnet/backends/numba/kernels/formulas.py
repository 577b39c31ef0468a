"""Kernels of formulas: a loop over elements, made from the formula that the op declares.

A kernel that may work in place copies its first input over its output and works there, so that its loop
has one array less that might overlap another.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from fastnet.backends.base import no_kernel
from fastnet.backends.numba import elementary
from fastnet.backends.numba.kernels.registry import FUNCTIONS
from fastnet.backends.numba.lowlevel import LOCAL, copy, flat, local
from fastnet.backends.numba.philox import draw_tails
from fastnet.formulas.language import COUNTER, TAIL
from fastnet.formulas.translate import Translator
from fastnet.losses.pointwise import Pointwise
from fastnet.op import KERNELS, Kernel

_compiled = njit(error_model="numpy", forceinline=True)


@_compiled
def _where(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


@_compiled
def _madd(a: Any, b: Any, c: Any) -> Any:
    return a * b + c


@_compiled
def _sign(x: Any) -> Any:
    one = type(x)(1)
    return one if x > 0 else -one if x < 0 else x


@_compiled
def _maximum(a: Any, bound: Any) -> Any:
    return bound if bound > a else a


@_compiled
def _minimum(a: Any, bound: Any) -> Any:
    return bound if bound < a else a


_NAMES = {
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
    "expm1": math.expm1,
    "log": math.log,
    "log1p_exp": elementary.log1p_exp,
    "log1p": math.log1p,
    "sqrt": math.sqrt,
    "erf": math.erf,
}


def source(kernel: Kernel, translator: Translator) -> str:
    """The text of a kernel, as one would write it."""
    op, formula = kernel.op, kernel.formula
    assert formula is not None
    written = op.written(kernel.phase)
    numbers = tuple(name for name in formula.arguments if name not in kernel.tensors)
    cast = f"{written[0]}.dtype.type"
    text = translator.text(formula, cast, numbers)
    lines = [f"def {kernel.name}({', '.join(kernel.arguments)}):"]
    place = {name: name for name in kernel.tensors}
    if op.inplace:
        first = next(name for name in formula.arguments if name in kernel.tensors)
        lines.append(f"    copy({written[0]}, {first})")
        place[first] = written[0]
    lines += [f"    {name}_flat = flat({name})" for name in dict.fromkeys(place.values())]
    lines += [f"    {name}_ = {name}" for name in numbers]
    read = [name for name in formula.arguments if name in place]
    body = [f"{name}_ = {place[name]}_flat[i]" for name in read]
    body += [f"{TAIL}_ = drawn[i - begin]"] if formula.draws else []
    body += [f"{name} = {value}" for name, value, _ in text.assignments]
    stored = enumerate(zip(written, text.results, strict=True))
    body += [f"result{n} = {value}" for n, (_, value) in stored]
    body += [f"{place[name]}_flat[i] = result{n}" for n, name in enumerate(written)]
    if formula.draws:
        return "\n".join([*lines, *_by_draws(f"{written[0]}_flat", body)])
    loop = f"    for i in range({written[0]}_flat.size):"
    return "\n".join([*lines, loop, *(f"        {line}" for line in body)])


def _by_draws(result: str, body: list[str]) -> list[str]:
    """The loop over elements where each needs a random number, of which LOCAL are drawn at once."""
    return [
        f"    drawn = local({result})",
        f"    for begin in range(0, {result}.size, {LOCAL}):",
        f"        draw_tails(drawn, begin // {LOCAL}, {', '.join(COUNTER)})",
        f"        for i in range(begin, min(begin + {LOCAL}, {result}.size)):",
        *(f"            {line}" for line in body),
    ]


def loss_source(kernel: Kernel, translator: Translator) -> str:
    """The text of a pointwise loss's kernel: sums of rows, or slopes times their rows' shares."""
    op, formula = kernel.op, kernel.formula
    assert formula is not None and issubclass(op, Pointwise)
    given = formula.elements
    numbers = tuple(name for name in given if name not in kernel.tensors)
    text = translator.text(formula, "y.dtype.type", numbers)
    forward = kernel.phase == "forward"
    lines = [f"def {kernel.name}({', '.join(kernel.arguments)}):"]
    lines += [f"    {name}_ = {name}" for name in numbers]
    lines += ["    for b in range(y.shape[0]):"]
    lines += ["        total = 0.0"] if forward else ["        d = drow_loss[b] / divisor"]
    lines += ["        for j in range(y.shape[1]):"]
    read = [name for name in given if name in kernel.tensors]
    lines += [f"            {n}_ = {n}[{'j' if n in op.columns else 'b, j'}]" for n in read]
    lines += [f"            {name} = {value}" for name, value, _ in text.assignments]
    if forward:
        return "\n".join(
            [
                *lines,
                f"            total += float64({text.results[0]})",
                "        row_loss[b] = total / divisor",
            ]
        )
    return "\n".join([*lines, f"            dy[b, j] = y.dtype.type(d) * ({text.results[0]})"])


def helper(function: Any, translator: Translator) -> str:
    """The text of a function that formulas call."""
    names = function.parameters
    cast = f"type({names[0]}_)"
    text = translator.text(function, cast)
    lines = [f"def {function.function.__name__}({', '.join(f'{name}_' for name in names)}):"]
    lines += [f"    {name} = {value}" for name, value, _ in text.assignments]
    return "\n".join([*lines, f"    return {text.results[0]}"])


def define(kernel: Kernel) -> Any:
    """The jitted kernel."""
    translator = Translator({name: f"_{name}_" for name in _NAMES}, suffix="_")
    names: dict[str, Any] = {f"_{name}_": function for name, function in _NAMES.items()}
    names |= {"copy": copy, "flat": flat, "local": local, "draw_tails": draw_tails}
    names |= {"float64": np.float64, "__name__": __name__}
    write = loss_source if issubclass(kernel.op, Pointwise) else source
    text = write(kernel, translator)
    for name, function in translator.called.items():
        exec(helper(function, translator), names)
        names[name] = _compiled(names[name])
    exec(text, names)
    return njit(error_model="numpy")(names[kernel.name])


FUNCTIONS |= {
    name: define(kernel) for name, kernel in KERNELS.items() if kernel.formula is not None
}


def function(kernel: Kernel) -> Any:
    """A kernel's jitted function, made now where its op is younger than this module."""
    if kernel.name not in FUNCTIONS:
        if kernel.formula is None:
            raise no_kernel("numba", kernel.name)
        FUNCTIONS[kernel.name] = define(kernel)
    return FUNCTIONS[kernel.name]
