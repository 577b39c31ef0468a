"""The gradient of a model's outputs with respect to its inputs, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.data import arrays
from fastnet.data.lazy import LazyRows
from fastnet.errors import HyperparameterError, ShapeError, UsageError, shown
from fastnet.op import Array


def input_gradient(model: Any, x: Any, output: Any) -> Array:
    """See Sequential.input_gradient."""
    model._root("input_gradient")
    x = model.features("x", x)
    if arrays.on_device(x) or isinstance(x, LazyRows):
        raise UsageError(
            f"input_gradient: x is {shown(x)}; expected dense rows in the host's memory"
        )
    shape = model.output_shape(tuple(x.shape[1:]))
    if len(shape) != 1:
        raise ShapeError(f"input_gradient: outputs have rows of shape {shape}; expected (k,)")
    chosen = _chosen(output, len(x), shape[0])
    rows = model.rows_at_once("x", len(x), None)
    modes, result = model._modes(False), np.empty(x.shape, model.dtype)
    with model.training_lock():
        executor = model._runtime.executor(tuple(x.shape[1:]), min(rows, max(1, len(x))), modes)
        if model._pending is not None and model._pending[0] is executor:
            model._pending = None  # its forward is overwritten
        gradients = model.bind().flat("grads")
        before = gradients.copy()
        try:
            for begin in range(0, len(x), rows):
                part = x[begin : begin + rows]
                y = executor.forward(part, model.seed, 0)
                column = np.argmax(y, axis=1) if chosen is None else chosen[begin : begin + rows]
                dy = np.zeros(y.shape, model.dtype)
                dy[np.arange(len(part)), column] = 1
                executor.backward(dy)
                result[begin : begin + rows] = executor.input_gradient(len(part))
        finally:
            np.copyto(gradients, before)
    return result


def _chosen(output: Any, rows: int, width: int) -> Array | None:
    """The number of each row's output; None: the largest."""
    if output is None:
        return None
    found = np.asarray(output)
    good = found.dtype.kind in "iu" and found.shape in ((), (rows,))
    if not good or (found.size and not (found.min() >= 0 and found.max() < width)):
        raise HyperparameterError(
            f"output is {shown(output)}; expected None, the number of an output in [0, {width}), or such a "
            f"number for each of the {rows} rows"
        )
    return np.broadcast_to(found, rows)
