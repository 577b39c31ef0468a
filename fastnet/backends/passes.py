"""Passes: an update outside a training step, which runs repeatedly with new numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnet.backends.base import Backend, Counter, Run
from fastnet.backends.executor import team_for, update_work
from fastnet.backends.steps import Update
from fastnet.op import Array
from fastnet.plan.instructions import copied
from fastnet.plan.records import CONTEXT, SEGMENT, scratch_memory
from fastnet.plan.segments import Storage


class Passes:
    """Prepares an update (see Update.alone) and its context once, for many calls."""

    def __init__(self, update: Update, storage: Storage, backend: Backend) -> None:
        self._hyper, self._own = update.table[0], update.segments
        self._backend = backend
        self._program = program = copied(update.program)  # models of one structure share it
        self._work, self._team = update_work(update.program), 0
        self._context = np.zeros(1, CONTEXT)
        for name, block in {**storage.segments, **self._own}.items():
            self._context["segment"][0, SEGMENT[name]] = block.ctypes.data
        self._context["hyper"] = self._hyper.ctypes.data
        self._context["hyper_size"] = self._hyper.shape[1]
        backend.prepare(program)
        self._run = backend.runner(program, self._context)

    def __call__(self, numbers: Any) -> None:
        """Run once with these numbers, (ops, numbers), or with one number for all."""
        self._share()
        self._hyper[...] = numbers
        self._run()

    def _share(self) -> None:
        """Allocate the scratch memory of as many threads as share the update."""
        team = team_for(self._work)
        if team != self._team:
            self._scratch, self._team = scratch_memory(team), team
            self._context["scratch"], self._context["threads"] = self._scratch.ctypes.data, team

    def call(self, table: Array, counters: Sequence[Counter]) -> Run | None:
        """A native function that runs once more with each call, with the table's next numbers.

        table: (times, ops, numbers). See Backend.update_call.
        """
        self._share()
        kept = self, self._scratch
        return self._backend.update_call(self._context, self._program, table, kept, counters)
