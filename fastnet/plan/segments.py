"""A model's segments: parameters, gradients and buffers, each an aligned block that never moves."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from fastnet.op import Array
from fastnet.parameter import Parameter
from fastnet.plan.records import ALIGNMENT, aligned, zeros_aligned


class Storage:
    """Lays out parameters: their values and gradients become views of the segments.

    `params` and `grads` have one layout, in which each tensor starts at a multiple of 64 bytes. The padding
    between tensors is zero and stays zero, so that an optimizer or a norm may process the whole vector.
    `version` counts changes of values; derived tensors and pending gradients compare it. `host_version`
    counts changes of anything in the segments that no backend made; a backend with memory of its own
    compares it.
    """

    def __init__(self, parameters: Iterable[Parameter], dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.version = self.host_version = 0
        self.editing = False  # while True, readers of values call take_edits first
        self._edits: list[tuple[Array, Array]] = []  # values, and their edited copies
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
            view = self.view(p, self.segments)
            if p.value is not None:
                np.copyto(view, p.value, casting="unsafe")
            p.value = view
            p.grad = None if p.buffer else self.view(p, {"params": self.segments["grads"]})

    @cached_property
    def layout(self) -> tuple[str, tuple[tuple[int, ...], ...]]:
        """What the vector of parameters looks like: the dtype, and the parameters' shapes in order."""
        return self.dtype.name, tuple(p.shape for p in self.parameters())

    def place(self, parameter: Parameter) -> tuple[str, int]:
        """The segment and the offset in bytes of a parameter's value."""
        return self._places[id(parameter)]

    def nbytes(self, parameter: Parameter) -> int:
        """The bytes of a parameter's value, padding included."""
        return aligned(int(math.prod(parameter.shape)) * self._dtype(parameter).itemsize)

    def parameters(self) -> list[Parameter]:
        """The parameters in the segment `params`, in its order: all but the buffers."""
        return [p for p in self._held if not p.buffer]

    def trainable(self) -> list[Parameter]:
        """The parameters that are neither frozen nor buffers."""
        return [p for p in self._held if p.trainable]

    def freeze(self, parameters: Iterable[Parameter]) -> None:
        """Freeze exactly these parameters and buffers, no others; gradients of frozen ones are zero."""
        self.frozen = frozenset(id(p) for p in parameters)
        for p in self._held:
            p.frozen = id(p) in self.frozen
            if p.frozen and p.grad is not None:
                p.grad.fill(0)
        self.host_version += 1

    def trainable_places(self) -> Array:
        """The indices in `flat` of the elements of trainable parameters, in order."""
        starts = [self.place(p)[1] // self.dtype.itemsize for p in self.trainable()]
        sizes = [int(math.prod(p.shape)) for p in self.trainable()]
        parts = [np.arange(a, a + n) for a, n in zip(starts, sizes, strict=True)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def parts(self, vector: Array) -> list[Array]:
        """Each parameter's part of a vector with the layout of `params`: views in PyTorch's shapes.

        A vector that is n times as long has n numbers for each of the parameter's: (n, *shape).
        """
        found, width = [], vector.size // max(1, self.flat("params").size)
        for p in self.parameters():
            begin = width * self.place(p)[1] // vector.itemsize
            part = vector[begin : begin + width * math.prod(p.shape)]
            if width == 1:
                found.append(p.shown(part.reshape(p.shape)))
            else:
                found.append(p.shown_each(part.reshape(width, *p.shape)))
        return found

    def flat(self, segment: str) -> Array:
        """`params` or `grads` as one vector of the model's dtype, padding included."""
        return self.segments[segment].view(self.dtype)

    def begin_edit(self, edits: list[tuple[Array, Array]]) -> None:
        """Let these values follow their edited copies until `take_edits(last=True)`."""
        self._edits, self.editing = edits, True

    def take_edits(self, *, last: bool = False) -> None:
        """Write the edited copies to the values; with `last`, the edit ends."""
        with self._taking:  # a predicting thread must not write after the last time
            for value, edited in self._edits:
                np.copyto(value, edited)
            if self.editing:
                self.version += 1
                self.host_version += 1
            if last:
                self._edits, self.editing = [], False

    def _dtype(self, p: Parameter) -> np.dtype[Any]:
        return np.dtype(p.dtype) if p.dtype else self.dtype

    def view(self, p: Parameter, segments: Mapping[str, Array]) -> Array:
        """A parameter's value in copies of the segments `params` and `buffers`."""
        segment, offset = self.place(p)
        dtype = self._dtype(p)
        nbytes = int(math.prod(p.shape)) * dtype.itemsize
        block = segments[segment][offset : offset + nbytes]
        return block.view(dtype).reshape(p.shape)


def pack(items: list[tuple[int, int, int]], alignment: int = ALIGNMENT) -> tuple[list[int], int]:
    """Offsets for blocks (bytes, birth, death) such that blocks alive together never overlap.

    alignment: what offsets and the total are multiples of, in bytes.

    Times are inclusive. The largest blocks come first, each at the lowest offset that is free during its
    lifetime. Returns the offsets and the total number of bytes.
    """

    def aligned(nbytes: int) -> int:
        return -(-nbytes // alignment) * alignment

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
    assert total % alignment == 0
    return offsets, total
