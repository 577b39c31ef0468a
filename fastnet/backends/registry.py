"""The backends by name: which can run here, and which one "auto" selects."""

from __future__ import annotations

import importlib
import threading
import warnings

from fastnet import parallel
from fastnet.backends.base import Backend
from fastnet.errors import BackendUnavailable, outside
from fastnet.plain import plain

# Name → (module, maker of its backend). The first use imports the module and makes the backend, or raises
# BackendUnavailable if it cannot run here; the message, one line, says why and how to get it.
_MODULES = {
    "c": ("fastnet.backends.c", "CBackend"),
    "numba": ("fastnet.backends.numba", "load"),
    "reference": ("fastnet.backends.reference", "ReferenceBackend"),
    "cuda": ("fastnet.backends.cuda", "load"),
}
NAMES = tuple(_MODULES)
_AUTOMATIC = NAMES[:3]  # "auto" tries these in order; it never selects a GPU
_found: dict[str, Backend | str] = {}
_lock = parallel.across_forks(threading.Lock())


@plain(eq=True, frozen=True)
class BackendInfo:
    """Whether a backend can run here; if not, `reason` says why and how to get it.

    bfloat16: the machine instructions by which it multiplies bfloat16, for a model of that precision; None:
    those for float32, on rounded operands.
    """

    name: str
    available: bool
    reason: str | None = None
    bfloat16: str | None = None

    def __repr__(self) -> str:
        if not self.available:
            return f"not available: {self.reason}"
        return f"available, bfloat16 by {self.bfloat16}" if self.bfloat16 else "available"


def _find(name: str) -> Backend | str:
    """A backend, or why it cannot run here; the answer is final for the process."""
    with _lock:
        if name not in _found:
            module, make = _MODULES[name]
            try:
                _found[name] = getattr(importlib.import_module(module), make)()
            except BackendUnavailable as error:
                _found[name] = str(error)
        return _found[name]


def backends() -> dict[str, BackendInfo]:
    """Every backend by name, in the order in which "auto" tries them; last "cuda", which it never selects.

    Each value has `available` and, if that is False, `reason`: why, and how to get the backend; and
    `bfloat16`, the machine instructions that multiply bfloat16, or None. The call loads all backends, of
    which Numba takes longest.
    """
    found = {name: _find(name) for name in NAMES}
    return {
        name: BackendInfo(name, False, one)
        if isinstance(one, str)
        else BackendInfo(name, True, bfloat16=one.bfloat16)
        for name, one in found.items()
    }


def check_name(name: str) -> str:
    """Return the name of a backend or "auto", or raise BackendUnavailable."""
    if not isinstance(name, str) or name not in ("auto", *NAMES):
        known = ", ".join(repr(n) for n in ("auto", *NAMES))
        raise BackendUnavailable(f"backend {name!r} is unknown; expected one of {known}")
    return name


def get(name: str) -> Backend:
    """The backend of this name, or the first available one for "auto".

    Raises BackendUnavailable where it is unknown or cannot run here. "auto" warns once if only the
    reference is available.
    """
    if check_name(name) != "auto":
        found = _find(name)
        if isinstance(found, str):
            raise BackendUnavailable(f"backend {name!r} is not available: {found}")
        return found
    missing = []
    for candidate in _AUTOMATIC:
        found = _find(candidate)
        if not isinstance(found, str):
            break
        missing.append(f"{candidate}: {found}")
    assert not isinstance(found, str)  # the reference is always there
    if found.name == "reference":
        _warn_slow("; ".join(missing))
    return found


_warned = False


def _warn_slow(why: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"fastnet runs on its NumPy reference backend, which is slow ({why})",
            stacklevel=outside(),
        )
