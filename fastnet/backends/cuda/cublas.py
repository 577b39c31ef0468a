"""cuBLAS through ctypes: matrix products in the model's own precision."""

from __future__ import annotations

import ctypes
import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from fastnet.backends.cuda.device import SIMULATOR, cuda, new_array
from fastnet.errors import BackendUnavailable

try:
    pathfinder: Any = importlib.import_module("cuda.pathfinder")
except ImportError:  # numba-cuda depends on it
    pathfinder = None

TF32_VARIABLE = "FASTNET_CUDA_TF32"
_TF32_MATH = 3  # CUBLAS_TF32_TENSOR_OP_MATH; the default multiplies float32 as float32
_ALLOC_FAILED = 3  # CUBLAS_STATUS_ALLOC_FAILED
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int
_PRODUCTS = {
    "float32": ("cublasSgemm_v2", ctypes.c_float),
    "float64": ("cublasDgemm_v2", ctypes.c_double),
}


@cache
def _library() -> Any:
    """The library, or None if it is missing."""
    if SIMULATOR or pathfinder is None:
        return None
    try:
        return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
    except (RuntimeError, OSError):  # not found, or not loadable
        return None


def _check(status: int, what: str) -> None:
    if status == _ALLOC_FAILED:
        raise MemoryError(f"cuBLAS: {what} finds no memory")
    if status:
        raise BackendUnavailable(f"cuBLAS: {what} failed with status {status}")


def _workspace() -> int:
    """The bytes of cuBLAS's recommended workspace."""
    hopper = cuda.get_current_device().compute_capability >= (9, 0)
    return (32 if hopper else 4) << 20


class _Handle:
    """cuBLAS for one stream, with a workspace of its own, which capture of a CUDA graph requires."""

    def __init__(self, library: Any, queue: Any) -> None:
        self._library, self._pointer = library, _POINTER()
        self._memory = new_array(_workspace(), "uint8")
        _check(library.cublasCreate_v2(ctypes.byref(self._pointer)), "cublasCreate")
        self.move(queue)
        if os.environ.get(TF32_VARIABLE, "0") not in ("", "0"):
            _check(library.cublasSetMathMode(self._pointer, _TF32_MATH), "cublasSetMathMode")

    def move(self, queue: Any) -> None:
        """Use this stream from now on, with the same workspace, which cuBLAS drops with the old stream."""
        library, stream = self._library, _POINTER(int(queue.handle))
        _check(library.cublasSetStream_v2(self._pointer, stream), "cublasSetStream")
        workspace = _POINTER(_address(self._memory)), ctypes.c_size_t(self._memory.size)
        _check(library.cublasSetWorkspace_v2(self._pointer, *workspace), "cublasSetWorkspace")

    def product(
        self, c: Any, a: Any, b: Any, inner: int, trans_a: bool, trans_b: bool, add: bool
    ) -> None:
        """c ← op(a)·op(b) + add·c. For cuBLAS, which is column-major, this is cᵀ = op(b)ᵀ·op(a)ᵀ."""
        name, number = _PRODUCTS[c.dtype.name]
        rows, columns = c.shape
        status = getattr(self._library, name)(
            *(self._pointer, _INT(trans_b), _INT(trans_a), _INT(columns), _INT(rows), _INT(inner)),
            *(ctypes.byref(number(1)), _POINTER(_address(b)), _INT(b.shape[1])),
            *(_POINTER(_address(a)), _INT(a.shape[1])),
            *(ctypes.byref(number(add)), _POINTER(_address(c)), _INT(columns)),
        )
        _check(status, name)


def _address(array: Any) -> Any:
    return array.device_ctypes_pointer.value


_handles: dict[int, _Handle] = {}  # by stream
_refused = False  # whether the library is unusable


def handle(queue: Any) -> _Handle | None:
    """cuBLAS for a stream, or None if it is missing."""
    global _refused
    library = _library()
    if library is None or _refused:
        return None
    key = int(queue.handle)
    if key not in _handles:
        try:
            _handles[key] = _Handle(library, queue)
        except BackendUnavailable as error:
            _refused = True
            warnings.warn(
                f"{error}: matrix products are made by a kernel of fastnet's own, which is slower; install "
                "the version of nvidia-cublas that fits the driver",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
    return _handles[key]


def product(queue: Any, *arguments: Any) -> None:
    """Call _Handle.product on a stream."""
    found = handle(queue)
    assert found is not None
    found.product(*arguments)


@contextmanager
def moved(queue: Any, other: Any) -> Iterator[None]:
    """While this is open, the other stream has this stream's handle and workspace."""
    found = handle(queue)
    if found is None:
        yield
        return
    own, its = int(queue.handle), int(other.handle)
    del _handles[own]  # if an error keeps it on the other stream, `handle` makes a new one
    try:
        found.move(other)
        _handles[its] = found
        yield
    finally:
        _handles.pop(its, None)
        found.move(queue)
        _handles[own] = found
