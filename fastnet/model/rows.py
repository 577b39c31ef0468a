"""Gradients of single rows of a model's outputs with respect to its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnet.errors import UsageError
from fastnet.model.runtime import Modes
from fastnet.op import Array
from fastnet.plan.instructions import kernels_of

CHUNK = 1 << 22  # bytes of gradients of rows that are made at once


class RowGradients:
    """Gives the gradients of Σ_j dy_ij·y_ij for each row i of a minibatch, with outputs y.

    They are vectors of the trainable parameters in the model's order, without padding, float64. Each row is
    a minibatch of its own.

    model, modes: whose layers are in these modes. shape: of an input row. rows: the most of a minibatch.
    Raises UsageError where a layer joins rows, such as batchnorm with the statistics of a minibatch, and
    where rows one by one would draw other random numbers than together. The caller holds the model's lock;
    the gradients in `grads` stay as they are, and a pending backward may become invalid.
    """

    def __init__(self, model: Any, modes: Modes, shape: tuple[int, ...], rows: int) -> None:
        _check_apart(model, modes)
        self._storage = model.bind()
        self._places = self._storage.trainable_places()
        self.size = len(self._places)
        self._executor = model._runtime.executor(shape, rows, modes)
        _check_draws(self._executor.plan.forward)
        if model._pending is not None and model._pending[0] is self._executor:
            model._pending = None  # its forward is overwritten

    def forward(self, x: Array, seed: int = 0, step: int = 0) -> Array:
        """The outputs of a minibatch, a new array in the model's dtype.

        seed, step: of random draws, as in training.
        """
        return np.array(self._executor.forward(x, seed, step))

    def of(self, x: Array, dy: Array) -> OneByOne:
        """The gradients for a minibatch and dL/d-output of its rows."""
        return OneByOne(self._storage.flat("grads"), self._places, self._executor, x, dy)


class OneByOne:
    """Gradients of rows, each from a forward and a backward of its own."""

    def __init__(self, grads: Array, places: Array, executor: Any, x: Array, dy: Array) -> None:
        self._grads, self._places, self._executor = grads, places, executor
        self._x, self._dy = x, dy

    def rows(self, begin: int, end: int) -> Array:
        """Those of rows begin, …, end − 1: a new array (end − begin, size), float64."""
        found, before = np.empty((end - begin, len(self._places))), self._grads.copy()
        try:
            for i in range(begin, end):
                self._executor.forward(self._x[i : i + 1])
                self._executor.backward(self._dy[i : i + 1], accumulate=False)
                found[i - begin] = self._grads[self._places]
        finally:
            np.copyto(self._grads, before)
        return found

    def parts(self) -> Iterator[tuple[int, Array]]:
        """Those of all rows in parts of some megabytes, each with its first row."""
        count, at_once = len(self._x), max(1, CHUNK // (8 * max(1, len(self._places))))
        for begin in range(0, count, at_once):
            yield begin, self.rows(begin, min(begin + at_once, count))

    def squares(self) -> Array:
        """The sum over rows of the squares of their gradients, float64 (size,)."""
        total = np.zeros(len(self._places))
        for _, part in self.parts():
            total += np.einsum("ij,ij->j", part, part)
        return total


def _check_apart(model: Any, modes: Modes) -> None:
    """Raise UsageError where the outputs of a row depend on other rows."""
    for mode, (_, layer) in zip(modes, model.layers, strict=True):
        if layer.joins_rows or (mode and layer.min_training_rows > 1):
            raise UsageError(
                f"{layer.label} computes statistics of a minibatch, so that rows have no gradients of "
                "their own; let it use its running statistics by model.eval(), or leave it out"
            )


def _check_draws(program: np.ndarray) -> None:
    """Raise UsageError where a program draws, for rows that run one by one."""
    for _, kernel in kernels_of(program):
        if "seed" in kernel.arguments:
            raise UsageError(
                f"the model draws random numbers ({kernel.op.name}), so that its rows would draw other "
                "numbers one by one than together; switch the draws off by model.eval()"
            )
