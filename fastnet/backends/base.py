"""The interface of backends, which run programs of instructions on raw segments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from fastnet import random
from fastnet.backends.steps import Update
from fastnet.errors import BackendUnavailable, DataError
from fastnet.op import Array, Kernel
from fastnet.plan.compiler import Plan
from fastnet.plan.segments import Storage

Predict = Callable[[Any, Any], bool]  # (x, out) → whether it has predicted, see Backend.predictor


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
    """A kernel from a backend's table; a formula declared after the table is added by `define`."""
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

    def orders(self, count: int, seed: int, epoch: int, epochs: int) -> Array:
        """The orders of so many rows in epochs epoch, epoch + 1, …: int64 (epochs, count).

        Each is `random.permutation` of (seed, epoch), to the bit.
        """
        return orders(count, seed, epoch, epochs)

    def predictor(
        self, args: np.ndarray, x_row: tuple[int, ...], out_row: tuple[int, ...]
    ) -> Predict | None:
        """A native function (x, out) → bool that runs the forward program of `args`, a PREDICT.

        It returns False and does not write to `out` unless `x` and `out` are aligned contiguous arrays of
        the plan's dtype, of equally many rows of these shapes, do not overlap, and `x` is finite. None: the
        backend has no such function, and the executor runs one block after the other.
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

    def passes(self, update: Update, storage: Storage) -> Any:
        """An object with the interface of `passes.Passes` that runs an update alone; None: a Passes can."""
        return None
