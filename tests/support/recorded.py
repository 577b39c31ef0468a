"""Jobs for tests/native/replay.c: memory and a call on it, written so that any machine can run it."""

from __future__ import annotations

import ctypes
from typing import Any, BinaryIO

import numpy as np
from onecall import Call

from fastnet.backends import registry
from fastnet.backends.executor import Executor
from fastnet.backends.steps import Steps, Update
from fastnet.data.dataset import Dataset
from fastnet.op import KERNELS, Array
from fastnet.plan.records import CONTEXT, INSTRUCTION

# The structs of replay.c.
JOB = np.dtype(
    [
        (n, "i8")
        for n in ["blocks", "addresses", "entries", "training", "argument", "program", "count"]
    ]
)
BLOCK = np.dtype([(n, "i8") for n in ["size", "shift", "wanted"]])
ADDRESS = np.dtype([(n, "i8") for n in ["block", "offset", "to", "at"]])
ENTRY = np.dtype([("block", "i8"), ("offset", "i8"), ("dtype", "i8"), ("name", "S64")])


class Job:
    """Arrays as they are now, the addresses that they hold of one another, and a call on them."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._heads: list[tuple[int, int, bool]] = []
        self._addresses: list[tuple[int, int, int, int]] = []
        self._entries: list[tuple[int, int, int, bytes]] = []
        self._results: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}
        self.call = np.zeros(1, JOB)

    def add(self, array: Array, name: str = "") -> int:
        """Copy an array's bytes; returns the number of its block. With a name it is a result."""
        number = len(self._blocks)
        self._blocks.append(array.tobytes())
        self._heads.append((array.nbytes, array.ctypes.data % 64, bool(name)))
        if name:
            self._results[name] = number, array.shape, array.dtype
        if array.dtype == INSTRUCTION:
            names, entry = list(KERNELS), offset_of(INSTRUCTION, "entry")
            for k, i in enumerate(array):
                if i["kernel"] < 0:
                    continue
                at = k * INSTRUCTION.itemsize + entry
                self._entries.append((number, at, i["dtype"], names[i["kernel"]].encode()))
        return number

    def address(self, block: int, offset: int, to: int, at: int = 0) -> None:
        """At an offset in a block stands the address of a place in another."""
        self._addresses.append((block, offset, to, at))

    def write(self, file: BinaryIO) -> None:
        """As replay reads it."""
        for name, rows in (("blocks", self._heads), ("addresses", self._addresses)):
            self.call[name] = len(rows)
        self.call["entries"] = len(self._entries)
        file.write(self.call.tobytes())
        file.write(np.array(self._heads, BLOCK).tobytes())
        file.write(np.array(self._addresses, ADDRESS).tobytes())
        file.write(np.array(self._entries, ENTRY).tobytes())
        file.writelines(self._blocks)

    def read(self, file: BinaryIO) -> dict[str, Array]:
        """Its results, as replay writes them."""
        found = {}
        for name, (number, shape, dtype) in self._results.items():
            found[name] = np.frombuffer(file.read(len(self._blocks[number])), dtype).reshape(shape)
        return found


def offset_of(dtype: np.dtype[Any], name: str) -> int:
    """Where a field of a record begins, in bytes."""
    assert dtype.fields is not None
    return dtype.fields[name][1]


def one_kernel(call: Call) -> Job:
    """A kernel's call. Every tensor is a block of its own, and a result."""
    job = Job()
    program, context = call.program.copy(), call.context.copy()
    context["segment"] = 0  # so that an offset is an address
    job.call["program"], job.call["argument"] = job.add(program), job.add(context)
    job.call["count"] = 1
    run, on = int(job.call["program"][0]), int(job.call["argument"][0])
    job.address(on, offset_of(CONTEXT, "hyper"), job.add(call.hyper))
    blocks: dict[int, int] = {}  # of two tensors in one place there is one
    for k, name in enumerate(call.kernel.tensors):
        if name in call.spans:
            begin = call.spans[name][0]
            if begin not in blocks:
                blocks[begin] = job.add(call.view(name), name)
            job.address(run, offset_of(INSTRUCTION, "offset") + 8 * k, blocks[begin])
    return job


class Recorder:
    """Records what training steps of the C backend find, and what they leave.

    `with Recorder() as recorder`: before each chunk somebody calls `watch`; the last chunk's job and
    results are kept.
    """

    def __enter__(self) -> Recorder:
        self._backend: Any = registry.get("c")
        self._train = self._backend.train
        self._backend.train = self._record
        return self

    def __exit__(self, *exception: object) -> None:
        del self._backend.train

    def watch(self, runner: Executor, data: Dataset, steps: Steps, update: Update) -> None:
        """Where the next chunk's arguments point to."""
        segments = runner.storage.segments
        self._results = {n: segments[n] for n in ("params", "grads", "buffers")}
        self._results["state"] = update.state
        self._memory = [runner._with(update.program), update.table]
        self._memory += [data.x, data.y, steps.index, steps.offsets]
        self._memory += [runner._workspace, runner._stage]

    def _record(self, args: np.ndarray) -> None:
        room = (ctypes.c_double * int(args["steps"][0])).from_address(int(args["losses"][0]))
        results = {**self._results, "losses": np.frombuffer(room)}
        self.job = Job()
        places = [(a, self.job.add(a)) for a in self._memory]
        places += [(a, self.job.add(a, name)) for name, a in results.items()]
        on = self.job.add(args)
        self.job.call["argument"], self.job.call["training"] = on, 1
        for k, word in enumerate(args.view("i8").tolist()):
            for array, number in places:
                if 0 <= word - array.ctypes.data < array.nbytes:
                    self.job.address(on, 8 * k, number, word - array.ctypes.data)
        self._train(args)
        self.results = {name: array.copy() for name, array in results.items()}
