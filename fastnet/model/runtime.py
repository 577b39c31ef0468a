"""Runtime: the plans that a model has compiled so far, each with its workspace, and their backend."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from fastnet import parallel
from fastnet.backends.base import Backend
from fastnet.backends.executor import Executor, FastPath
from fastnet.backends.passes import Passes
from fastnet.backends.steps import Update
from fastnet.layers.base import Shape
from fastnet.model.structure import Ending, graph_of
from fastnet.op import Op
from fastnet.plan.compiler import Plan, compile_plan
from fastnet.plan.extras import Extras
from fastnet.plan.graph import Structure, derived_of, numbers_of, signature_of
from fastnet.plan.segments import Storage

PREDICT_ROWS = 256  # rows that a prediction takes at once where the caller does not say
KEPT = 8  # plans of a model, and as many of each thread that predicts: those used last
PLANS = 64  # plans of all models
Made = TypeVar("Made")
Modes = tuple[bool, ...]  # for each layer: whether it is in training mode


class _Kept:
    """What was compiled and described last."""

    def __init__(self) -> None:
        self.executors: dict[Any, Executor] = {}  # by signature
        self.described: dict[Any, Described] = {}  # by what is asked for


class _Thread(_Kept, threading.local):
    """What a thread predicts with."""

    def __init__(self) -> None:
        super().__init__()
        self.fast_path: FastPath = lambda x, out: None  # of the executor that it used last


class Described:
    """A structure, and what is not its signature's."""

    def __init__(self, structure: Structure, storage: Storage) -> None:
        self.structure = structure
        self.numbers, self.derived = numbers_of(structure.graph), derived_of(structure.graph)
        sizes = tuple((name, block.nbytes) for name, block in storage.segments.items())
        self.signature = signature_of(structure, storage.place), sizes, storage.dtype.name


class Runtime:
    """Compiles plans when they are first needed, and again where a minibatch is larger than before.

    A plan depends on the shape of an input row, the modes of the layers, and the kind of loss and of its
    targets; it is kept for all models of one architecture. The numbers of losses and layers are given to
    it: those that change in every call leave no trail. What trains by it is the model's, under its lock;
    what predicts belongs to a thread. Of either, those used last are kept.
    """

    def __init__(self, model: Any, storage: Storage, backend: Backend) -> None:
        self._model = weakref.ref(model)  # which keeps this
        self.layers = [layer for _, layer in model.layers]
        self.storage, self.backend = storage, backend
        self.kept, self.thread = _Kept(), _Thread()
        self.extras = Extras(storage)

    def executor(
        self, shape: Shape, rows: int, modes: Modes, ending: Ending | None = None
    ) -> Executor:
        """Forward and backward of the model for at most `rows` rows, ending in a loss if given."""
        return self._executor(self.kept, shape, rows, modes, ending)

    def training_workspace(self, shape: Shape, rows: int) -> int:
        """The bytes of workspace that training with minibatches of `rows` rows takes."""
        described = self._describe(shape, (True,) * len(self.layers), None, fold=False)
        return plan_of(described, self.storage, rows, backward=True).workspace_bytes

    def predictor(self, shape: Shape, rows: int) -> Executor:
        """The forward in evaluation mode for at most `rows` rows, with a workspace of this thread's.

        Its fast path is the thread's from now on.
        """
        executor = self.evaluator(shape, max(rows, PREDICT_ROWS), None)
        self.thread.fast_path = executor.fast_path()
        return executor

    def evaluator(self, shape: Shape, rows: int, ending: Ending | None) -> Executor:
        """The same, ending in a loss if given: its steps measure that."""
        modes = (False,) * len(self.layers)
        return self._executor(self.thread, shape, rows, modes, ending, fold=True)

    def passes(self, update: Update) -> Passes:
        """An update by itself, ready to run."""
        made: Passes | None = self.backend.passes(update, self.storage)
        return made or Passes(update, self.storage, self.backend)

    def extra(self, extras: Extras, ops: tuple[type[Op], ...]) -> Callable[[Any], None]:
        """The passes of extras by these ops, one after the other, ready to run."""
        key = self.backend.name, ops
        extras.need(ops)
        if key not in extras.ready:
            program = np.concatenate([extras.instruction(op, row) for row, op in enumerate(ops)])
            update = Update.alone(program, ops, training=extras.segment)
            extras.ready[key] = self.passes(update)
        return extras.ready[key]

    def _executor(
        self,
        kept: _Kept,
        shape: Shape,
        rows: int,
        modes: Modes,
        ending: Ending | None,
        *,
        fold: bool = False,
    ) -> Executor:
        key = shape, modes, ending and ending.key(), self.storage.frozen
        described = _last_used(
            kept.described, key, lambda: self._describe(shape, modes, ending, fold=fold)
        )
        executor = kept.executors.get(described.signature)
        if executor is not None and executor.plan.max_rows < rows:
            del kept.executors[described.signature]
        executor = _last_used(
            kept.executors, described.signature, lambda: self._made(described, rows, not fold)
        )
        executor.use(described.numbers, described.derived)
        return executor

    def _describe(
        self, shape: Shape, modes: Modes, ending: Ending | None, *, fold: bool
    ) -> Described:
        model = self._model()
        assert model is not None
        training = dict(zip(map(id, self.layers), modes, strict=True))
        return Described(graph_of(model, shape, training, ending, fold=fold), self.storage)

    def _made(self, described: Described, rows: int, backward: bool) -> Executor:
        plan = plan_of(described, self.storage, rows, backward=backward).copy()
        made: Executor | None = self.backend.executor(plan, self.storage)
        return made or Executor(plan, self.storage, self.backend)


_plans: dict[Any, Plan] = {}  # by signature, rows and whether there is a backward
_lock = parallel.across_forks(threading.Lock())


def plan_of(described: Described, storage: Storage, rows: int, *, backward: bool) -> Plan:
    """The plan of a structure for at most `rows` rows, which whoever runs it copies."""
    with _lock:
        return _last_used(
            _plans,
            (described.signature, rows, backward),
            lambda: compile_plan(described.structure, storage, rows, backward=backward),
            PLANS,
        )


def _last_used(
    cache: dict[Any, Made], key: Any, make: Callable[[], Made], most: int = KEPT
) -> Made:
    """What is kept under a key, or made; as the last one used, before which others are dropped."""
    value = cache.pop(key, None)
    if value is None:
        value = make()
    cache[key] = value
    if len(cache) > most:
        del cache[next(iter(cache))]
    return value
