"""How many threads the BLAS takes for products of middling size: one.

Measured on two busy cores: a 128·128·128 product takes 43 µs on one thread, and on two 16 ms, as one
thread waits for the other to be scheduled; on idle cores the second thread gains a fifth at
256·256·256, a third at three times that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

# In multiplications. Up to FEW, OpenBLAS takes one thread by itself; above MANY, more are worth it.
FEW, MANY = 1 << 13, 1 << 24


class OneThread:
    """A context in which an OpenBLAS runs on one thread.

    Its number of threads is the process's, so several threads may be inside: who enters
    remembers a number above one, the last to leave restores it, unless somebody has set another.
    """

    def __init__(self, get: Callable[[], int], put: Callable[[int], None]) -> None:
        self._get, self._put = get, put
        self._before = 0  # the number to restore; 0: none
        self._inside = 0
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            now = self._get()
            if now > 1:
                self._before = now
                self._put(1)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._before:
                if self._get() == 1:
                    self._put(self._before)
                self._before = 0

    def _forked(self) -> None:
        """Nobody is inside any more; the next to leave restores what they have set."""
        self._lock, self._inside = threading.Lock(), 0
