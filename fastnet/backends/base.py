"""The protocol of a backend: it runs programs of instructions on raw segments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from fastnet.backends.steps import Update
from fastnet.errors import BackendUnavailable, DataError
from fastnet.op import Array, Kernel
from fastnet.plan.compiler import Plan
from fastnet.plan.segments import Storage

Predict = Callable[[Any, Any], bool]  # (x, out) → whether it is done, see Backend.predictor


def no_kernel(backend: str, name: str, *, formula: bool = False) -> BackendUnavailable:
    """The error of a program that needs a kernel which a backend has not."""
    others = "model.to('numba'), which makes kernels of formulas, or " if formula else ""
    return BackendUnavailable(
        f"backend {backend!r} has no kernel {name}; use {others}model.to('reference'), which has those "
        "of every op"
    )


def kernel_of(
    backend: str, table: dict[str, Any], kernel: Kernel, define: Callable[[Kernel], Any]
) -> Any:
    """A backend's kernel, from its table; made by `define` where it is a formula younger than that."""
    if kernel.name not in table:
        if kernel.formula is None:
            raise no_kernel(backend, kernel.name)
        table[kernel.name] = define(kernel)
    return table[kernel.name]


class Backend:
    """Base of all backends. One instance a process, made on demand; it holds no model's data.

    Programs are arrays of INSTRUCTION, contexts and training arguments one-element arrays of CONTEXT
    and TRAIN (see fastnet.plan.records). The caller keeps everything alive that they point to.
    """

    name: ClassVar[str]

    def kernels(self) -> Mapping[str, tuple[str, ...]]:
        """The kernels it has: the names of their tensor arguments, in order, by kernel name."""
        raise NotImplementedError

    def prepare(self, program: np.ndarray) -> None:
        """Make a new program ready to run: fill `entry` of each instruction, where the backend uses it."""

    def run(self, program: np.ndarray, context: np.ndarray) -> None:
        """Run the instructions in order."""
        raise NotImplementedError

    def runner(self, program: np.ndarray, context: np.ndarray) -> Callable[[], None]:
        """A function that is `run` with these arguments, for a program that runs often."""
        return partial(self.run, program, context)

    def train(self, args: np.ndarray) -> None:
        """Run the program of a step until `steps` are done; fill `done`, `status` and what else is out.

        Kernels run as in `run`; the other instructions are those of records.CONTROL. Each step has the rows
        of `hyper` behind the last one's and a counter of random draws that is one more. The first step
        begins at the instruction `at`. Where a step is refused the buffers are what they were before it,
        and the steps before it are done. Context, `done` and `at` are left such that the next call goes on.
        """
        raise NotImplementedError

    def predictor(
        self, args: np.ndarray, x_row: tuple[int, ...], out_row: tuple[int, ...]
    ) -> Predict | None:
        """A native function (x, out) → bool that runs the forward program of `args`, a PREDICT.

        False, and out left alone, where x or out is not an aligned contiguous array of the plan's dtype
        and of rows of these shapes, as many of both, where they share memory, or where x is not finite.
        None: the backend has no such function, and the executor runs block after block.
        """
        return None

    def features(self, name: str, value: Any, shape: tuple[int, ...] | None, dtype: Any) -> Any:
        """Rows that lie on a device, checked and ready for an executor; DataError where it takes none."""
        raise DataError(
            f"{name} lies on a CUDA device and the model's backend is {self.name!r}; expected an array in "
            "the host's memory, or model.to('cuda')"
        )

    def host(self, name: str, value: Any) -> Array:
        """A copy in the host's memory of an array that lies on a device."""
        return np.asarray(self.features(name, value, None, None))

    def executor(self, plan: Plan, storage: Storage) -> Any:
        """What runs a plan on a model's segments, with the interface of `executor.Executor`.

        None: the backend's programs run on the segments where they lie, and an Executor does it.
        """
        return None

    def passes(self, update: Update, storage: Storage) -> Any:
        """What runs an update alone, with the interface of `passes.Passes`; None: a Passes does it."""
        return None
