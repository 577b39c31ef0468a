"""Extras: passes that a trainer, or a loop of your own, adds to those of an optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastnet.op import Array, Op
from fastnet.plan.instructions import Place, blocks_of, control, update_pass
from fastnet.plan.records import NORM_NOT_FINITE, PARAMS_NOT_FINITE, aligned, zeros_aligned
from fastnet.plan.segments import Storage


class Extras:
    """Compiles added passes for a model, each over all parameters.

    Tensors of their ops other than w and g, such as a sum of gradients or their norm, lie in the segment
    `training`, which this object owns. Tensors with the same name in different ops are the same.
    """

    def __init__(self, storage: Storage) -> None:
        self.dtype, length = storage.dtype, storage.segments["params"].nbytes
        count = length // self.dtype.itemsize
        self._dims = {"N": count, "M": blocks_of(count)}
        self._places: dict[str, Place] = {"w": ("params", 0), "g": ("grads", 0)}
        self.segment = zeros_aligned(0)
        # By backend name and ops: a function that runs these ops.
        self.ready: dict[tuple[str, tuple[type[Op], ...]], Callable[[Any], None]] = {}

    def need(self, ops: Iterable[type[Op]]) -> None:
        """Allocate all tensors of these ops. A longer segment keeps the values of the old one."""
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
        """A tensor of an op, as a view that is valid until another `need`."""
        self.need([op])
        spec, begin = op.tensors[name], self._places[name][1]
        dtype = np.dtype(spec.dtype or self.dtype)
        count = math.prod(self._dims.get(d) or int(d) for d in spec.dims)
        found: Array = self.segment[begin : begin + count * dtype.itemsize].view(dtype)
        return found

    def instruction(self, op: type[Op] | str, row: int) -> np.ndarray[Any, Any]:
        """The instruction of a pass or of a control (by name), with its row of the table."""
        if op == "check":
            return control(op, [self._places["norm"]], [NORM_NOT_FINITE])
        if op == "finite":
            params = self._dims["N"] * self.dtype.itemsize
            return control(op, [("params", 0)], [params, PARAMS_NOT_FINITE], row)
        if isinstance(op, str):
            return control(op, row=row)
        return update_pass(op, self.dtype, self._places, [self._dims[d] for d in op.dims], row)
