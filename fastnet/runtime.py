"""Runtime: the plans that a model has compiled so far, each with its workspace, and their backend."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.backends.base import Backend
from fastnet.backends.executor import Executor
from fastnet.backends.passes import Passes
from fastnet.errors import UsageError
from fastnet.layers.base import Layer, Shape
from fastnet.losses.base import Loss
from fastnet.losses.function import FunctionLoss
from fastnet.op import ROWS, Array, Op
from fastnet.plan.compiler import Plan, compile_plan
from fastnet.plan.extras import Extras
from fastnet.plan.fusion import fold_batchnorm, join_dropout
from fastnet.plan.graph import Graph, Tensor
from fastnet.plan.segments import Storage

PREDICT_ROWS = 256  # rows that a prediction takes at once where the caller does not say
KEPT = 8  # plans of a model, and as many of each thread that predicts: those used last
Modes = tuple[bool, ...]  # for each layer: whether it is in training mode


@dataclass(frozen=True)
class Ending:
    """The loss that a plan ends in, and what its targets are."""

    loss: Loss
    labels: bool  # int64 (n,), else numbers
    weighted: bool = False  # by weights of the samples
    by_rows: bool = False  # a mean is over the rows, and not over their weights

    def key(self) -> Any:
        """What a plan depends on: that of a function of Python's ends in its output."""
        if isinstance(self.loss, FunctionLoss):
            return FunctionLoss
        return self.loss.plan_key(), self.labels, self.weighted, self.by_rows


class _Thread(threading.local):
    """What a thread predicts with."""

    def __init__(self) -> None:
        self.executors: dict[Any, Executor] = {}
        # The predictor that it used last, for what that takes as it is.
        self.short_way: Callable[[Any, Any], Array | None] = lambda x, out: None


class Runtime:
    """Compiles plans when they are first needed, and again where a minibatch is larger than before.

    A plan depends on the shape of an input row, the modes of the layers, and the loss with its kind of
    targets. Plans that train are the model's, under its lock; plans that predict belong to a thread. Of
    either, those used last are kept: hyper-parameters of a loss that change in every call leave no trail.
    """

    def __init__(self, layers: list[Layer], storage: Storage, backend: Backend) -> None:
        self.layers, self.storage, self.backend = layers, storage, backend
        self._executors: dict[Any, Executor] = {}
        self.thread = _Thread()
        self.extras = Extras(storage)

    def executor(
        self, shape: Shape, rows: int, modes: Modes, ending: Ending | None = None
    ) -> Executor:
        """Forward and backward of the model for at most `rows` rows, ending in a loss if given."""
        key = shape, modes, ending and ending.key(), self.storage.frozen
        return self._cached(
            self._executors, key, rows, lambda: self._compile(shape, rows, modes, ending)
        )

    def training_workspace(self, shape: Shape, rows: int) -> int:
        """The bytes of workspace that training with minibatches of `rows` rows takes."""
        return self._plan(shape, rows, (True,) * len(self.layers)).workspace_bytes

    def predictor(self, shape: Shape, rows: int) -> Executor:
        """The forward in evaluation mode for at most `rows` rows, with a workspace of this thread's."""
        executor = self._predictor(shape, max(rows, PREDICT_ROWS))
        self.thread.short_way = executor.short_way()
        return executor

    def _predictor(self, shape: Shape, rows: int) -> Executor:
        return self.evaluator(shape, rows, None)

    def evaluator(self, shape: Shape, rows: int, ending: Ending | None) -> Executor:
        """The same, ending in a loss if given: its steps measure that."""
        modes = (False,) * len(self.layers)
        return self._cached(
            self.thread.executors,
            (shape, ending and ending.key()),
            rows,
            lambda: self._compile(shape, rows, modes, ending, fold=True),
        )

    def passes(self, program: np.ndarray, ops: Sequence[type[Op]], own: dict[str, Array]) -> Passes:
        """An update program, ready to run."""
        made: Passes | None = self.backend.passes(program, ops, own, self.storage)
        return made or Passes(program, ops, own, self.storage, self.backend)

    def extra(self, extras: Extras, ops: tuple[type[Op], ...]) -> Callable[[Any], None]:
        """The passes of extras by these ops, one after the other, ready to run."""
        key = self.backend.name, ops
        if key not in extras.ready:
            program = np.concatenate([extras.instruction(op, row) for row, op in enumerate(ops)])
            extras.ready[key] = self.passes(program, ops, {"training": extras.segment})
        return extras.ready[key]

    @staticmethod
    def _cached(cache: dict[Any, Executor], key: Any, rows: int, make: Any) -> Executor:
        executor = cache.pop(key, None)
        if executor is None or executor.plan.max_rows < rows:
            executor = make()
        cache[key] = executor  # as the last one used
        if len(cache) > KEPT:
            del cache[next(iter(cache))]
        return executor

    def _compile(
        self,
        shape: Shape,
        rows: int,
        modes: Modes,
        ending: Ending | None = None,
        *,
        fold: bool = False,
    ) -> Executor:
        plan = self._plan(shape, rows, modes, ending, fold=fold)
        made: Executor | None = self.backend.executor(plan, self.storage)
        return made or Executor(plan, self.storage, self.backend)

    def _plan(
        self,
        shape: Shape,
        rows: int,
        modes: Modes,
        ending: Ending | None = None,
        *,
        fold: bool = False,
    ) -> Plan:
        graph = Graph()
        x = output = Tensor((ROWS, *shape), segment="x")
        target = value = None
        for training, layer in zip(modes, self.layers, strict=True):
            shape = layer.output_shape(shape)
            graph.training = training
            output = layer.emit(graph, output)
        host = ending is not None and isinstance(ending.loss, FunctionLoss)
        if ending is not None and not host:
            target = Tensor((ROWS,), "int64", segment="y")
            if not ending.labels:
                target = Tensor((ROWS, *ending.loss.target_shape(shape)), segment="y")
            weight = Tensor((ROWS,), segment="w") if ending.weighted else None
            mean = _mean_by_rows(ending.loss) if ending.by_rows else {}
            value = ending.loss.emit(graph, output, target, weight, **mean)
        graph = join_dropout(graph, output)
        if fold:
            graph = fold_batchnorm(graph, output)
        return compile_plan(
            graph,
            x,
            output,
            self.storage,
            rows,
            target=target,
            loss=value,
            weighted=ending is not None and ending.weighted and not host,
            host=host,
            backward=not fold,
        )


def _mean_by_rows(loss: Loss) -> dict[str, bool]:
    """What asks `emit` for a mean by rows; UsageError where a loss of somebody's own does not take it."""
    try:
        inspect.signature(loss.emit).bind(None, None, None, None, by_rows=True)
    except TypeError:
        raise UsageError(
            f"{type(loss).__name__}.emit takes no by_rows, which weights of samples or classes need in "
            "fit; write def emit(self, g, output, target, weight=None, *, by_rows=False), where with "
            "by_rows=True a mean divides by the number of rows, or fit without weights"
        ) from None
    return {"by_rows": True}
