"""NumPy's own BLAS, found by its address in the running process and called from jitted code.

No library is loaded. Products use the thread pool of NumPy's own products; for an OpenBLAS, `threads` sets
the number of threads temporarily. `FOUND` is None if there is no BLAS.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from fastnet.backends.numba.lowlevel import PLAIN, intrinsic, types
from fastnet.backends.numba.threads import OneThread

# Prefix and suffix of cblas_?gemm, and the bits of its integers: in NumPy's wheels and in other builds.
_SPELLINGS = (
    ("scipy_cblas_", "64_", 64),
    ("cblas_", "64_", 64),
    ("scipy_cblas_", "", 32),
    ("cblas_", "", 32),
)
_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112
_PTHREADS = 1  # a result of openblas_get_parallel; 0: no threads, 2: OpenMP
_C_TYPES = {"s": (ctypes.c_float, np.float32), "d": (ctypes.c_double, np.float64)}


@dataclass(frozen=True)
class Blas:
    """The symbols of sgemm and dgemm for jitted code, and the bits of their integers."""

    symbols: dict[str, str]  # by letter, "s" and "d"
    bits: int
    one_thread: OneThread | None = field(repr=False)  # None if the number of threads cannot be set


class _Module(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("name", ctypes.c_char_p)]


def _loaded() -> Iterator[ctypes.CDLL]:
    """The loaded shared libraries with BLAS in their names, and the process itself."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return
    names: list[bytes] = []
    visitor = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(_Module), ctypes.c_size_t, ctypes.c_void_p
    )

    def visit(module: Any, size: int, data: Any) -> int:
        names.append(module.contents.name or b"")
        return 0

    walk = getattr(ctypes.CDLL(None), "dl_iterate_phdr", None)
    if walk is not None:
        walk(visitor(visit), None)
    # NumPy's first, because other packages may have loaded a BLAS of their own.
    wanted = [n for n in names if b"blas" in n.lower() or b"mkl_rt" in n.lower()]
    for name in sorted(wanted, key=lambda n: b"numpy" not in n):
        try:
            yield ctypes.CDLL(os.fsdecode(name), mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:
            continue
    yield ctypes.CDLL(None)


def _works(function: Any, letter: str, bits: int) -> bool:
    """Whether a product of (2, 3) and (3, 2) is right."""
    real, dtype = _C_TYPES[letter]
    integer = ctypes.c_int64 if bits == 64 else ctypes.c_int32
    a, b, c = np.arange(6, dtype=dtype), np.arange(1, 7, dtype=dtype), np.full(4, 7, dtype)
    function.restype = None
    at = [ctypes.c_void_p(m.ctypes.data) for m in (a, b, c)]
    m, n, k = integer(2), integer(2), integer(3)
    function(
        _ROW_MAJOR, _PLAIN, _PLAIN, m, n, k, real(1), at[0], k, at[1], n, real(0), at[2], n
    )  # fmt: skip
    return np.array_equal(c.reshape(2, 2), a.reshape(2, 3) @ b.reshape(3, 2))


def _one_thread(library: ctypes.CDLL) -> OneThread | None:
    """Sets the number of threads of an OpenBLAS with its own thread pool; None for other kinds.

    An OpenBLAS on OpenMP counts threads for each calling thread, so that nobody could restore the number
    that another thread has set.
    """
    for prefix, suffix in (
        ("scipy_openblas_", "64_"),
        ("openblas_", "64_"),
        ("scipy_openblas_", ""),
        ("openblas_", ""),
    ):
        get, put, parallel = (
            getattr(library, f"{prefix}{name}{suffix}", None)
            for name in ("get_num_threads", "set_num_threads", "get_parallel")
        )
        if get and put and parallel:
            put.restype = None
            return OneThread(get, put) if parallel() == _PTHREADS else None
    return None


def find() -> Blas | None:
    """Find a BLAS, test it, and give its symbols to the linker of jitted code."""
    for library in _loaded():
        for prefix, suffix, bits in _SPELLINGS:
            found: dict[str, Any] = {
                s: getattr(library, f"{prefix}{s}gemm{suffix}", None) for s in _C_TYPES
            }
            if any(f is None or not _works(f, s, bits) for s, f in found.items()):
                continue
            symbols = {s: f"fastnet_{s}gemm" for s in found}
            for s, function in found.items():
                address = ctypes.cast(function, ctypes.c_void_p).value
                llvm.add_symbol(symbols[s], address)
            return Blas(symbols, bits, _one_thread(library))
    return None


FOUND = None if PLAIN else find()


@intrinsic  # type: ignore[untyped-decorator]
def gemm(typingctx: Any, c: Any, a: Any, b: Any, trans_a: Any, trans_b: Any, beta: Any) -> Any:
    """c ← op(a)·op(b) + beta·c for C-contiguous matrices; op transposes if its flag is set."""
    blas = FOUND
    assert blas is not None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integer, real = ir.IntType(blas.bits), context.get_data_type(c.dtype)
        enum, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kinds = (enum,) * 3 + (integer,) * 3 + (real, pointer, integer, pointer, integer)
        function = ir.FunctionType(ir.VoidType(), (*kinds, real, pointer, integer))
        symbol = blas.symbols["s" if c.dtype == types.float32 else "d"]
        callee = builder.module.globals.get(symbol)
        if callee is None:
            callee = ir.Function(builder.module, function, symbol)
        into, left, right = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip((c, a, b), args[:3], strict=True)
        )
        shapes = [
            [builder.trunc(s, integer) if blas.bits == 32 else s for s in _shape(builder, array)]
            for array in (into, left, right)
        ]
        (m, n), (a0, a1), (_, b1) = shapes
        transposed, plain = (ir.Constant(enum, v) for v in (_TRANSPOSED, _PLAIN))
        builder.call(
            callee,
            [
                ir.Constant(enum, _ROW_MAJOR),
                builder.select(args[3], transposed, plain),
                builder.select(args[4], transposed, plain),
                m,
                n,
                builder.select(args[3], a0, a1),
                ir.Constant(real, 1),
                builder.bitcast(left.data, pointer),
                a1,
                builder.bitcast(right.data, pointer),
                b1,
                args[5],
                builder.bitcast(into.data, pointer),
                n,
            ],
        )
        return context.get_dummy_value()

    return types.void(c, a, b, types.boolean, types.boolean, c.dtype), codegen


def _shape(builder: Any, array: Any) -> list[Any]:
    return [builder.extract_value(array.shape, i) for i in range(2)]
