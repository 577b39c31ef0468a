"""Kernels of formulas: what is done to one element, made from the formula that the op declares."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends.base import no_kernel
from fastnet.backends.cuda.device import device
from fastnet.backends.cuda.elementary import NAMES
from fastnet.backends.cuda.kernels.loops import cells, draws, each, rows
from fastnet.backends.cuda.kernels.registry import LAUNCHERS, Launcher
from fastnet.backends.cuda.kernels.teams import team_sum
from fastnet.backends.cuda.philox import tail_of
from fastnet.formulas.language import TAIL
from fastnet.formulas.translate import Text, Translator
from fastnet.losses.pointwise import Pointwise
from fastnet.op import KERNELS, Kernel


def _function(kernel: Kernel, place: str, *parts: list[str]) -> str:
    lines = [line for part in parts for line in part]
    head = f"def {kernel.name}({place}, {', '.join(kernel.arguments)}):"
    return "\n".join([head, *(f"    {line}" for line in lines)])


def _numbers(kernel: Kernel, arguments: tuple[str, ...]) -> list[str]:
    return [f"{name}_ = {name}" for name in arguments if name not in kernel.tensors]


def _assigned(text: Text) -> list[str]:
    return [f"{name} = {value}" for name, value, _ in text.assignments]


def elementwise(kernel: Kernel, text: Text) -> tuple[str, Any]:
    """The text of what is done to an element, and the loop around it."""
    formula, written = kernel.formula, kernel.op.written(kernel.phase)
    assert formula is not None
    read = [f"{n}_ = {n}[i]" for n in formula.arguments if n in kernel.tensors]
    drawn = [f"{TAIL}_ = tail_of(word, {written[0]})"] if formula.draws else []
    results = [f"result{n} = {value}" for n, value in enumerate(text.results)]
    stored = [f"{name}[i] = result{n}" for n, name in enumerate(written)]
    parts = read, _numbers(kernel, formula.arguments), drawn, _assigned(text), results, stored
    if formula.draws:
        return _function(kernel, "i, word", *parts), draws(written[0])
    return _function(kernel, "i", *parts), each(written[0])


def pointwise(kernel: Kernel, text: Text) -> tuple[str, Any]:
    """The same of a pointwise loss: sums of rows, or slopes times their rows' shares."""
    op, formula = kernel.op, kernel.formula
    assert formula is not None and issubclass(op, Pointwise)
    numbers = _numbers(kernel, formula.elements)
    read = [n for n in formula.elements if n in kernel.tensors]
    found = [f"{n}_ = {n}[{'column' if n in op.columns else 'row, column'}]" for n in read]
    found += _assigned(text)
    (result,) = text.results
    if kernel.phase == "vjp":
        share = f"dy.dtype.type(drow_loss[row] / divisor) * ({result})"
        slope = [f"dy[row, column] = {share}"]
        return _function(kernel, "row, column", numbers, found, slope), cells("dy")
    add = [f"    {line}" for line in (*found, f"total += float64({result})")]
    loop = ["total = 0.0", "for column in range(team[2], end, team[3]):", *add]
    store = ["total = team_sum(team, total)", "if team[2] == 0 and end >= 0:"]
    store += ["    row_loss[row] = total / divisor"]
    return _function(kernel, "team, row, end", numbers, loop, store), rows("y")


def helper(function: Any, translator: Translator) -> str:
    """The text of a function that formulas call."""
    names = function.parameters
    text = translator.text(function, f"type({names[0]}_)")
    lines = [f"def {function.function.__name__}({', '.join(f'{name}_' for name in names)}):"]
    lines += [f"    {line}" for line in (*_assigned(text), f"return {text.results[0]}")]
    return "\n".join(lines)


def define(kernel: Kernel) -> Launcher:
    """The launcher of a kernel that is declared by its formula."""
    op, formula = kernel.op, kernel.formula
    assert formula is not None
    translator = Translator({name: f"_{name}_" for name in NAMES}, suffix="_")
    names: dict[str, Any] = {f"_{name}_": function for name, function in NAMES.items()}
    names |= {"team_sum": team_sum, "tail_of": tail_of, "float64": np.float64}
    names["__name__"] = __name__
    loss = issubclass(op, Pointwise)
    of_elements = formula.elements if loss else formula.arguments
    numbers = tuple(name for name in of_elements if name not in kernel.tensors)
    like = "y" if loss else op.written(kernel.phase)[0]
    text = translator.text(formula, f"{like}.dtype.type", numbers)
    for name, function in translator.called.items():
        exec(helper(function, translator), names)
        names[name] = device(names[name])
    body, around = (pointwise if loss else elementwise)(kernel, text)
    exec(body, names)
    made: Launcher = around(names[kernel.name])
    return made


LAUNCHERS |= {
    name: define(kernel) for name, kernel in KERNELS.items() if kernel.formula is not None
}


def launcher_of(kernel: Kernel) -> Launcher:
    """A kernel's launcher, made now where its op is younger than this module."""
    if kernel.name not in LAUNCHERS:
        if kernel.formula is None:
            raise no_kernel("cuda", kernel.name)
        LAUNCHERS[kernel.name] = define(kernel)
    return LAUNCHERS[kernel.name]
