"""The tape: runs the reference kernels of a layer or loss outside a model, and then their gradients.

A layer or loss applies ops by calls of `apply`. A compiler collects these in a graph; the tape executes
them on arrays at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet.builder import Builder
from fastnet.op import ROWS, Array, Op
from fastnet.parameter import Derived, Parameter, Scheduled
from fastnet.plain import plain


@plain()
class Value:
    """An array on the tape, and the gradient accumulated for it."""

    array: Array
    grad: Array | None = None
    times: int = 1  # the rows that it has for each row of the minibatch

    @property
    def shape(self) -> tuple[int | str, ...]:
        """The array's shape with ROWS for the number of rows, as in a graph."""
        return (ROWS, *self.array.shape[1:])


@plain()
class _Record:
    op: type[Op]
    arguments: dict[str, Any]  # every forward argument by name: Value, Parameter, None or a number
    sizes: dict[str, int]


@plain()
class _Reshaped:
    x: Value
    y: Value


class Tape(Builder):
    """Runs ops on NumPy arrays as they are applied, and records them for `backward`."""

    def __init__(
        self,
        dtype: Any,
        training: bool = True,
        seed: int = 0,
        step: int = 0,
        modes: Mapping[int, bool] | None = None,
    ) -> None:
        super().__init__(modes)
        self.dtype, self.training, self.seed, self.step = dtype, training, seed, step
        self.records: list[_Record | _Reshaped] = []

    def apply(self, op: type[Op], *, stream: int = 0, **arguments: Any) -> Value:
        """Run one op's forward; returns its main output."""
        shapes = {k: getattr(v, "shape", v) for k, v in arguments.items()}
        sizes = op.bind(shapes)
        given = {name: v for name, v in arguments.items() if isinstance(v, Value)}
        times = op.rows_of({name: v.times for name, v in given.items()})
        rows = next((v.array.shape[0] for v in given.values()), 1)
        for name in op.outputs:
            arguments[name] = Value(self._empty(op, name, sizes, rows), times=times)
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
        record = self.records[-1]
        assert isinstance(record, _Record)
        value: Value = record.arguments[name]
        return value

    def reshape(self, x: Value, row: tuple[int, ...], times: int = 1) -> Value:
        """A value of another shape that shares x's numbers."""
        y = Value(x.array.reshape(len(x.array) // x.times * times, *row), times=times)
        self.records.append(_Reshaped(x, y))
        return y

    def backward(self, output: Value, dy: Array | None = None) -> None:
        """Propagate dL/d-output back to the `grad` of every Value, and add it to that of every Parameter.

        `dy` is None if the output is the loss itself.
        """
        output.grad = dy
        for record in reversed(self.records):
            if isinstance(record, _Reshaped):
                if record.y.grad is not None:
                    _add(record.x, record.y.grad.reshape(record.x.array.shape))
                continue
            op, arguments = record.op, record.arguments
            if "vjp" not in op.kernels:
                self._adjoint(op, arguments)
                continue
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
                _add(arguments[name], grad)

    def _adjoint(self, op: type[Op], arguments: dict[str, Any]) -> None:
        dy = arguments[op.main_output()].grad
        for name in op.inputs:
            if dy is not None:
                given = op.adjoint(Tape(self.dtype), name, Value(dy), arguments)
                _add(arguments[name], given.array)

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
            return argument.compute().astype(argument.dtype or self.dtype)
        if isinstance(argument, Scheduled):
            return argument.compute(np.array([self.step]))[0]
        return argument.value if isinstance(argument, Parameter) else argument


def _add(value: Value, grad: Array) -> None:
    """Add to the gradient of a value."""
    value.grad = grad if value.grad is None else value.grad + grad
