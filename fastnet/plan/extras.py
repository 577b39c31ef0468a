"""Extras: the passes that a trainer, or a loop of one's own, puts around those of an optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastnet.op import Array, Op
from fastnet.plan.instructions import Place, control, update_pass
from fastnet.plan.records import NORM_NOT_FINITE, aligned, zeros_aligned
from fastnet.plan.segments import Storage

NORM_BLOCK = 4096  # gradients whose squares are summed by one thread


class Extras:
    """Compiles such passes for a model, each over all parameters.

    What their ops name beside w and g, such as a sum of gradients or their norm, has a place in the segment
    `training`, which this owns: the same place for all ops that give it the same name.
    """

    def __init__(self, storage: Storage) -> None:
        self.dtype, length = storage.dtype, storage.segments["params"].nbytes
        count = length // self.dtype.itemsize
        self._dims = {"N": count, "M": max(1, -(-count // NORM_BLOCK))}
        self._places: dict[str, Place] = {"w": ("params", 0), "g": ("grads", 0)}
        self.segment = zeros_aligned(0)
        # By a backend's name and ops: runs these.
        self.ready: dict[tuple[str, tuple[type[Op], ...]], Callable[[Any], None]] = {}

    def need(self, ops: Iterable[type[Op]]) -> None:
        """Have a place for all that these name. What is there stays, in a longer segment."""
        end = len(self.segment)
        for op in ops:
            for name, spec in op.tensors.items():
                if name not in self._places:
                    self._places[name] = ("training", end)
                    count = math.prod(self._dims.get(d) or int(d) for d in spec.dims)
                    end += aligned(count * np.dtype(spec.dtype or self.dtype).itemsize)
        if end > len(self.segment):
            kept, self.segment = self.segment, zeros_aligned(end)
            self.segment[: len(kept)] = kept
            self.ready.clear()

    def vector(self, op: type[Op], name: str) -> Array:
        """What an op names, a view that is valid until something else is needed."""
        self.need([op])
        spec, begin = op.tensors[name], self._places[name][1]
        dtype = np.dtype(spec.dtype or self.dtype)
        count = math.prod(self._dims.get(d) or int(d) for d in spec.dims)
        found: Array = self.segment[begin : begin + count * dtype.itemsize].view(dtype)
        return found

    def instruction(self, op: type[Op] | str, row: int) -> np.ndarray[Any, Any]:
        """The instruction of a pass, or of a control by name, with its row of the table."""
        if op == "check":
            return control(op, [self._places["norm"]], [NORM_NOT_FINITE])
        if isinstance(op, str):
            return control(op, row=row)
        return update_pass(op, self.dtype, self._places, [self._dims[d] for d in op.dims], row)
