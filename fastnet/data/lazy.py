"""Lazy rows: inputs whose numbers are made where they are read, a minibatch at a time."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from fastnet.op import Array


class LazyRows:
    """Base of inputs that are not an array of numbers. LazyRows of `shape` and, once made, of `dtype`.

    array: what is stored. scale: the factor of each number, or 0 for none. begins, columns: of sparse
    rows, where in `array` each of them begins and ends, int64 (n + 1,), and the columns of its numbers,
    int32; else None.
    """

    begins: Array | None = None
    columns: Array | None = None

    def __init__(self, array: Array, shape: tuple[int, ...], dtype: Any, scale: float) -> None:
        self.array, self.shape, self.dtype, self.scale = array, shape, np.dtype(dtype), scale

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Self:
        """Some of the rows: a slice, or an array of their numbers."""
        raise NotImplementedError

    def numbers(self) -> Array:
        """The numbers of all rows, a new array."""
        raise NotImplementedError

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        made = self.numbers()
        return made if dtype is None else made.astype(dtype, copy=False)

    def scaled(self, numbers: Array) -> Array:
        """Stored numbers in `dtype`, and then times the factor."""
        made: Array = numbers.astype(self.dtype)
        if self.scale:
            made *= self.dtype.type(self.scale)
        return made
