"""Instructions that Python carries out: kernels of layers in NumPy, between native parts of a program."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastnet.backends.base import Backend
from fastnet.backends.reference import PythonRunner, view
from fastnet.op import ROWS, Array
from fastnet.plan.compiler import HostCall, Plan
from fastnet.plan.instructions import kernel_at
from fastnet.plan.records import CONTROL, SEGMENT
from fastnet.plan.segments import Storage

Objects = Sequence[Mapping[str, Any]]  # of each node, the objects that its kernels take


class HostCalls:
    """The calls of Python within a plan's programs, with what these keep from a forward to its backward.

    An instruction `host` stands for one of `Plan.calls`, or for a kernel of a formula that the backend does
    not have, or else for the loss.
    """

    def __init__(self, plan: Plan) -> None:
        self._calls, self._objects = plan.calls, list[Mapping[str, Any]]()
        self._runner = PythonRunner()
        programs = plan.forward, plan.backward, plan.step
        self.any = any(map(self._are_in, programs))  # whether there are such calls

    def use(self, objects: Objects) -> None:
        """Use copies of these objects from now on: other executors keep other things in theirs."""
        self._objects = [{n: copy.copy(o) for n, o in of.items()} for of in objects]

    @property
    def objects(self) -> Objects:
        """The objects in use."""
        return self._objects

    def takes(self, instruction: Any) -> bool:
        """Whether the instruction is a kernel's, and not the loss's."""
        return bool(instruction["group"] or instruction["entry"])

    def _are_in(self, program: np.ndarray) -> bool:
        hosts = program["kernel"] == CONTROL["host"]
        return bool(hosts.any()) and any(map(self.takes, program[hosts]))

    @contextmanager
    def gradients_back(self, storage: Storage) -> Iterator[None]:
        """Restore the gradients where a call raises an error within a backward that adds to them."""
        grads = storage.segments["grads"]
        kept = grads.copy() if self.any else None
        try:
            yield
        except BaseException:
            if kept is not None:
                np.copyto(grads, kept)
            raise

    def run(self, instruction: Any, context: np.ndarray) -> None:
        """Carry out an instruction on the memory of a context."""
        with np.errstate(all="ignore"):
            if instruction["group"]:
                self._call(self._calls[instruction["group"] - 1], context[0])
            else:
                self._runner.call(kernel_at(int(instruction["entry"]) - 1), instruction, context)

    def _call(self, one: HostCall, context: Any) -> None:
        counter = {name: int(context[name]) for name in ("seed", "step", "accumulate")}
        self.carry_out(one, self.arrays(one, context), **counter)

    def arrays(self, one: HostCall, context: Any) -> list[Array]:
        """The tensors of a kernel in the memory of a context."""

        def array(i: int) -> Array:
            shape, dtype = self.shape(one, i, int(context["rows"])), one.dtypes[i]
            if (place := one.places[i]) is None:
                return np.empty(0, dtype)
            return view(int(context["segment"][SEGMENT[place[0]]]) + place[1], shape, dtype)

        return [array(i) for i in range(len(one.places))]

    def object_of(self, one: HostCall, name: str) -> Any:
        """An object that a kernel takes."""
        return self._objects[one.node][name]

    def shape(self, one: HostCall, i: int, rows: int) -> tuple[int, ...]:
        """The shape of a tensor for a number of rows."""
        return tuple(rows if d == ROWS else int(d) for d in one.shapes[i])

    def carry_out(
        self, one: HostCall, arrays: list[Array], *, seed: int, step: int, accumulate: int
    ) -> None:
        """Call a kernel with these tensors."""
        values = dict(zip(one.kernel.tensors, arrays, strict=True)) | dict(self._objects[one.node])
        values |= {"seed": seed, "step": step, "stream": one.stream}
        values["accumulate"] = int(accumulate or one.accumulate)
        one.kernel.function(*(values[name] for name in one.kernel.arguments))


def parts_of(program: np.ndarray, backend: Backend) -> list[np.ndarray]:
    """A program in parts, for a backend to run one after the other: each `host` is one by itself."""
    hosts = program["kernel"] == CONTROL["host"]
    if not hosts.any():
        return [program]
    parts = np.split(program, np.flatnonzero(hosts[1:] | hosts[:-1]) + 1)
    for part in parts:
        if part["kernel"][0] != CONTROL["host"]:
            backend.prepare(part)
    return parts


def is_host(part: np.ndarray) -> bool:
    """Whether a part is an instruction `host`."""
    return bool(part["kernel"][0] == CONTROL["host"]) if len(part) else False
