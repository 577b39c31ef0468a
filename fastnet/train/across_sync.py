"""Steps of several parts of a minibatch side by side, which batchnorm makes wait for one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnet.backends.executor import Executor
from fastnet.backends.reference import view
from fastnet.distributed import Group
from fastnet.distributed.group import Vector
from fastnet.layers import synced_batchnorm as synced
from fastnet.op import Array
from fastnet.plan.compiler import HostCall
from fastnet.plan.records import CONTROL, HOST


class Lockstep:
    """Runs the parts of this rank up to each batchnorm, where all ranks exchange the parts' sums.

    parts: how many parts a minibatch has on all ranks together.
    """

    def __init__(self, group: Group, plan: Any, parts: int) -> None:
        self.group, self._parts = group, parts
        hosts = plan.step[plan.step["kernel"] == CONTROL["host"]]
        calls = [plan.calls[row - 1] for row in hosts["group"] if row]
        self._calls = [one for one in calls if is_synced(one)]
        self._vectors = [Vector(group, parts * 2 * _width(one), np.float64) for one in self._calls]

    def __bool__(self) -> bool:
        return bool(self._calls)

    def run(
        self, pieces: Sequence[tuple[int, Executor, int]], sizes: Sequence[int], after: Vector
    ) -> Exception | None:
        """Run one step of each executor; returns why it failed here, if it did.

        pieces: for each part of this rank its number, its executor, and the number of the step of its
        chunk. sizes: the rows of all parts. after: the meeting that follows.
        """
        failed: Exception | None = None
        for _, executor, _ in pieces:
            executor._train_field["at"][0] = 0
        for call, vector in zip(self._calls, self._vectors, strict=True):
            self.group.expects = vector
            own = vector.numbers.reshape(self._parts, 2, -1)
            own[:] = 0
            reached: list[tuple[int, Executor, list[Array]]] = []
            try:
                for part, executor, local in pieces:
                    self._to_batchnorm(executor, local, call)
                    arrays = _arrays(executor, call)
                    reached.append((part, executor, arrays))
                    own[part] = _sums(call, arrays)
            except Exception as error:
                failed = error
            self.group.add(vector, failed=failed)
            sums = vector.sums.reshape(self._parts, 2, -1)
            self._go_on(call, reached, sums, sizes, pieces)
        self.group.expects = after
        try:
            for _, executor, local in pieces:
                self._to_batchnorm(executor, local, None)
        except Exception as error:
            failed = error
        return failed

    def _to_batchnorm(self, executor: Executor, local: int, call: HostCall | None) -> None:
        """Run a part until it stands before a batchnorm, or to its end."""
        while executor.run_to_host(local + 1) == HOST:
            instruction = executor._program[int(executor._train_field["at"][0]) - 1]
            found = executor.plan.calls[instruction["group"] - 1] if instruction["group"] else None
            if found is not None and is_synced(found):
                return
            assert executor._train_args is not None
            executor._calls.run(instruction, executor._train_args["context"])

    def _go_on(
        self,
        call: HostCall,
        reached: Sequence[tuple[int, Executor, list[Array]]],
        sums: Array,
        sizes: Sequence[int],
        pieces: Any,
    ) -> None:
        """Carry out a batchnorm for this rank's parts, with the sums of all."""
        rows = sum(sizes)
        with np.errstate(all="ignore"):
            if call.kernel.phase == "forward":
                mean, variance = synced.combined(sizes, list(sums))
                for _, executor, arrays in reached:
                    y, kept, rstd, *_, x, gamma, beta = arrays
                    synced.normalise(
                        y, kept, rstd, x, gamma, beta, mean, variance, _norm(executor, call)
                    )
                self._move(call, mean, variance, rows)
                return
            total = np.zeros_like(sums[0])
            for part in sums:
                total = total + part
            for part, executor, arrays in reached:
                assert executor._train_args is not None
                accumulate = int(
                    executor._train_args["context"]["accumulate"][0] or call.accumulate
                )
                args: list[Any] = [*arrays, accumulate, sums[part], total / rows]
                synced.pull_back(*args)

    def _move(self, call: HostCall, mean: Array, variance: Array, rows: int) -> None:
        """Move the running statistics, which all parts of a rank share."""
        executor = self.owner
        width = _width(call)
        found: list[Any] = [
            np.empty(0)
            if place is None
            else view(
                executor.storage.segments[place[0]].ctypes.data + place[1],
                (1,) if name == "batches" else (width,),
                dtype,
            )
            for name, place, dtype in zip(
                call.kernel.tensors, call.places, call.dtypes, strict=True
            )
            if name in ("running_mean", "running_var", "batches")
        ]
        found += [mean, variance, rows, _norm(executor, call)]
        synced.move(*found)

    owner: Executor  # of the model's own, whose storage has the running statistics


def is_synced(call: HostCall) -> bool:
    """Whether Python's call is a batchnorm of several ranks."""
    return call.kernel.op is synced.synced_batchnorm


def _width(call: HostCall) -> int:
    at = call.kernel.tensors.index("x")
    return int(call.shapes[at][1])


def _norm(executor: Executor, call: HostCall) -> synced.Norm:
    found: synced.Norm = executor._calls.object_of(call, "norm")
    return found


def _arrays(executor: Executor, call: HostCall) -> list[Array]:
    """The tensors of a call in the memory of an executor's step."""
    assert executor._train_args is not None
    return executor._calls.arrays(call, executor._train_args["context"][0])


def _sums(call: HostCall, arrays: list[Array]) -> Array:
    """What a part contributes: of a forward its moments, of a backward the sums of its gradients."""
    with np.errstate(all="ignore"):
        named = dict(zip(call.kernel.tensors, arrays, strict=True))
        if call.kernel.phase == "forward":
            return synced.moments(named["x"])
        return synced.gradient_sums(named["dy"], named["x"], named["mean"], named["rstd"])
