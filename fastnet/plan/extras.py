"""Extras: the passes that a trainer, or a loop of one's own, puts around those of an optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.op import Op
from fastnet.plan.instructions import Place, control, update_pass
from fastnet.plan.records import NORM_NOT_FINITE, aligned, zeros_aligned
from fastnet.plan.segments import Storage

NORM_BLOCK = 4096  # gradients whose squares are summed by one thread


class Extras:
    """Compiles such passes for a model, each over all parameters; owns the segment `training`."""

    def __init__(self, storage: Storage) -> None:
        self.dtype, length = storage.dtype, storage.segments["params"].nbytes
        count = length // self.dtype.itemsize
        self._dims = {"N": count, "M": max(1, -(-count // NORM_BLOCK))}
        self._places: dict[str, Place] = {"w": ("params", 0), "g": ("grads", 0)}
        sizes = {"norm": 8, "sums": 8 * self._dims["M"], "total": length, "average": length}
        end = 0
        for name, nbytes in sizes.items():
            self._places[name] = ("training", end)
            end += aligned(nbytes)
        self.segment = zeros_aligned(end)  # of which the system gives what is touched
        self.norm = self.segment[:8].view(np.float64)
        begin = self._places["average"][1]
        self.average = self.segment[begin : begin + length].view(self.dtype)
        # By a backend's name and ops: runs these.
        self.ready: dict[tuple[str, tuple[type[Op], ...]], Callable[[Any], None]] = {}

    def instruction(self, op: type[Op] | str, row: int) -> np.ndarray[Any, Any]:
        """The instruction of a pass, or of a control by name, with its row of the table."""
        if op == "check":
            return control(op, [self._places["norm"]], [NORM_NOT_FINITE])
        if isinstance(op, str):
            return control(op, row=row)
        return update_pass(op, self.dtype, self._places, [self._dims[d] for d in op.dims], row)
