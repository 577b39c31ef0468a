"""Runtime: the compiled plans of a model, each with its workspace, and their backend."""

from __future__ import annotations

import copy
import math
import threading
import weakref
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnet import parallel
from fastnet.backends import registry
from fastnet.backends.base import Backend
from fastnet.backends.executor import Executor, FastPath
from fastnet.backends.passes import Passes
from fastnet.backends.steps import Update
from fastnet.data.codes import Code, Codes
from fastnet.errors import HyperparameterError, shown
from fastnet.layers.base import Shape
from fastnet.losses import base as losses
from fastnet.model import lone
from fastnet.model.alike import kind_of
from fastnet.model.structure import Ending, graph_below_head, graph_of
from fastnet.op import Op
from fastnet.plan.compiler import Plan, compile_plan
from fastnet.plan.extras import Extras
from fastnet.plan.fusion import multiply_in_bfloat16, pack_weights
from fastnet.plan.graph import (
    Structure,
    derived_of,
    numbers_of,
    objects_of,
    scheduled_of,
    signature_of,
)
from fastnet.plan.instructions import update_pass
from fastnet.plan.kept import last_used
from fastnet.plan.segments import Storage

if TYPE_CHECKING:
    from fastnet.backends.rows import RowExecutor
    from fastnet.layers.hierarchical import Head

PREDICT_ROWS = 256  # rows of a native call of `predict`, by default
KEPT = 8  # plans kept for a model, and for each thread that predicts
PLANS = 64  # plans kept for all models
Modes = tuple[bool, ...]  # for each layer, whether it is in training mode, or SYNCED


class _Cache:
    """A cache of executors and of the structures that they run."""

    def __init__(self) -> None:
        self.executors: dict[Any, Executor] = {}  # by signature
        self.described: dict[Any, Described] = {}  # by shape, modes and ending


def no_path(x: Any, out: Any) -> None:
    """A fast path that takes nothing."""


class _Thread(_Cache, threading.local):
    """The cache of a thread that predicts."""

    def __init__(self) -> None:
        super().__init__()
        self.fast_path: FastPath = no_path  # of the thread's last executor


class Described:
    """A structure with its signature, and the numbers that are not part of the signature."""

    def __init__(self, structure: Structure, storage: Storage, head: Head | None = None) -> None:
        self.head = head
        self._make: Callable[[], Structure] | None = None
        self.structure = structure
        self.numbers, self.derived = numbers_of(structure.graph), derived_of(structure.graph)
        self.objects, self.scheduled = objects_of(structure.graph), scheduled_of(structure.graph)
        sizes = tuple((name, block.nbytes) for name, block in storage.segments.items())
        self.signature = signature_of(structure, storage.place), sizes, storage.dtype.name

    def has_own(self) -> bool:
        """Whether it has more of its model than the places of parameters."""
        return bool(self.head or self.derived or self.scheduled or any(self.objects))

    def of(self, make: Callable[[], Structure] | None) -> Described:
        """The same of a model that is alike, whose structure is made where it is needed; None: of none."""
        made = copy.copy(self)
        made.__dict__.pop("structure", None)
        made._make = make
        return made

    @cached_property
    def structure(self) -> Structure:
        """The graph."""
        assert self._make is not None
        return self._make()


class Runtime:
    """Compiles plans at first use, and again for larger minibatches.

    A plan depends on the shape of an input row, the modes of the layers, and the kinds of loss and
    targets; all models of one architecture share it. Numbers of losses and layers are operands of a plan,
    so that changing them in every call compiles nothing. The model owns the executors that train, under
    its lock; each thread owns those with which it predicts. Both caches keep the last ones used.
    """

    compiled_losses = (
        True  # whether losses outside models run compiled kernels where they are loaded
    )

    def __init__(self, model: Any, storage: Storage, backend: Backend) -> None:
        self._model = weakref.ref(model)  # the model owns this object
        self.layers = [layer for _, layer in model.layers]
        self._codes: dict[int, Codes] = {}  # by number of features
        # Whether columns of the input may hold codes, at which native functions do not look.
        self.coded = any(layer.reads_codes for layer in self.layers)
        if self.coded and (shape := model.input_shape) is not None:
            self.coded = bool(self.codes(*shape).found)
        self.storage, self.backend = storage, backend
        if backend.native_calls and self.compiled_losses:
            losses.step_of = lone.step_of  # losses outside a model now use its kernels too
        self.kept, self.within, self.thread = _Cache(), _Cache(), _Thread()
        self.runners: dict[Any, Any] = {}  # of products with directions
        self.extras = Extras(storage)
        self._towards: tuple[Any, Callable[[Any], None]] = (lambda: None), _nothing

    def codes(self, features: int) -> Codes:
        """The columns of codes in an input with so many features."""
        if features not in self._codes:
            found: list[Code] = []
            model = self._model()
            assert model is not None
            model.find_codes(list(range(features)), found)
            self._codes[features] = Codes(found)
        return self._codes[features]

    def admits(self, x: Any) -> bool:
        """Whether a native function may look at x: the columns of codes are known, and hold such."""
        if not self.coded:
            return True
        if type(x) is not np.ndarray or x.ndim != 2 or x.dtype.kind != "f":
            return False
        codes = self._codes.get(x.shape[1])
        return codes is not None and codes.hold(x)

    def executor(
        self, shape: Shape, rows: int, modes: Modes, ending: Ending | None = None
    ) -> Executor:
        """The executor of forward and backward for up to `rows` rows, ending in a loss if given."""
        return self._executor(self.kept, shape, rows, modes, ending)

    def training_workspace(self, shape: Shape, rows: int) -> int:
        """The bytes of workspace for training with minibatches of `rows` rows."""
        described = self._describe(shape, (True,) * len(self.layers), None, fold=False)
        return plan_of(described, self.storage, rows, backward=True).workspace_bytes

    def packed_bytes(self, shape: Shape) -> int:
        """The bytes of packed weights with which each thread predicts; 0: weights are read as they are."""
        described = self._describe(shape, (False,) * len(self.layers), None, fold=True, exact=False)
        return sum(
            8 * math.prod(map(int, d.shape)) for d in described.derived if d.node is not None
        )

    def predictor(self, shape: Shape, rows: int) -> Executor:
        """The executor of evaluation mode for up to `rows` rows, owned by this thread.

        Its fast path becomes the thread's.
        """
        executor = self.evaluator(shape, max(rows, PREDICT_ROWS), None)
        self.thread.fast_path = executor.fast_path()
        return executor

    def evaluator(
        self, shape: Shape, rows: int, ending: Ending | None, *, within: bool = False
    ) -> Executor:
        """The executor of evaluation mode whose steps end in a loss, if given.

        within: it runs within training and belongs to the model; else it belongs to this thread.
        """
        kept, modes = self.within if within else self.thread, (False,) * len(self.layers)
        return self._executor(kept, shape, rows, modes, ending, fold=True)

    def executor_of_loss(self, shape: Shape, rows: int, modes: Modes, ending: Ending) -> Executor:
        """The executor of forwards in these modes up to the loss; it belongs to the model."""
        return self._executor(self.within, shape, rows, modes, ending, fold=True)

    def below_head(self, shape: Shape, rows: int) -> tuple[Executor, Head] | None:
        """The executor of what a HierarchicalSoftmax at the end reads, owned by this thread, and its head.

        None: the model ends otherwise.
        """
        kept, key = self.thread, (shape, "below head", self.storage.frozen)
        described = last_used(kept.described, key, lambda: self._describe_below_head(shape), KEPT)
        if described.head is None:
            return None
        return self._ready(kept, described, max(rows, PREDICT_ROWS), backward=False), described.head

    def _describe_below_head(self, shape: Shape) -> Described:
        model = self._model()
        assert model is not None
        structure, head = graph_below_head(model, shape)
        if model.precision is not None:
            multiply_in_bfloat16(structure.graph)
            if self.backend.packs_weights:
                pack_weights(structure.graph)
        return Described(structure, self.storage, head)

    def described(self, shape: Shape, modes: Modes, ending: Ending | None) -> Described:
        """The structure of a forward in these modes, up to the loss if given; its products are exact."""
        key = "exact", shape, modes, ending and ending.key(), self.storage.frozen
        return last_used(
            self.kept.described,
            key,
            lambda: self._describe(shape, modes, ending, fold=False),
            KEPT,
        )

    def products(
        self,
        kind: Any,
        described: Described,
        rows: int,
        make: Callable[[int], Any],
        *,
        exact: bool,
    ) -> Any:
        """The runner of products of this kind for up to `rows` rows, made if there is none.

        make: makes one for so many rows. exact: it is for so many, and no others.
        """
        key = kind, described.signature, described.numbers.tobytes(), rows if exact else None
        runner = self.runners.get(key)
        if runner is not None and runner.plan.max_rows < rows:
            del self.runners[key]
        return last_used(self.runners, key, lambda: make(rows), KEPT)

    def row_executor(self, shape: Shape, rows: int, modes: Modes) -> RowExecutor | None:
        """A new executor of up to `rows` rows that keeps their gradients apart; None: there is none.

        It works on the memory of the host.
        """
        from fastnet.backends.rows import RowExecutor, separates

        described = self._describe(shape, modes, None, fold=False)
        plan = plan_of(described, self.storage, rows, backward=True)
        if not separates(plan):
            return None
        on_host = type(self.backend).executor is Backend.executor
        backend = self.backend if on_host else registry.get("auto")
        made = RowExecutor(plan.copy(), self.storage, backend)
        made.use(described.numbers, described.derived, described.objects, described.scheduled)
        return made

    def passes(self, update: Update) -> Passes:
        """An executor of one update."""
        made: Passes | None = self.backend.passes(update, self.storage)
        return made or Passes(update, self.storage, self.backend)

    def extra(self, extras: Extras, ops: tuple[type[Op], ...]) -> Callable[[Any], None]:
        """A function that runs these ops of extras, one after the other."""
        key = self.backend.name, ops
        extras.need(ops)
        if key not in extras.ready:
            program = np.concatenate([extras.instruction(op, row) for row, op in enumerate(ops)])
            update = Update.alone(program, ops, training=extras.segment)
            extras.ready[key] = self.passes(update)
        return extras.ready[key]

    def towards(self, other: Storage) -> Callable[[Any], None]:
        """A function of a rate: w ← w + rate·(v − w) for the parameters v of another model's segments.

        It works on the memory of the host; the last one is kept. HyperparameterError: they differ.
        """
        from fastnet.optim.averaging import average

        known, move = self._towards
        if self.storage.editing:
            self.storage.take_edits()
        if known() is not other:
            if other.layout != self.storage.layout:
                raise HyperparameterError(
                    f"other has other parameters, {_shapes(other)}; expected those of this model, "
                    f"{_shapes(self.storage)}, as copy.deepcopy(model) has them"
                )
            at = {"average": ("training", 0), "w": ("params", 0)}
            dtype, segment = self.storage.dtype, self.storage.segments["params"]
            program = update_pass(average, dtype, at, (len(segment) // dtype.itemsize,), 0)
            update = Update.alone(program, [average], training=segment)
            there = self.backend.native_calls
            move = Passes(update, other, self.backend if there else registry.get("reference"))
            self._towards = weakref.ref(other), move
        return move

    def _executor(
        self,
        kept: _Cache,
        shape: Shape,
        rows: int,
        modes: Modes,
        ending: Ending | None,
        *,
        fold: bool = False,
    ) -> Executor:
        key = shape, modes, ending and ending.key(), self.storage.frozen
        described = last_used(
            kept.described,
            key,
            lambda: self._describe(shape, modes, ending, fold=fold, exact=False),
            KEPT,
        )
        return self._ready(kept, described, rows, backward=not fold)

    def _ready(self, kept: _Cache, described: Described, rows: int, *, backward: bool) -> Executor:
        executor = kept.executors.get(described.signature)
        if executor is not None and executor.plan.max_rows < rows:
            del kept.executors[described.signature]
        executor = last_used(
            kept.executors, described.signature, lambda: self._made(described, rows, backward), KEPT
        )
        executor.use(described.numbers, described.derived, described.objects, described.scheduled)
        return executor

    def _describe(
        self, shape: Shape, modes: Modes, ending: Ending | None, *, fold: bool, exact: bool = True
    ) -> Described:
        """exact: products are those of the dtype, whatever the model's precision."""
        model = self._model()
        assert model is not None
        training = dict(zip(map(id, self.layers), modes, strict=True))
        rounds = model.precision is not None and not exact
        # Not where a loss follows: a native call of many epochs evaluates parameters as they change.
        packs = rounds and fold and ending is None and self.backend.packs_weights
        make = partial(_graph_of, weakref.ref(model), shape, training, ending, fold, rounds, packs)
        kind = kind_of(model, ending)
        if kind is None:
            return Described(make(), self.storage)
        key = kind, shape, modes, ending and ending.key(), fold, rounds, packs
        known = _alike.get(key)
        if known is not None:
            return known.of(make)
        made = Described(make(), self.storage)
        if not made.has_own():
            with _lock:
                last_used(_alike, key, lambda: made.of(None), PLANS)
        return made

    def _made(self, described: Described, rows: int, backward: bool) -> Executor:
        plan = plan_of(described, self.storage, rows, backward=backward).copy()
        made: Executor | None = self.backend.executor(plan, self.storage)
        return made or Executor(plan, self.storage, self.backend)


def _shapes(storage: Storage) -> str:
    """The layout of a model's parameters as messages show it."""
    dtype, shapes = storage.layout
    return f"{dtype} of shapes {shown(shapes)}"


def _graph_of(
    model: Any,
    shape: Shape,
    training: Any,
    ending: Ending | None,
    fold: bool,
    rounds: bool,
    packs: bool,
) -> Structure:
    """`graph_of` by a weak reference to the model.

    rounds: its products are in bfloat16. packs: their weights are packed before.
    """
    structure = graph_of(model(), shape, training, ending, fold=fold)
    if rounds:
        multiply_in_bfloat16(structure.graph)
    if packs:
        pack_weights(structure.graph)
    return structure


def _nothing(rate: Any) -> None:
    pass


_alike: dict[Any, Described] = {}  # without structures, by kinds of models
_plans: dict[Any, Plan] = {}  # by signature, rows, and whether a plan has a backward
_lock = parallel.across_forks(threading.Lock())


def plan_of(described: Described, storage: Storage, rows: int, *, backward: bool) -> Plan:
    """The plan of a structure for up to `rows` rows; a caller runs a copy of it."""
    with _lock:
        return last_used(
            _plans,
            (described.signature, rows, backward),
            lambda: compile_plan(described.structure, storage, rows, backward=backward),
            PLANS,
        )
