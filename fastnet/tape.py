"""The tape: runs the reference kernels of a layer or loss outside a model, and then their gradients.

A layer or loss applies ops by calls of `apply`. A compiler collects these in a graph; the tape executes
them on arrays at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.builder import Builder
from fastnet.op import ROWS, Array, Op
from fastnet.parameter import Derived, Parameter


@dataclass(eq=False, repr=False)
class Value:
    """An array on the tape, and the gradient accumulated for it."""

    array: Array
    grad: Array | None = None

    @property
    def shape(self) -> tuple[int | str, ...]:
        """The array's shape with ROWS for the number of rows, as in a graph."""
        return (ROWS, *self.array.shape[1:])


@dataclass(eq=False, repr=False)
class _Record:
    op: type[Op]
    arguments: dict[str, Any]  # every forward argument by name: Value, Parameter, None or a number
    sizes: dict[str, int]


class Tape(Builder):
    """Runs ops on NumPy arrays as they are applied, and records them for `backward`."""

    def __init__(self, dtype: Any, training: bool = True, seed: int = 0, step: int = 0) -> None:
        super().__init__()
        self.dtype, self.training, self.seed, self.step = dtype, training, seed, step
        self.records: list[_Record] = []

    def apply(self, op: type[Op], *, stream: int = 0, **arguments: Any) -> Value:
        """Run one op's forward; returns its main output."""
        shapes = {k: getattr(v, "shape", None) for k, v in arguments.items()}
        sizes = op.bind(shapes)
        rows = next((v.array.shape[0] for v in arguments.values() if isinstance(v, Value)), 1)
        for name in op.outputs:
            arguments[name] = Value(self._empty(op, name, sizes, rows))
        arguments |= {
            "stream": self.stream(stream),
            "seed": self.seed,
            "step": self.step,
            "accumulate": 1,
        }
        self.records.append(_Record(op, arguments, sizes))
        kernel = op.kernels["forward"]
        kernel.function(*(self._array(arguments[name]) for name in kernel.arguments))
        main: Value = arguments[op.main_output()]
        return main

    def output(self, name: str) -> Value:
        """Another output of the last op applied."""
        value: Value = self.records[-1].arguments[name]
        return value

    def backward(self, output: Value, dy: Array | None = None) -> None:
        """Propagate dL/d-output back to the `grad` of every Value, and add it to that of every Parameter.

        `dy` is None if the output is the loss itself.
        """
        output.grad = dy
        for record in reversed(self.records):
            op, arguments = record.op, record.arguments
            rows = arguments[op.main_output()].array.shape[0]
            fresh: dict[str, Array] = {}
            call = []
            for name in op.kernels["vjp"].arguments:
                source = None if name in op.tensors else arguments.get(name[1:])
                if name in arguments:
                    call.append(self._array(arguments[name]))
                elif name[1:] in op.outputs:
                    call.append(source.grad if source is not None else self._array(None))
                elif isinstance(source, Parameter):
                    call.append(self._array(None) if source.grad is None else source.grad)
                elif source is None:
                    call.append(self._array(None))
                else:
                    rows = source.array.shape[0]
                    fresh[name[1:]] = self._empty(op, name, record.sizes, rows)
                    call.append(fresh[name[1:]])
            op.kernels["vjp"].function(*call)
            for name, grad in fresh.items():
                value = arguments[name]
                value.grad = grad if value.grad is None else value.grad + grad

    def _empty(self, op: type[Op], name: str, sizes: dict[str, int], rows: int) -> Array:
        spec = op.spec(name)
        assert spec is not None
        shape = [rows if d == ROWS else int(d) for d in op.shape(name, sizes)]
        return np.empty(shape, spec.dtype or self.dtype)

    def _array(self, argument: Any) -> Any:
        if argument is None:
            return np.empty(0, self.dtype)
        if isinstance(argument, Value):
            return argument.array
        if isinstance(argument, Derived):
            return argument.compute().astype(self.dtype)
        return argument.value if isinstance(argument, Parameter) else argument
