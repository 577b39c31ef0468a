"""Elementwise kernels as functions of a range of elements, which the C backend calls.

Their signature is that of fn_foreign in csrc/engine/call.h.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, float64, int64, njit
from numba.np.numpy_support import from_dtype

from fastnet.backends.numba.kernels.formulas import PRIMITIVES, compiled
from fastnet.backends.numba.lowlevel import types, vector
from fastnet.formulas.python_text import PythonText
from fastnet.formulas.translate import indented
from fastnet.op import Kernel

_FOUR_INTEGERS = types.void(int64, int64, int64, int64)


def compile_range(kernel: Kernel, dtype: str) -> Any:
    """Compile a kernel for elements [begin, end) of its tensors; returns the cfunc.

    The loop over an output that is the first input has no other array that it could overlap, as far as LLVM
    knows; so it is a loop of its own.
    """
    text = PythonText(kernel)
    function = njit(error_model="numpy")(
        text.made(_loops(text), PRIMITIVES, {"__name__": __name__}, compiled)
    )
    item, kind = np.dtype(dtype).itemsize, from_dtype(np.dtype(dtype))
    known = {
        "function": function,
        "vector": vector,
        "int64": int64,
        "float64": float64,
        "kind": kind,
    }
    count, scalars = len(kernel.tensors), kernel.op.scalars
    tensors = [f"vector(place[{i}] + {item} * begin, end - begin, kind)" for i in range(count)]
    given = [f"number[{scalars.index(n)}]" for n in kernel.arguments[count:]]
    same = f"place[0] == place[{kernel.tensors.index(text.tensors[0])}]"
    lines = [
        f"place = vector(tensors, {count}, int64)",
        f"number = vector(scalars, {max(1, len(scalars))}, float64)",
        f"function({', '.join([same, *tensors, *given])})",
    ]
    exec("\n".join(["def entry(tensors, scalars, begin, end):", *indented(lines)]), known)
    return cfunc(_FOUR_INTEGERS)(known["entry"])


def _loops(text: PythonText) -> str:
    out, first = text.written[0], text.tensors[0]

    def loop(read: dict[str, str]) -> list[str]:
        body = text.element(lambda name: f"{read.get(name, name)}[i]")
        return [f"for i in range({out}.size):", *indented(body)]

    lines = ["if same:", *indented(loop({first: out})), "else:", *indented(loop({}))]
    return text.function(["same"], [*text.numbers, *lines])
