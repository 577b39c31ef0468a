"""Losses outside a model: a plan of the loss alone, which the C backend runs where it is loaded."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from fastnet.backends import registry
from fastnet.backends.base import Result, Step
from fastnet.backends.executor import Executor
from fastnet.backends.steps import Steps
from fastnet.data.dataset import Dataset
from fastnet.losses.base import Loss
from fastnet.model.structure import Ending, graph_of_loss
from fastnet.model.ways import accepted_targets
from fastnet.op import Array
from fastnet.plan.compiler import compile_plan
from fastnet.plan.graph import derived_of, numbers_of
from fastnet.plan.segments import Storage

KEPT = 32  # plans kept for a thread
ROWS = 256  # rows that a plan takes at least


class _Thread(threading.local):
    """A thread's native functions, since each has a workspace."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[Any, tuple[int, Step | None]] = {}  # and the most rows that they take


_thread = _Thread()


def step_of(loss: Loss, output: Array, target: Array) -> Step | None:
    """A native function (output, target, gradient, None) → loss for such arrays, for this thread.

    target: a checked one. It writes dL/d-output into `gradient`. It returns None where it declines, see
    Backend.step_call. None: the reference must do it.
    """
    labels = target.ndim == 1 and target.dtype == np.int64
    key = loss.plan_key(), output.shape[1:], output.dtype, labels or target.shape[1:]
    rows, step = _thread.steps.get(key, (0, None))
    if rows < len(output):
        rows = max(ROWS, 1 << (len(output) - 1).bit_length())
        step = _made(loss, output, target, rows, labels=labels)
        _thread.steps.pop(key, None)
        _thread.steps[key] = rows, step
        if len(_thread.steps) > KEPT:
            del _thread.steps[next(iter(_thread.steps))]
    return step


def _made(loss: Loss, output: Array, target: Array, rows: int, *, labels: bool) -> Step | None:
    shape, dtype = tuple(output.shape[1:]), output.dtype
    data = Dataset(output[:0], target[:0], classes=shape[0] if labels and shape else 0)
    accepted = accepted_targets(loss, data)
    if accepted is None or not math.prod(shape) or (labels and not data.classes):
        return None
    storage = Storage([], dtype)
    structure = graph_of_loss(shape, Ending(loss, labels))
    if derived_of(structure.graph):  # tensors of the loss's own, such as weights of classes
        return None
    plan = compile_plan(structure, storage, rows, alone=True)
    executor = Executor(plan, storage, registry.get("c"))
    executor.use(numbers_of(structure.graph), ())
    steps = Steps(np.arange(rows), np.zeros(2, np.int64), 0, 0)
    assert plan.dx is not None
    result = Result(executor.address(plan.dx), shape, math.prod(shape) * dtype.itemsize)
    return executor.step_call(data, steps, None, accepted, 1, (), result)
