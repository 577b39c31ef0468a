"""The updates of a fit on several processes: an optimizer's chain of passes, on gradients that are sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.executor import Executor, team_for, update_work
from fastnet.backends.steps import Update, norm_diverged
from fastnet.op import Array
from fastnet.plan.records import CONTEXT, KIND, NORM_NOT_FINITE, OK, SEGMENT, TRAIN, scratch_memory


class AcrossUpdate:
    """Runs the updates of a chunk one by one; it reads the gradients from a vector of its own."""

    def __init__(self, executor: Executor, grads: Array) -> None:
        self._backend, self._grads = executor.backend, grads
        self._args = np.zeros(1, TRAIN)
        self._field = {name: self._args[name] for name in TRAIN.names or ()}
        self._context = {name: self._args["context"][name] for name in CONTEXT.names or ()}
        for name, block in executor.storage.segments.items():
            self._context["segment"][0, SEGMENT[name]] = block.ctypes.data
        self._context["segment"][0, SEGMENT["grads"]] = grads.ctypes.data
        self._field["dtype"][0] = KIND[grads.dtype.name]
        self._of: Any = None  # the update whose program is ready
        self._program = np.zeros(0)
        self._index = np.zeros(1, np.int64)

    def load(self, update: Update, steps: int) -> None:
        """Make the updates of so many steps ready."""
        field, context = self._field, self._context
        self._kept = update  # alive while it runs
        if self._of is not update.program:
            self._of, self._program = update.program, update.program.copy()
            self._backend.prepare(self._program)
            team = team_for(update_work(self._program))
            self._scratch = scratch_memory(team)
            context["scratch"][0], context["threads"][0] = self._scratch.ctypes.data, team
        for name, block in (("state", update.state), ("training", update.training)):
            context["segment"][0, SEGMENT[name]] = 0 if block is None else block.ctypes.data
        context["hyper"][0] = update.table.ctypes.data
        context["hyper_size"][0] = update.table.shape[2]
        field["table_bytes"][0] = 8 * math.prod(update.table.shape[1:])
        field["program"][0], field["count"][0] = self._program.ctypes.data, len(self._program)
        self._offsets, self._losses = np.zeros(steps + 1, np.int64), np.empty(steps)
        field["batch_offsets"][0] = self._offsets.ctypes.data
        field["index"][0], field["losses"][0] = self._index.ctypes.data, self._losses.ctypes.data
        field["done"][0] = field["at"][0] = 0

    def run(self) -> None:
        """Run the next update; raises DivergenceError, and changes nothing, if the norm is not finite."""
        field = self._field
        done = int(field["done"][0])
        field["steps"][0], field["status"][0], field["at"][0] = done + 1, OK, 0
        self._backend.train(self._args)
        if int(field["status"][0]) == NORM_NOT_FINITE:
            raise norm_diverged(self.first_step + done, float(field["value"][0]))

    first_step = 0  # of the chunk, for messages
