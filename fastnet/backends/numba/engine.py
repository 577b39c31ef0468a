"""The engine: compiles what programs need, once for the process, and runs them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from fastnet.backends.numba import loops
from fastnet.backends.numba.entry import compile_entry
from fastnet.backends.numba.kernels import FUNCTIONS
from fastnet.backends.numba.lowlevel import PLAIN
from fastnet.backends.reference import PythonRunner
from fastnet.errors import BackendUnavailable
from fastnet.op import KERNELS
from fastnet.plan.records import KIND, KINDS

_addresses: dict[int, tuple[weakref.ref[np.ndarray], int]] = {}  # by the array's id


def _address(array: np.ndarray) -> int:
    """The address of an array's data, remembered: to ask NumPy takes longer than a small program."""
    key = id(array)
    known = _addresses.get(key)
    if known is not None and known[0]() is array:
        return known[1]
    address = int(array.ctypes.data)
    _addresses[key] = (weakref.ref(array, lambda _: _addresses.pop(key, None)), address)
    return address


class Engine:
    """The jitted kernels by name, and the entries that exist so far."""

    def __init__(self) -> None:
        self._entries: dict[tuple[int, int], Any] = {}  # by kernel and dtype; cfuncs, kept alive
        self._converters: dict[tuple[int, int], Any] = {}  # by kinds, source and wanted
        self._lock = threading.RLock()

    def kernels(self) -> Mapping[str, tuple[str, ...]]:
        """The names of each kernel's tensor arguments, as the function spells them."""
        return {name: tensor_arguments(name, f) for name, f in FUNCTIONS.items()}

    def prepare(self, program: np.ndarray) -> None:
        """Compile the kernels that are missing and write the entries' addresses."""
        for instruction in program:
            key = (int(instruction["kernel"]), int(instruction["dtype"]))
            instruction["entry"] = self._entry(key).address

    def _entry(self, key: tuple[int, int]) -> Any:
        with self._lock:
            if key not in self._entries:
                kernel = list(KERNELS.values())[key[0]]
                if kernel.name not in FUNCTIONS:
                    raise BackendUnavailable(f"backend 'numba' has no kernel {kernel.name}")
                entry = compile_entry(kernel, FUNCTIONS[kernel.name], KINDS[key[1]])
                self._entries[key] = entry
            return self._entries[key]

    def _converter(self, source: int, wanted: int) -> int:
        if source == wanted:
            return 0
        key = (source, wanted)
        with self._lock:
            if key not in self._converters:
                self._converters[key] = loops.compile_converter(KINDS[source], KINDS[wanted])
            return int(self._converters[key].address)

    def run(self, program: np.ndarray, context: np.ndarray) -> None:
        """Run the instructions in order (see Backend.run)."""
        loops.run(_address(program), len(program), _address(context))

    def train(self, args: np.ndarray) -> None:
        """Run a chunk of training steps (see Backend.train)."""
        a = args[0]
        dtype, x_kind, y_kind = int(a["dtype"]), int(a["x_kind"]), int(a["y_kind"])
        y_wanted = KIND["int64"] if a["classes"] else dtype
        convert_x, convert_y = self._converter(x_kind, dtype), self._converter(y_kind, y_wanted)
        loops.train(_address(args), convert_x, convert_y)


class PlainEngine(Engine):
    """The same kernels as plain Python functions, for NUMBA_DISABLE_JIT=1."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = PythonRunner(FUNCTIONS)

    def prepare(self, program: np.ndarray) -> None:
        """Nothing to do."""

    def run(self, program: np.ndarray, context: np.ndarray) -> None:
        """Run the instructions in order."""
        with np.errstate(all="ignore"):
            self._runner.run(program, context)

    def train(self, args: np.ndarray) -> None:
        """Run a chunk of training steps."""
        with np.errstate(all="ignore"):
            self._runner.train(args)


def tensor_arguments(name: str, function: Any) -> tuple[str, ...]:
    """Those arguments of a kernel's function that its op declares as tensors."""
    code = getattr(function, "py_func", function).__code__
    arguments = code.co_varnames[: code.co_argcount]
    return tuple(a for a in arguments if KERNELS[name].op.spec(a) is not None)


@cache
def engine() -> Engine:
    """The process's one engine."""
    return PlainEngine() if PLAIN else Engine()
