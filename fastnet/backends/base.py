"""The interface of backends, which run programs of instructions on raw segments."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from functools import partial
from typing import Any, ClassVar

import numpy as np

from fastnet import random
from fastnet.backends.steps import Update
from fastnet.errors import BackendUnavailable, DataError
from fastnet.op import Array, Kernel
from fastnet.plain import plain
from fastnet.plan.compiler import Plan
from fastnet.plan.records import OK
from fastnet.plan.segments import Storage

Apply = Callable[..., bool]  # see Backend.apply_call
Step = Callable[[Any, Any, Any, Any], float | None]  # see Backend.step_call
Run = Callable[[], bool]  # see Backend.update_call
Product = Callable[[Any, Any, Any, int], Any]  # see Backend.product_call


class Counts(IntEnum):
    """What a counter of a native call selects (`counted_as` in csrc/engine/calls.c)."""

    ONLY = 0
    DRAWS = 1  # it selects the step of random draws
    NUMBERS = 2  # it selects the row of an update's numbers


@plain(frozen=True)
class Counter:
    """An integer attribute of a Python object that a native call increments when it has done its work.

    owner: the object; None: each call gets its __dict__, as the object owns the function.
    first: with NUMBERS, the value whose numbers come first in the table.
    """

    owner: Any
    name: str
    what: Counts = Counts.ONLY
    first: int = 0

    def packed(self) -> tuple[dict[str, Any] | None, str, int, int]:
        """As the native function takes it."""
        own = None if self.owner is None else vars(self.owner)
        return own, self.name, int(self.what), self.first


@plain(frozen=True)
class Rows:
    """Rows that a native training step accepts.

    targets: int64 (n,) if `labels`, else numbers in [low, high] with rows of the shape y.
    """

    x: tuple[int, ...]
    y: tuple[int, ...]
    labels: bool
    low: float
    high: float
    least: int  # rows
    most: int
    to_share: int  # from so many rows on, several threads share the step


@plain(frozen=True)
class Result:
    """Where a step leaves rows that its caller wants too."""

    address: int
    row: tuple[int, ...]
    row_bytes: int


class Second(IntEnum):
    """What the second argument of a native product is (`second_kind` in csrc/engine/directions.c)."""

    NOTHING = 0
    LABELS = 1
    TARGETS = 2
    DIRECTION_OF_X = 3


@plain(frozen=True)
class Moved:
    """A parameter whose direction a native product takes.

    shown: PyTorch's shape. reversed: whether the kernels have its dimensions in reverse order. cleared:
    whether no instruction writes all of its product. offset: in segments, bytes.
    """

    name: str
    shown: tuple[int, ...]
    reversed: bool
    cleared: bool
    offset: int

    def packed(self) -> tuple[str, tuple[int, ...], bool, bool, int]:
        """As the native function takes it."""
        return self.name, self.shown, self.reversed, self.cleared, self.offset


@plain(frozen=True)
class Taken:
    """What a native product takes and gives.

    dtype: of the plan, a KIND. rows: of x, and of targets if these come second; labels in [0, classes).
    second: what comes second. room: addresses for converted rows of x, and for those that come second,
    where a direction of x stays. buffers: the address of the model's, and their bytes. gives: the addresses
    of y and its derivative, or zeros for the product by name. y: the shape of a row of these. parameters:
    that move; nbytes: of all.
    """

    dtype: int
    rows: Rows
    classes: int
    second: Second
    room: tuple[int, int]
    buffers: tuple[int, int]
    gives: tuple[int, int]
    y: tuple[int, ...]
    parameters: tuple[Moved, ...]
    nbytes: int


_of_guests: dict[str, dict[str, Any]] = {}  # by backend


def no_kernel(backend: str, name: str, *, formula: bool = False) -> BackendUnavailable:
    """The error for a program with a kernel that a backend does not have."""
    others = "model.to('numba'), which makes kernels of formulas, or " if formula else ""
    return BackendUnavailable(
        f"backend {backend!r} has no kernel {name}; use {others}model.to('reference'), which has those "
        "of every op"
    )


def kernel_of(
    backend: str, table: dict[str, Any], kernel: Kernel, define: Callable[[Kernel], Any]
) -> Any:
    """A kernel from a backend's table; a formula declared after the table is added by `define`.

    The kernels of guests are in a table of their own.
    """
    if kernel.op.guest:
        table = _of_guests.setdefault(backend, {})
    if kernel.name not in table:
        if kernel.formula is None:
            raise no_kernel(backend, kernel.name)
        table[kernel.name] = define(kernel)
    return table[kernel.name]


def orders(count: int, seed: int, epoch: int, epochs: int) -> Array:
    """The orders of so many rows in epochs epoch, epoch + 1, …: int64 (epochs, count)."""
    found = np.empty((epochs, count), np.int64)
    for e in range(epochs):
        found[e] = random.permutation(count, seed, epoch + e)
    return found


class Backend:
    """Base of all backends. Each has one instance in a process, made at first use, without data of models.

    Programs are arrays of INSTRUCTION; contexts and training arguments are one-element arrays of CONTEXT
    and TRAIN (see fastnet.plan.records). The caller keeps the memory alive to which they point.
    """

    name: ClassVar[str]
    # Whether it makes the functions of `apply_call` and the others.
    native_calls: ClassVar[bool] = False
    # Whether its `gather` reads scaled and sparse rows; without it an Executor makes each minibatch's.
    reads_rows: ClassVar[bool] = False
    # Whether its predictions read weights that were rounded and packed once for a version of the model.
    packs_weights: ClassVar[bool] = False
    # Whether there is a `train_many`; without it nets train one by one.
    joins: ClassVar[bool] = False

    @property
    def bfloat16(self) -> str | None:
        """The machine instructions that multiply bfloat16; None: those for float32, on rounded operands."""
        return None

    def kernels(self) -> Mapping[str, tuple[str, ...]]:
        """The backend's kernels: the names of their tensor arguments, in order, by kernel name."""
        raise NotImplementedError

    def prepare(self, program: np.ndarray) -> None:
        """Prepare a new program: set `entry` of each instruction, if the backend uses it."""

    def run(self, program: np.ndarray, context: np.ndarray) -> None:
        """Run the instructions in order."""
        raise NotImplementedError

    def runner(self, program: np.ndarray, context: np.ndarray) -> Callable[[], None]:
        """A function that calls `run` with these arguments, for a program that runs often."""
        return partial(self.run, program, context)

    def train(self, args: np.ndarray) -> None:
        """Run the program of a step until `steps` are done; set `done`, `status` and the other outputs.

        Kernels run as in `run`; records.CONTROL describes the other instructions. Each step uses the next
        rows of `hyper` and increments the counter of random draws. The first step begins at the instruction
        `at`. If a step is refused, the buffers have their values from before it, and the earlier steps are
        done. Afterwards context, `done` and `at` are such that the next call continues.
        """
        raise NotImplementedError

    def train_epochs(
        self, args: np.ndarray, evaluation: np.ndarray, ended: Callable[[int], None]
    ) -> None:
        """`train` for whole epochs, and after each of them all steps of another TRAIN, `evaluation`.

        ended: called after the evaluation of this number, for those backends whose native code does not
        do it itself: keeps the model's values and makes the next evaluation ready. The call counts
        `evaluated` and `seconds`. It ends where a step of an evaluation is refused.
        """
        a, other = args[0], evaluation[0]
        steps = int(a["steps"])
        while True:
            end = int((a["evaluated"] + 1) * a["epoch"])
            if a["done"] < min(end, steps):
                a["steps"] = min(end, steps)
                try:
                    self.train(args)
                finally:
                    a["steps"] = steps
                if a["status"] != OK or a["done"] < min(end, steps):
                    return
            if a["done"] < end:
                return
            begun = time.perf_counter()
            try:
                self.train(evaluation)
            finally:
                a["seconds"] += time.perf_counter() - begun
            if other["status"] != OK:
                return
            ended(int(a["evaluated"]))
            a["evaluated"] += 1

    def train_many(self, many: Sequence[np.ndarray], seconds: float) -> Array:
        """`train` for each of many nets, in one call, a net on one thread; which net takes how long.

        No step begins after so many seconds, so that some nets have steps left and others have not begun.
        Returns the seconds that each net took, float64; 0 for those that have not begun.
        """
        raise NotImplementedError

    def orders(self, count: int, seed: int, epoch: int, epochs: int) -> Array:
        """The orders of so many rows in epochs epoch, epoch + 1, …: int64 (epochs, count).

        Each is `random.permutation` of (seed, epoch), to the bit.
        """
        return orders(count, seed, epoch, epochs)

    def apply_call(
        self,
        args: np.ndarray,
        x_row: tuple[int, ...],
        out_row: tuple[int, ...],
        kept: Any,
        counters: Sequence[Counter] = (),
    ) -> Apply | None:
        """A native function (x, out) → bool that runs the program of `args`, a PREDICT.

        It returns False and changes nothing unless `x` and `out` are aligned arrays of equally many rows
        of these shapes, `out` is contiguous and of the plan's dtype, and `x` is finite there. It converts
        up to `max_rows` rows of other numbers or strides. A third argument is the __dict__ of the counters
        without an owner, or the step of random draws. The function keeps `kept` alive. None: the backend
        has no such functions, and Python does all of it.
        """
        return None

    def step_call(
        self,
        args: np.ndarray,
        rows: Rows,
        numbers: int,
        kept: Any,
        counters: Sequence[Counter],
        result: Result | None = None,
    ) -> Step | None:
        """A native function (x, y, accumulate, own) → loss that makes one step of `args`, a TRAIN.

        It returns None and changes nothing unless the arrays are as `rows` says and x is finite, and where
        the step is refused. The table of the update has rows for `numbers` steps. own: the __dict__ of the
        counters without an owner. With a `result`, the third argument is an array for it, and x may hold
        NaN. None: as above.
        """
        return None

    def update_call(
        self,
        context: np.ndarray,
        program: np.ndarray,
        table: Array,
        kept: Any,
        counters: Sequence[Counter],
    ) -> Run | None:
        """A native function () → bool that runs an update with the next numbers of the table.

        It returns False and changes nothing where the table has none. None: as above.
        """
        return None

    def product_call(
        self,
        context: np.ndarray,
        programs: tuple[np.ndarray, np.ndarray],
        taken: Taken,
        kept: Any,
    ) -> Product | None:
        """A native function (x, second, v, draw) that multiplies by the matrix of a plan of products.

        second: targets, the direction of x, or None. v: a dict of directions by name, or None where no
        parameter moves. draw: the step of random draws. The function returns (y, ẏ) or a dict by name, and
        None, with nothing changed, unless all arrays are as `taken` says and, converted, finite, and the
        product by name is. The segments `state` and the room are its own while it runs, as are the
        programs. None: as above.
        """
        return None

    def features(self, name: str, value: Any, shape: tuple[int, ...] | None, dtype: Any) -> Any:
        """Checked rows on a device, ready for an executor; DataError if the backend takes none."""
        raise DataError(
            f"{name} lies on a CUDA device and the model's backend is {self.name!r}; expected an array in "
            "the host's memory, or model.to('cuda')"
        )

    def host(self, name: str, value: Any) -> Array:
        """A copy of a device array in the host's memory."""
        return np.asarray(self.features(name, value, None, None))

    def executor(self, plan: Plan, storage: Storage) -> Any:
        """An object with the interface of `executor.Executor` that runs a plan on a model's segments.

        None: the programs can run on the segments in the host's memory, so an Executor runs them.
        """
        return None

    def products(self, products: Any, storage: Storage, names: Mapping[str, Any]) -> Any:
        """An object with the interface of `products.Runner` for a plan of products; None: a Runner can.

        names: the trainable parameters by name.
        """
        return None

    def passes(self, update: Update, storage: Storage) -> Any:
        """An object with the interface of `passes.Passes` that runs an update alone; None: a Passes can."""
        return None
