"""Additions to Numba's CUDA simulator, which runs every thread of a block as a Python thread."""

from __future__ import annotations

import threading
from types import FunctionType
from typing import Any

import numpy as np
from numba.cuda.simulator import kernelapi


def quiet(function: Any) -> Any:
    """A kernel without NumPy's warnings, which every new thread enables again."""

    def kernel(*arguments: Any) -> None:
        with errstate(all="ignore"):
            function(*arguments)

    errstate = np.errstate
    # The simulator replaces `cuda` in the globals of a kernel.
    return FunctionType(
        kernel.__code__, function.__globals__, function.__name__, None, kernel.__closure__
    )


def syncthreads() -> None:
    """Wait for the block's other threads; the simulator's own function works in a kernel's globals only."""
    thread: Any = threading.current_thread()
    thread.syncthreads()


def check(blocks: Any, threads: Any) -> None:
    """Refuse a launch that a device would refuse."""
    (x, y), block = (*np.atleast_1d(blocks), 1)[:2], np.prod(threads)
    assert 1 <= x < 1 << 31 and 1 <= y <= 65535 and 1 <= block <= 1024, (blocks, threads)


class _Allocations(dict[Any, Any]):
    """A block's shared arrays: a thread that finds none blocks the others until it has made one."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def get(self, key: Any, default: Any = None) -> Any:
        """The array; or None, and then the lock stays held until the array is set."""
        self._lock.acquire()
        found = super().get(key)
        if found is not None:
            self._lock.release()
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self._lock.release()


def share_safely() -> None:
    """Give threads that request the same shared array at the same time one array."""
    shared: Any = kernelapi.FakeCUDAShared
    plain = shared.__init__

    def init(self: Any, size: int) -> None:
        plain(self, size)
        self._allocations = _Allocations()

    shared.__init__ = init
