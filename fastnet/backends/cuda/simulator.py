"""What Numba's simulator of CUDA, which runs every thread of a block as a thread of Python, lacks."""

from __future__ import annotations

import threading
from types import FunctionType
from typing import Any

import numpy as np
from numba.cuda.simulator import kernelapi


def quiet(function: Any) -> Any:
    """The same kernel, without NumPy's warnings, which are on in every new thread."""

    def kernel(*arguments: Any) -> None:
        with errstate(all="ignore"):
            function(*arguments)

    errstate = np.errstate
    # The simulator puts its own `cuda` among the globals of what it is given.
    return FunctionType(
        kernel.__code__, function.__globals__, function.__name__, None, kernel.__closure__
    )


def syncthreads() -> None:
    """Wait for the block's other threads; the simulator's own function is for a kernel's globals."""
    thread: Any = threading.current_thread()
    thread.syncthreads()


def check(blocks: Any, threads: Any) -> None:
    """Refuse what a device would not launch."""
    (x, y), block = (*np.atleast_1d(blocks), 1)[:2], np.prod(threads)
    assert 1 <= x < 1 << 31 and 1 <= y <= 65535 and 1 <= block <= 1024, (blocks, threads)


class _Allocations(dict[Any, Any]):
    """A block's shared arrays: whoever finds none holds the others up until there is one."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def get(self, key: Any, default: Any = None) -> Any:
        """The array, or None, with the lock held until it is set."""
        self._lock.acquire()
        found = super().get(key)
        if found is not None:
            self._lock.release()
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self._lock.release()


def share_safely() -> None:
    """Let threads that ask at once for the same shared array have the same."""
    shared: Any = kernelapi.FakeCUDAShared
    plain = shared.__init__

    def init(self: Any, size: int) -> None:
        plain(self, size)
        self._allocations = _Allocations()

    shared.__init__ = init
