"""Kernels of formulas: the code for one element, made from the formula that an op declares."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends.base import kernel_of
from fastnet.backends.cuda.device import device
from fastnet.backends.cuda.elementary import NAMES
from fastnet.backends.cuda.kernels.loops import cells, draws, each, rows
from fastnet.backends.cuda.kernels.registry import LAUNCHERS, Launcher
from fastnet.backends.cuda.kernels.teams import team_sum
from fastnet.backends.cuda.philox import tail_of
from fastnet.formulas.language import RowSlope
from fastnet.formulas.python_text import PythonText
from fastnet.formulas.translate import indented
from fastnet.op import KERNELS, Kernel


def elementwise(text: PythonText) -> tuple[str, Any]:
    """The text for one element, and the loop around it."""
    out, draws_too = text.written[0], text.formula.draws
    body = text.element(lambda name: f"{name}[i]", f"tail_of(word, {out})")
    arguments = ["i", "word"] if draws_too else ["i"]
    loop = draws if draws_too else each
    return text.function(arguments, [*text.numbers, *body]), loop(out)


def loss(text: PythonText) -> tuple[str, Any]:
    """The same for a pointwise loss: sums of rows, or slopes times the rows' shares."""
    columns = text.kernel.columns
    index = {name: "column" if name in columns else "row, column" for name in text.tensors}
    lines, (value,) = text.value(lambda name: f"{name}[{index[name]}]")
    if isinstance(text.formula, RowSlope):
        slope = f"dy[row, column] = dy.dtype.type(drow_loss[row] / divisor) * ({value})"
        body = [*text.numbers, *lines, slope]
        return text.function(["row", "column"], body), cells("dy")
    body = [
        "total = 0.0",
        "for column in range(team[2], end, team[3]):",
        *indented([*lines, f"total += float64({value})"]),
        "total = team_sum(team, total)",
        "if team[2] == 0 and end >= 0:",
        "    row_loss[row] = total / divisor",
    ]
    return text.function(["team", "row", "end"], [*text.numbers, *body]), rows("y")


def define(kernel: Kernel) -> Launcher:
    """The launcher of a kernel with a formula."""
    text = PythonText(kernel)
    names = {"team_sum": team_sum, "tail_of": tail_of, "float64": np.float64, "__name__": __name__}
    source, around = loss(text) if text.is_loss else elementwise(text)
    made: Launcher = around(text.made(source, NAMES, names, device))
    return made


LAUNCHERS |= {
    name: define(kernel) for name, kernel in KERNELS.items() if kernel.formula is not None
}


def launcher_of(kernel: Kernel) -> Launcher:
    """A kernel's launcher; made now if its op was declared after this module."""
    found: Launcher = kernel_of("cuda", LAUNCHERS, kernel, define)
    return found
