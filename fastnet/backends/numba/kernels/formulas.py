"""Kernels of formulas: a loop over elements, made from the formula that the op declares.

A kernel that may work in place copies its first input over its output and works there, so that its loop
has one array less that might overlap another.
"""

from __future__ import annotations

import math
from typing import Any

from numba import njit

from fastnet.backends.numba import elementary
from fastnet.backends.numba.kernels.registry import FUNCTIONS
from fastnet.backends.numba.lowlevel import copy, flat
from fastnet.op import KERNELS, Kernel
from fastnet.translate import Translator

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
    "sigmoid": elementary.sigmoid,
    "tanh": elementary.tanh,
    "expm1": math.expm1,
    "log": math.log,
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
    text = translator.text(formula.function, cast, numbers)
    lines = [f"def {kernel.name}({', '.join(kernel.arguments)}):"]
    place = {name: name for name in kernel.tensors}
    if op.inplace:
        first = next(name for name in formula.arguments if name in kernel.tensors)
        lines.append(f"    copy({written[0]}, {first})")
        place[first] = written[0]
    lines += [f"    {name}_flat = flat({name})" for name in dict.fromkeys(place.values())]
    lines += [f"    {name}_ = {name}" for name in numbers]
    lines.append(f"    for i in range({written[0]}_flat.size):")
    read = [name for name in formula.arguments if name in place]
    lines += [f"        {name}_ = {place[name]}_flat[i]" for name in read]
    lines += [f"        {name} = {value}" for name, value, _ in text.assignments]
    stored = enumerate(zip(written, text.results, strict=True))
    lines += [f"        result{n} = {value}" for n, (_, value) in stored]
    lines += [f"        {place[name]}_flat[i] = result{n}" for n, name in enumerate(written)]
    return "\n".join(lines)


def helper(function: Any, translator: Translator) -> str:
    """The text of a function that formulas call."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    cast = f"type({names[0]}_)"
    text = translator.text(function, cast)
    lines = [f"def {function.__name__}({', '.join(f'{name}_' for name in names)}):"]
    lines += [f"    {name} = {value}" for name, value, _ in text.assignments]
    return "\n".join([*lines, f"    return {text.results[0]}"])


def define(kernel: Kernel) -> Any:
    """The jitted kernel."""
    translator = Translator({name: f"_{name}_" for name in _NAMES}, suffix="_")
    names: dict[str, Any] = {f"_{name}_": function for name, function in _NAMES.items()}
    names |= {"copy": copy, "flat": flat, "__name__": __name__}
    text = source(kernel, translator)
    for name, function in translator.called.items():
        exec(helper(function, translator), names)
        names[name] = _compiled(names[name])
    exec(text, names)
    return njit(error_model="numpy")(names[kernel.name])


FUNCTIONS |= {
    name: define(kernel) for name, kernel in KERNELS.items() if kernel.formula is not None
}
