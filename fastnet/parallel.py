"""How many threads the C backend may use: one number for the process.

A step or a prediction is shared among threads where its work is worth it, and the results have the
same bits for any number of them. The other backends take their threads from NumPy's BLAS, which has its
own settings.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from contextlib import AbstractContextManager
from typing import Any

from fastnet.errors import HyperparameterError, check_int, outside
from fastnet.interrupts import Bracket

MAX_THREADS = 64  # FN_MAX_THREADS
OWN_VARIABLE = "FASTNET_NUM_THREADS"
VARIABLES = (OWN_VARIABLE, "OMP_NUM_THREADS")


def across_forks(lock: Any) -> Any:
    """The lock, taken during a fork: no child finds it held by a thread that it does not have."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )
    return lock


_lock = across_forks(threading.Lock())
count = 0  # 0: nobody has asked yet


class _Setting:
    """A number of threads that holds until its block ends, or for good."""

    n = 0


# That of the process, then those of the blocks that are open, in whatever thread; the last one is in
# force.
_settings = [_Setting()]


def _apply() -> None:
    global count
    count = _settings[-1].n


def get_num_threads() -> int:
    """The number of threads that the C backend may use.

    At first FASTNET_NUM_THREADS says, else OMP_NUM_THREADS, else the cores that the process may run on
    and the quota of its control group; at most 64. Raises HyperparameterError where FASTNET_NUM_THREADS
    is no integer ≥ 1. An OMP_NUM_THREADS that is none, which others may read in other ways, is passed
    over with one warning.
    """
    odd = None
    if not count:
        with _lock:
            if not count:
                _settings[-1].n, odd = _default()
                _apply()
    if odd:
        warnings.warn(odd, stacklevel=outside())
    return count


def set_num_threads(n: int) -> None:
    """Let the C backend use up to `n` threads, 1 ≤ n ≤ 64, from the next call on, in the whole process.

    While a block `with fastnet.threads(…)` is open, until the one opened last ends.
    """
    n = check_int("n", n, low=1, high=MAX_THREADS)
    with _lock:
        _settings[-1].n = n
        _apply()


class _Threads(Bracket[None]):
    """The block of `threads`."""

    def __init__(self, n: int) -> None:
        self._own = _Setting()
        self._own.n = n

    def _begin(self) -> None:
        get_num_threads()  # what holds after the block
        with _lock:
            _settings.append(self._own)
            _apply()

    def _end(self) -> None:
        with _lock:
            if self._own in _settings:
                _settings.remove(self._own)
            _apply()


def threads(n: int) -> AbstractContextManager[None]:
    """`with fastnet.threads(2): …`: up to `n` threads within the block, in the whole process.

    Blocks of several threads may overlap: the number is that of the block opened last of those that are
    still open, and after the last of them what it was before the first.
    """
    return _Threads(check_int("n", n, low=1, high=MAX_THREADS))


def _default() -> tuple[int, str | None]:
    """The number that the environment asks for, and what was passed over."""
    odd = None
    for name in VARIABLES:
        text = os.environ.get(name, "").strip()
        if not text:
            continue
        first = text.split(",")[0].strip()  # OpenMP lists a number for each level of nesting
        if not first.isdecimal() or int(first) < 1:
            odd = f"{name} is {text!r}; expected an integer ≥ 1"
            if name == OWN_VARIABLE:
                raise HyperparameterError(odd)
            continue
        return min(int(first), MAX_THREADS), None
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        cores = os.cpu_count() or 1
    cores = max(1, math.ceil(min(cores, _quota(), MAX_THREADS)))
    return cores, odd and f"{odd}: it is passed over, up to {cores} threads are used"


def _quota(root: str = "/") -> float:
    """The processors' time that the control groups (v1 or v2) grant, in cores; inf: no limit."""
    least = math.inf
    for line in _read(f"{root}/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = f"{root}/sys/fs/cgroup/{'cpu' if controllers else ''}"
        names = path.strip("/").split("/")
        for depth in range(len(names), -1, -1):
            folder = "/".join(("", *names[:depth]))
            if controllers:
                words = [_read(f"{base}{folder}/cpu.cfs_{name}_us") for name in ("quota", "period")]
            else:
                words = _read(f"{base}{folder}/cpu.max").split()
            try:
                quota, period = (float(word) for word in words)
            except ValueError:  # "max", or nothing there
                continue
            if quota > 0 and period > 0:
                least = min(least, quota / period)
    return least


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""
