"""RowExecutor: runs a plan backward up to the gradients of its products, before rows are summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.backends.base import Backend
from fastnet.backends.executor import Executor
from fastnet.backends.host import Objects, is_host, parts_of
from fastnet.backends.reference import view
from fastnet.op import Array
from fastnet.parameter import Derived, Scheduled
from fastnet.plan.compiler import Plan
from fastnet.plan.instructions import kernel_at
from fastnet.plan.records import ABSENT, SEGMENT
from fastnet.plan.segments import Storage

PRODUCT = "linear_vjp"
DX, DW, DB, DY, X, _ = range(6)  # its tensors, in order


@dataclass(frozen=True, eq=False, repr=False)
class Factors:
    """What a product's weight and bias have as gradients: row i's are Σ_t x_itᵀ·dy_it and Σ_t dy_it.

    x, dy: (rows, t, in) and (rows, t, out), copies in the model's dtype; t is the number of rows that the
        product has for each row of the minibatch.
    weight, bias: the offsets of the gradients in the segment `grads`, in bytes; None where it wants none.
    """

    x: Array
    dy: Array
    weight: int | None
    bias: int | None


def separates(plan: Plan) -> bool:
    """Whether all of a plan's gradients of parameters are those of products."""
    if any(place and place[0] == "grads" for call in plan.calls for place in call.places):
        return False
    for instruction in plan.backward:
        writes = instruction["segment"] == SEGMENT["grads"]
        if not writes.any():
            continue
        number = int(instruction["kernel"])
        if number < 0 or kernel_at(number).name != PRODUCT:
            return False
    return True


class RowExecutor(Executor):
    """Runs a plan that `separates` without the sums over rows; the model's gradients stay as they are."""

    def __init__(self, plan: Plan, storage: Storage, backend: Backend) -> None:
        self._unfused = plan.backward.copy()  # before the backend fuses instructions
        self._pieces: list[tuple[Any, list[np.ndarray]]] = []
        super().__init__(plan, storage, backend)

    def use(
        self,
        numbers: Array,
        derived: Sequence[Derived],
        objects: Objects = (),
        scheduled: Sequence[Scheduled] = (),
    ) -> None:
        """Use these from now on (see Executor.use)."""
        super().use(numbers, derived, objects, scheduled)
        self._unfused["scalar"] = self.plan.backward["scalar"]
        self._pieces = _pieces_of(self._unfused, self.backend)

    def factors(self, dy: Array) -> list[Factors]:
        """The factors of each product for dL/d-output of the last forward, which this call uses up."""
        assert self.plan.dy is not None
        np.copyto(self.at(self.plan.dy, dy.shape, self.plan.dtype), dy, casting="unsafe")
        found = []
        for product, parts in self._pieces:
            if product is not None:
                found.append(self._factors_of(product))
            for part in parts:
                if is_host(part):
                    self._calls.run(part[0], self._context)
                else:
                    self.backend.run(part, self._context)
        return found

    def _factors_of(self, product: Any) -> Factors:
        rows, times = int(self._context["rows"][0]), 1 + int(product["more_rows"])
        widths = {X: int(product["size"][0]), DY: int(product["size"][1])}
        x, dy = (
            np.array(view(self._address(product, i), (rows, times, widths[i]), self.plan.dtype))
            for i in (X, DY)
        )
        places = (
            int(product["offset"][i]) if product["segment"][i] == SEGMENT["grads"] else None
            for i in (DW, DB)
        )
        return Factors(x, dy, *places)

    def _address(self, product: Any, i: int) -> int:
        base = int(self._context["segment"][0, product["segment"][i]])
        return base + int(product["offset"][i])


def _pieces_of(program: np.ndarray, backend: Backend) -> list[tuple[Any, list[np.ndarray]]]:
    """A backward in pieces: a product whose factors are wanted, or None, and what then runs.

    The products there have no gradients of parameters. One that wants no gradient of its input is left out.
    """
    begins = [
        i
        for i, instruction in enumerate(program)
        if (instruction["segment"] == SEGMENT["grads"]).any()
    ]
    pieces: list[tuple[Any, list[np.ndarray]]] = []
    ends = [*begins, len(program)]
    if ends[0]:
        pieces.append((None, _prepared(program[: ends[0]].copy(), backend)))
    for begin, end in zip(begins, ends[1:], strict=True):
        product, part = program[begin].copy(), program[begin:end].copy()
        part["segment"][0, [DW, DB]] = ABSENT
        if part["segment"][0, DX] == ABSENT or product["segment"][X] == SEGMENT["x"]:
            part = part[1:]
        pieces.append((product, _prepared(part, backend)))
    return pieces


def _prepared(program: np.ndarray, backend: Backend) -> list[np.ndarray]:
    """The native and other parts of a piece, ready to run."""
    if not len(program):
        return []
    backend.prepare(program)
    return parts_of(program, backend)
