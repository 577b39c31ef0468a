"""One thread for matrix products of medium size.

On busy cores a second thread can cost far more than it gains, because one thread waits until the other is
scheduled. Measured on two busy cores: a 128·128·128 product takes 43 µs on one thread and 16 ms on two. On
idle cores the second thread gains a fifth at 256·256·256 and a third at three times that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

# In multiplications. Up to FEW, OpenBLAS itself uses one thread; above MANY, several threads pay.
FEW, MANY = 1 << 13, 1 << 24


class OneThread:
    """A context in which an OpenBLAS runs on one thread.

    The number of threads belongs to the process, and several Python threads may be inside. A thread that
    enters remembers a number above one; the last to leave restores it, unless somebody has changed it.
    """

    def __init__(self, get: Callable[[], int], put: Callable[[int], None]) -> None:
        self._get, self._put = get, put
        self._before = 0  # the number to restore, or 0
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
        """In the child of a fork nobody is inside; the next thread to leave restores the number."""
        self._lock, self._inside = threading.Lock(), 0
