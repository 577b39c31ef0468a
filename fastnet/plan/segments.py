"""The model's segments: parameters, gradients and buffers, each one aligned block that never moves."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastnet.op import Array
from fastnet.parameter import Parameter
from fastnet.plan.records import ALIGNMENT, aligned, zeros_aligned


class Storage:
    """Lays out parameters and takes them in: their values and gradients become views of its segments.

    `params` and `grads` share one layout, each tensor starting at a multiple of 64 bytes; the padding
    between tensors is zero and stays zero, so that an optimizer or a norm may pass over the whole
    vector. `version` counts the changes of values; derived caches and pending gradients compare it.
    `host_version` counts those that were not a backend's, of gradients and what else lies in segments too;
    a backend with memory of its own compares it.
    """

    def __init__(self, parameters: Iterable[Parameter], dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.version = self.host_version = 0
        self.editing = False  # while True, whoever reads values calls take_edits first
        self._edits: list[tuple[Array, Array]] = []  # values, and what is to be written to them
        self._taking = threading.Lock()
        self._places: dict[int, tuple[str, int]] = {}
        held = list(parameters)
        sizes = {"params": 0, "buffers": 0}
        for p in held:
            segment = "buffers" if p.buffer else "params"
            self._places[id(p)] = (segment, sizes[segment])
            sizes[segment] += self.nbytes(p)
        self.segments = {
            "params": zeros_aligned(sizes["params"]),
            "grads": zeros_aligned(sizes["params"]),
            "buffers": zeros_aligned(sizes["buffers"]),
        }
        self._held = held  # keeps the ids in _places valid
        self.frozen = frozenset(id(p) for p in held if p.frozen)
        for p in held:
            view = self._view(self.place(p), p)
            if p.value is not None:
                np.copyto(view, p.value, casting="unsafe")
            p.value = view
            p.grad = None if p.buffer else self._view(("grads", self.place(p)[1]), p)

    def place(self, parameter: Parameter) -> tuple[str, int]:
        """The segment and the offset in bytes of a parameter's value."""
        return self._places[id(parameter)]

    def nbytes(self, parameter: Parameter) -> int:
        """The bytes that a parameter's value takes, padding included."""
        return aligned(int(np.prod(parameter.shape)) * self._dtype(parameter).itemsize)

    def parameters(self) -> list[Parameter]:
        """What the segment `params` holds, in its order: all but the buffers."""
        return [p for p in self._held if not p.buffer]

    def trainable(self) -> list[Parameter]:
        """Those of them that are not frozen."""
        return [p for p in self._held if p.trainable]

    def freeze(self, parameters: Iterable[Parameter]) -> None:
        """From now on exactly these are frozen; their gradients are zero."""
        self.frozen = frozenset(id(p) for p in parameters)
        for p in self.parameters():
            p.frozen = id(p) in self.frozen
            if p.frozen and p.grad is not None:
                p.grad.fill(0)
        self.host_version += 1

    def trainable_places(self) -> Array:
        """Where `flat` holds the elements of trainable parameters, in order."""
        starts = [self.place(p)[1] // self.dtype.itemsize for p in self.trainable()]
        sizes = [int(np.prod(p.shape)) for p in self.trainable()]
        parts = [np.arange(a, a + n) for a, n in zip(starts, sizes, strict=True)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def parts(self, vector: Array) -> list[Array]:
        """Views of a vector laid out as `params`: each parameter's part, in PyTorch's shape."""
        found = []
        for p in self.parameters():
            begin = self.place(p)[1] // vector.itemsize
            found.append(p.shown(vector[begin : begin + math.prod(p.shape)].reshape(p.shape)))
        return found

    def flat(self, segment: str) -> Array:
        """`params` or `grads` as one vector of the model's dtype, padding included."""
        return self.segments[segment].view(self.dtype)

    def begin_edit(self, edits: list[tuple[Array, Array]]) -> None:
        """From now on these values are those of the arrays beside them, which somebody writes to."""
        self._edits, self.editing = edits, True

    def take_edits(self, *, last: bool = False) -> None:
        """Write what has been edited to the values; with `last`, the edit ends."""
        with self._taking:  # threads may predict: none may write after the last
            for value, edited in self._edits:
                np.copyto(value, edited)
            if self.editing:
                self.version += 1
                self.host_version += 1
            if last:
                self._edits, self.editing = [], False

    def _dtype(self, p: Parameter) -> np.dtype[Any]:
        return np.dtype(p.dtype) if p.dtype else self.dtype

    def _view(self, place: tuple[str, int], p: Parameter) -> Array:
        segment, offset = place
        dtype = self._dtype(p)
        nbytes = int(np.prod(p.shape)) * dtype.itemsize
        block = self.segments[segment][offset : offset + nbytes]
        return block.view(dtype).reshape(p.shape)


def pack(items: list[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Offsets for blocks (bytes, birth, death) such that blocks alive together never overlap.

    Times are inclusive. Large blocks are placed first, each at the lowest offset that is free all its
    life. Returns the offsets and the total number of bytes.
    """
    offsets = [0] * len(items)
    placed: list[int] = []
    for i in sorted(range(len(items)), key=lambda i: (-items[i][0], items[i][1])):
        size, birth, death = items[i]
        clashes = sorted(
            (offsets[j], offsets[j] + aligned(items[j][0]))
            for j in placed
            if items[j][1] <= death and birth <= items[j][2]
        )
        offset = 0
        for low, high in clashes:
            if offset + size <= low:
                break
            offset = max(offset, high)
        offsets[i] = offset
        placed.append(i)
    total = max((offsets[i] + aligned(items[i][0]) for i in placed), default=0)
    assert total % ALIGNMENT == 0
    return offsets, total
