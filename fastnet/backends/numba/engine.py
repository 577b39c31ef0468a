"""NumbaBackend: compiles the functions that programs need, once in a process, and runs them."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from _cffi_backend import FFI  # cffi's casts and calls, without its C parser

from fastnet.backends.base import Backend
from fastnet.backends.numba import blas, loops
from fastnet.backends.numba.entry import compile_entry
from fastnet.backends.numba.kernels import FUNCTIONS
from fastnet.backends.numba.kernels.formulas import function
from fastnet.backends.numba.lowlevel import PLAIN
from fastnet.backends.numba.natives import Natives
from fastnet.backends.numba.ranges import compile_range
from fastnet.backends.numba.threads import FEW, MANY
from fastnet.backends.reference import PythonRunner, view
from fastnet.op import KERNELS, Kernel
from fastnet.plan.instructions import kernels_of
from fastnet.plan.records import KIND, KINDS

_addresses: dict[int, tuple[weakref.ref[np.ndarray], int]] = {}  # by the array's id


def _address(array: np.ndarray) -> int:
    """The address of an array's data, cached, because NumPy's answer takes longer than a small program."""
    key = id(array)
    known = _addresses.get(key)
    if known is not None and known[0]() is array:
        return known[1]
    address = int(array.ctypes.data)
    _addresses[key] = (weakref.ref(array, lambda _: _addresses.pop(key, None)), address)
    return address


def _call(multiplications: int, function: Any, *arguments: int) -> None:
    """Call native code whose largest matrix product has that many multiplications."""
    one_thread = blas.FOUND.one_thread if blas.FOUND else None
    if one_thread and FEW < multiplications <= MANY:
        with one_thread:
            function(*arguments)
    else:
        function(*arguments)


class NumbaBackend(Backend):
    """Compiles each kernel with Numba when a program first needs it."""

    name = "numba"

    def __init__(self) -> None:
        self._natives = Natives()
        self._products: dict[int, int] = {}  # largest product per row, by the program's address
        self._run: Any = None  # called through cffi, without the GIL
        self._train: Any = None

    def kernels(self) -> Mapping[str, tuple[str, ...]]:
        """The names of each kernel's tensor arguments, from its function."""
        return {name: tensor_arguments(name, f) for name, f in FUNCTIONS.items()}

    def prepare(self, program: np.ndarray) -> None:
        """Compile missing kernels and write the entries' addresses."""
        largest, address = 0, _address(program)
        for instruction, kernel in kernels_of(program):
            dtype = KINDS[instruction["dtype"]]
            instruction["entry"] = self._entry(kernel, dtype)
            if kernel.op.name == "linear":
                largest = max(largest, int(instruction["size"][0] * instruction["size"][1]))
        if self._train is None and (program["kernel"] < 0).any():
            self._train = self._function("train")
        self._products[address] = largest
        weakref.finalize(program, self._products.pop, address, None).atexit = False

    def _entry(self, kernel: Kernel, dtype: str) -> int:
        made = function(kernel)
        return self._natives.address(
            f"{kernel.name}-{dtype}",
            lambda: compile_entry(kernel, made, dtype),
            keep=kernel.op.guest  # its name has a digest of all that it is
            or all(f.__module__.startswith("fastnet.") for f in (made, kernel.function)),
        )

    def range_of(self, kernel: Kernel, dtype: str) -> int:
        """The address of an elementwise kernel for ranges, for the C backend; 0: there is none."""
        return self._natives.address(
            f"{kernel.name}-{dtype}-range",
            lambda: compile_range(kernel, dtype),
            keep=kernel.op.guest,
        )

    def _converter(self, source: int, wanted: int) -> int:
        if source == wanted:
            return 0
        kinds = KINDS[source], KINDS[wanted]
        return self._natives.address(
            "-".join(("convert", *kinds)), lambda: loops.compile_converter(*kinds)
        )

    def _function(self, name: str) -> Any:
        """One of the two loops as a function of three integers."""
        address = self._natives.address(name, lambda: loops.compile_loop(name))
        return FFI().cast("void (*)(int64_t, int64_t, int64_t)", address)

    def run(self, program: np.ndarray, context: np.ndarray) -> None:
        """Run the instructions in order (see Backend.run)."""
        if self._run is None:
            self._run = self._function("run")
        address = _address(program)
        product = self._products.get(address, 0)
        rows = int(context["rows"][0]) if product else 0
        _call(product * rows, self._run, address, len(program), _address(context))

    def train(self, args: np.ndarray) -> None:
        """Run a chunk of training steps (see Backend.train)."""
        a = args[0]
        dtype, x_kind, y_kind = int(a["dtype"]), int(a["x_kind"]), int(a["y_kind"])
        y_wanted = KIND["int64"] if a["classes"] else dtype
        convert_x, convert_y = self._converter(x_kind, dtype), self._converter(y_kind, y_wanted)
        product, steps = self._products.get(int(a["program"]), 0), int(a["steps"])
        offsets = view(a["batch_offsets"], (steps + 1,), np.int64)
        rows = int(offsets[-1] - offsets[0]) // max(steps, 1)  # of an average minibatch
        _call(product * rows, self._train, _address(args), convert_x, convert_y)


class PlainBackend(NumbaBackend):
    """Runs the kernels as plain Python functions, for NUMBA_DISABLE_JIT=1."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = PythonRunner(function)

    def range_of(self, kernel: Kernel, dtype: str) -> int:
        """None, as nothing is compiled."""
        return 0

    def prepare(self, program: np.ndarray) -> None:
        """Raise BackendUnavailable for a missing kernel."""
        for _, kernel in kernels_of(program):
            function(kernel)

    def run(self, program: np.ndarray, context: np.ndarray) -> None:
        """Run the instructions in order."""
        with np.errstate(all="ignore"):
            self._runner.run(program, context)

    def train(self, args: np.ndarray) -> None:
        """Run a chunk of training steps."""
        with np.errstate(all="ignore"):
            self._runner.train(args)


def tensor_arguments(name: str, function: Any) -> tuple[str, ...]:
    """The arguments of a kernel's function that its op declares as tensors."""
    code = getattr(function, "py_func", function).__code__
    arguments = code.co_varnames[: code.co_argcount]
    return tuple(a for a in arguments if KERNELS[name].op.spec(a) is not None)


def create() -> NumbaBackend:
    """The backend with compiled kernels, or with plain Python ones under NUMBA_DISABLE_JIT=1."""
    return PlainBackend() if PLAIN else NumbaBackend()
