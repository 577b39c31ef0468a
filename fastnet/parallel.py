"""The number of threads of the C backend, one number for the whole process.

Threads share a step or a prediction that is large enough, and the results have the same bits for any number
of them. The other backends use the threads of NumPy's BLAS, which has its own settings.
"""

from __future__ import annotations

import math
import os
import threading
import time
import warnings
from contextlib import AbstractContextManager
from typing import Any

from fastnet.errors import HyperparameterError, check_int, outside
from fastnet.interrupts import Bracket

MAX_THREADS = 64  # FN_MAX_THREADS
OWN_VARIABLE = "FASTNET_NUM_THREADS"
VARIABLES = (OWN_VARIABLE, "OMP_NUM_THREADS")


def across_forks(lock: Any) -> Any:
    """Hold the lock during a fork, so that no thread of the parent holds it in the child."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )
    return lock


_lock = across_forks(threading.Lock())
count = 0  # 0: not known yet


class _Setting:
    """A number of threads, in force until its block ends or for good."""

    n = 0


# The process's number, then those of the open blocks in all threads. The last one is in force.
_settings = [_Setting()]
# How many blocks of `sharing` each thread of Python has open, by the thread's identity.
_sharers: dict[int, int] = {}
# Threads that have none open since a moment ago and keep their share until that time, as the next fit of a
# search soon opens one; none where nobody has a block open.
_lingering: dict[int, float] = {}
LINGER = 1.0  # seconds


def _apply() -> None:
    global count
    if not _sharers:
        _lingering.clear()
    n, sharers = _settings[-1].n, len(_sharers) + len(_lingering)
    count = max(1, n // sharers) if n and sharers else n


def _forget_other_threads() -> None:
    """After a fork, which only the thread that called it survives."""
    mine = threading.get_ident()
    for thread in [one for one in _sharers if one != mine]:
        del _sharers[thread]
    _lingering.clear()
    _apply()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)


def get_num_threads() -> int:
    """The number of threads that the C backend may use.

    The initial number is FASTNET_NUM_THREADS, else OMP_NUM_THREADS, else the number of cores that the
    process may use and that its control group grants; at most 64. Raises HyperparameterError where
    FASTNET_NUM_THREADS is no integer ≥ 1. Another value of OMP_NUM_THREADS is ignored with one warning,
    because other programs may read it differently.
    """
    odd = None
    if not count:
        with _lock:
            if not count:
                _settings[-1].n, odd = _default()
                _apply()
    if odd:
        warnings.warn(odd, stacklevel=outside())
    if _lingering:
        _end_lingering()
    return count


def _end_lingering() -> None:
    """Let go of the shares of threads that have ended their last block some time ago."""
    now = time.monotonic()
    with _lock:
        for thread in [one for one, until in _lingering.items() if until < now]:
            del _lingering[thread]
        _apply()


def set_num_threads(n: int) -> None:
    """Let the C backend use up to `n` threads, 1 ≤ n ≤ 64, in the whole process, from the next call on.

    Within `with fastnet.threads(…)` the number holds until the block that was opened last ends.
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
        get_num_threads()  # determines the number that holds after the block
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

    Blocks of different threads may overlap. In force is the open block that was opened last; after all
    blocks the number is what it was before the first.
    """
    return _Threads(check_int("n", n, low=1, high=MAX_THREADS))


class _Sharing(Bracket[None]):
    """The block of `sharing`."""

    def _begin(self) -> None:
        get_num_threads()  # determines the number that is shared
        self._thread = threading.get_ident()
        with _lock:
            _lingering.pop(self._thread, None)
            _sharers[self._thread] = _sharers.get(self._thread, 0) + 1
            _apply()

    def _end(self) -> None:
        with _lock:
            left = _sharers.pop(self._thread, 1) - 1
            if left:
                _sharers[self._thread] = left
            else:
                _lingering[self._thread] = time.monotonic() + LINGER
            _apply()


def sharing() -> AbstractContextManager[None]:
    """A block that shares the threads with the blocks that other threads of Python have open.

    With blocks of k threads open, calls use 1/k of the number in force, rounded down, but at least one
    thread. A block counts for a second after its end, unless all have ended.
    """
    return _Sharing()


def _default() -> tuple[int, str | None]:
    """The number that the environment asks for, and a description of an invalid variable or None."""
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
    """The number of cores that the control groups (v1 or v2) grant; inf: no limit."""
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
            except ValueError:  # "max", or no such file
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
