"""Gradients of single rows, of a model's outputs or of its loss, with respect to its parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnet.backends.rows import Factors
from fastnet.errors import UsageError
from fastnet.model.runtime import Modes
from fastnet.op import Array
from fastnet.plan.instructions import kernels_of
from fastnet.plan.segments import Storage

CHUNK = 1 << 22  # bytes of gradients of rows that are made at once


class RowGradients:
    """Gives the gradients of Σ_j dy_ij·y_ij for each row i of a minibatch, with outputs y.

    They are vectors of the trainable parameters in the model's order, without padding, float64. The values
    are exact, from reverse mode, in the model's dtype. Where all parameters belong to products (Linear and
    what is made of it), one backward gives the factors of each product's gradient, x_i and dy_i, for all
    rows. Else each row is a minibatch of its own.

    model, modes: whose layers are in these modes. shape: of an input row. rows: the most of a minibatch.
    Raises UsageError where a layer joins rows, such as batchnorm with the statistics of a minibatch, and
    where rows one by one would draw other random numbers than together. The caller holds the model's lock;
    the gradients in `grads` stay as they are, and a pending backward may become invalid.
    """

    def __init__(self, model: Any, modes: Modes, shape: tuple[int, ...], rows: int) -> None:
        _check_apart(model, modes)
        self._storage: Storage = model.bind()
        self.size = len(self._storage.trainable_places())
        self._begins = _begins(self._storage)
        runtime = model._runtime
        self._products = runtime.row_executor(shape, rows, modes)
        self._executor = self._products or runtime.executor(shape, rows, modes)
        if self._products is None:
            _check_draws(self._executor.plan.forward)
            if model._pending is not None and model._pending[0] is self._executor:
                model._pending = None  # its forward is overwritten

    def forward(self, x: Array, seed: int = 0, step: int = 0) -> Array:
        """The outputs of a minibatch, a new array in the model's dtype.

        seed, step: of random draws, as in training.
        """
        return np.array(self._executor.forward(x, seed, step))

    def of(self, x: Array, dy: Array, seed: int = 0, step: int = 0) -> OfProducts | OneByOne:
        """The gradients for a minibatch and dL/d-output of its rows."""
        if self._products is None:
            return OneByOne(self._storage, self._executor, x, dy)
        self._products.forward(x, seed, step)
        return OfProducts(self._begins, self._products.factors(dy), len(x), self.size)


class _Rows:
    """The gradients of `count` rows with respect to `size` parameters."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size

    def rows(self, begin: int, end: int) -> Array:
        """Those of rows begin, …, end − 1: a new array (end − begin, size), float64."""
        raise NotImplementedError

    def parts(self) -> Iterator[tuple[int, Array]]:
        """Those of all rows in parts of some megabytes, each with its first row."""
        at_once = max(1, CHUNK // (8 * max(1, self.size)))
        for begin in range(0, self.count, at_once):
            yield begin, self.rows(begin, min(begin + at_once, self.count))

    def squares(self) -> Array:
        """The sum over rows of the squares of their gradients, float64 (size,)."""
        total = np.zeros(self.size)
        for _, part in self.parts():
            total += np.einsum("ij,ij->j", part, part)
        return total


class OfProducts(_Rows):
    """Gradients of rows that are products of factors (see fastnet.backends.rows)."""

    def __init__(
        self, begins: dict[int, int], factors: list[Factors], count: int, size: int
    ) -> None:
        super().__init__(count, size)
        self._factors, self._begins = factors, begins
        # Whether each parameter belongs to one product, of one row for each row of the minibatch.
        used = Counter(place for f in factors for place in (f.weight, f.bias) if place is not None)
        self._single = max(used.values(), default=1) == 1 and all(
            f.x.shape[1] == 1 for f in factors
        )

    def rows(self, begin: int, end: int) -> Array:
        """The products of these rows."""
        found = np.zeros((end - begin, self.size))
        for f in self._factors:
            x, dy = (a[begin:end].astype(np.float64) for a in (f.x, f.dy))
            if f.bias is not None:
                at = self._begins[f.bias]
                found[:, at : at + dy.shape[2]] += dy[:, 0] if self._single else dy.sum(axis=1)
            if f.weight is not None:
                at, (inputs, outputs) = self._begins[f.weight], (x.shape[2], dy.shape[2])
                block = found[:, at : at + inputs * outputs].reshape(-1, inputs, outputs)
                if self._single:
                    np.multiply(x[:, 0, :, None], dy[:, 0, None, :], out=block)
                else:
                    block += np.matmul(x.transpose(0, 2, 1), dy)
        return found

    def squares(self) -> Array:
        """(x²)ᵀ·dy² for a single product, else the sum over rows."""
        if not self._single:
            return super().squares()
        found = np.zeros(self.size)
        for f in self._factors:
            x, dy = (a[:, 0].astype(np.float64) ** 2 for a in (f.x, f.dy))
            for place, values in ((f.weight, x.T @ dy), (f.bias, dy.sum(axis=0))):
                if place is not None:
                    at = self._begins[place]
                    found[at : at + values.size] = values.ravel()
        return found


class OneByOne(_Rows):
    """Gradients of rows, each from a forward and a backward of its own."""

    def __init__(self, storage: Storage, executor: Any, x: Array, dy: Array) -> None:
        self._places = storage.trainable_places()
        super().__init__(len(x), len(self._places))
        self._grads, self._executor, self._x, self._dy = storage.flat("grads"), executor, x, dy

    def rows(self, begin: int, end: int) -> Array:
        """Run these rows."""
        found, before = np.empty((end - begin, self.size)), self._grads.copy()
        try:
            for i in range(begin, end):
                self._executor.forward(self._x[i : i + 1])
                self._executor.backward(self._dy[i : i + 1], accumulate=False)
                found[i - begin] = self._grads[self._places]
        finally:
            np.copyto(self._grads, before)
        return found


def _begins(storage: Storage) -> dict[int, int]:
    """Where each trainable parameter begins in their vector, by its offset in `grads`."""
    found, begin = {}, 0
    for p in storage.trainable():
        found[storage.place(p)[1]] = begin
        begin += int(np.prod(p.shape))
    return found


def _check_apart(model: Any, modes: Modes) -> None:
    """Raise UsageError where the outputs of a row depend on other rows."""
    for mode, (_, layer) in zip(modes, model._flat, strict=True):
        if (mode or layer.joins_rows) and layer.min_training_rows > 1:
            raise UsageError(
                f"{layer.label} computes statistics of a minibatch, so that rows have no gradients of "
                "their own; let it use its running statistics by model.eval() and respect_modes=True, or "
                "leave it out"
            )


def _check_draws(program: np.ndarray) -> None:
    """Raise UsageError where a program draws, for rows that run one by one."""
    for _, kernel in kernels_of(program):
        if "seed" in kernel.arguments:
            raise UsageError(
                f"the model draws random numbers ({kernel.op.name}) and has parameters outside linear "
                "layers, so that its rows would draw other numbers one by one than together; switch the "
                "draws off by model.eval() and respect_modes=True"
            )
