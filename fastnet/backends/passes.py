"""Passes: an update program that is ready to run again and again, each time with new numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnet.backends.base import Backend
from fastnet.backends.executor import team_for, update_work
from fastnet.op import Array, Op
from fastnet.plan.records import CONTEXT, SCRATCH, SEGMENT, zeros_aligned
from fastnet.plan.segments import Storage


class Passes:
    """Prepares a program over a model's parameters, and a context that is filled once.

    ops: those of the rows of numbers, in order. own: the segments that are not the model's.
    """

    def __init__(
        self,
        program: np.ndarray,
        ops: Sequence[type[Op]],
        own: dict[str, Array],
        storage: Storage,
        backend: Backend,
    ) -> None:
        self._hyper = np.zeros((len(ops), max((len(op.hyper) for op in ops), default=0)))
        self._own, self._work, self._team = own, update_work(program), 0
        self._context = np.zeros(1, CONTEXT)
        for name, block in {**storage.segments, **own}.items():
            self._context["segment"][0, SEGMENT[name]] = block.ctypes.data
        self._context["hyper"] = self._hyper.ctypes.data
        self._context["hyper_size"] = self._hyper.shape[1]
        backend.prepare(program)
        self._run = backend.runner(program, self._context)

    def __call__(self, numbers: Any) -> None:
        """Run once with these numbers, (ops, numbers), or one for all."""
        team = team_for(self._work)
        if team != self._team:
            self._scratch, self._team = zeros_aligned(team * SCRATCH), team
            self._context["scratch"], self._context["threads"] = self._scratch.ctypes.data, team
        self._hyper[...] = numbers
        self._run()
