"""Loss: what a model is trained to make small, and its gradient with respect to the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from fastnet import arrays
from fastnet.errors import UsageError
from fastnet.layers.base import Builder, Shape
from fastnet.op import Array
from fastnet.tape import Tape, Value

Metric = Callable[[Array, Array], float]


def accuracy(y: Array, output: Array) -> float:
    """The share of rows whose largest output stands at the label: y (n,) integers, output (n, C)."""
    return float(np.mean(np.argmax(output, axis=1) == y))


class Loss:
    """Base of all losses.

    A subclass checks targets in `target` and describes itself by ops in `emit`. On its own a loss
    runs the NumPy reference: `forward(output, y)` returns the value, `backward()` dL/d-output.
    """

    metrics: ClassVar[Mapping[str, Metric]] = {}  # what training with this loss reports by default
    target_dtype: ClassVar[str | None] = None  # None: the model's

    _pending: tuple[Tape, Value, Value] | None = None

    def target(self, y: Any, shape: Shape | None, name: str = "y") -> Array:
        """Check targets against the shape of one output row and return them as an array.

        `name` is what error messages call them.
        """
        raise NotImplementedError

    def emit(self, g: Builder, output: Any, target: Any) -> Any:
        """Describe the loss by ops on the builder; returns the scalar loss."""
        raise NotImplementedError

    def plan_key(self) -> Any:
        """What a compiled plan depends on: losses with equal keys share plans."""
        return repr(self)

    def forward(self, output: Any, y: Any) -> float:
        """The loss of outputs (n, …) for targets y, averaged over the n rows."""
        output = arrays.floats("output", output)
        targets = self.target(arrays.as_array("y", y), output.shape[1:])
        arrays.check_lengths("output", output, "y", targets)
        tape = Tape(output.dtype)
        given = Value(np.array(output))
        target = Value(np.array(targets, self.target_dtype or output.dtype))
        loss = self.emit(tape, given, target)
        self._pending = (tape, given, loss)
        return float(loss.array[0])

    def backward(self) -> Array:
        """dL/d-output of the last forward, a new array of the output's shape and dtype."""
        if self._pending is None:
            raise UsageError(f"{type(self).__name__}: backward needs a forward before it")
        tape, given, loss = self._pending
        self._pending = None
        tape.backward(loss)
        assert given.grad is not None
        return given.grad

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_pending"}
