"""Which backends there are, which of them can run here, and which one `auto` takes."""

from __future__ import annotations

import importlib
import threading
import warnings
from dataclasses import dataclass

from fastnet import parallel
from fastnet.backends.base import Backend
from fastnet.errors import BackendUnavailable, outside

# Name → (module, class): a backend's module is imported when it is first asked for.
_MODULES = {
    "c": ("fastnet.backends.c", "CBackend"),
    "numba": ("fastnet.backends.numba", "NumbaBackend"),
    "reference": ("fastnet.backends.reference", "ReferenceBackend"),
    "cuda": ("fastnet.backends.cuda", "CudaBackend"),
}
NAMES = tuple(_MODULES)
_AUTOMATIC = NAMES[:3]  # what `auto` tries, in this order: a GPU is only used by its name
_instances: dict[str, Backend] = {}
_lock = parallel.across_forks(threading.Lock())


@dataclass(frozen=True)
class BackendInfo:
    """Whether a backend can run here; `reason` says why not and how to get it."""

    name: str
    available: bool
    reason: str | None = None

    def __repr__(self) -> str:
        return "available" if self.available else f"not available: {self.reason}"


def _instance(name: str) -> Backend:
    with _lock:
        if name not in _instances:
            module, attribute = _MODULES[name]
            backend: Backend = getattr(importlib.import_module(module), attribute)()
            _instances[name] = backend
        return _instances[name]


def backends() -> dict[str, BackendInfo]:
    """Every backend by name, in the order in which "auto" tries them; "cuda", last, it never takes.

    Each value has `available` and, where that is False, `reason`: why, and how to get it. Asking
    loads the backends (Numba takes some tenths of a second).
    """
    reasons = {name: _instance(name).reason() for name in NAMES}
    return {name: BackendInfo(name, reason is None, reason) for name, reason in reasons.items()}


def check_name(name: str) -> str:
    """Return the name of a backend or "auto"; raise BackendUnavailable where there is none such."""
    if not isinstance(name, str) or name not in ("auto", *NAMES):
        known = ", ".join(repr(n) for n in ("auto", *NAMES))
        raise BackendUnavailable(f"backend {name!r} is unknown; expected one of {known}")
    return name


def get(name: str) -> Backend:
    """The backend of this name, or the first available one for "auto".

    Raises BackendUnavailable where it is unknown or cannot run here. "auto" warns, once, where
    nothing but the reference is available.
    """
    if check_name(name) != "auto":
        backend = _instance(name)
        reason = backend.reason()
        if reason is not None:
            raise BackendUnavailable(f"backend {name!r} is not available: {reason}")
        return backend
    missing = []
    for candidate in _AUTOMATIC:
        backend = _instance(candidate)
        reason = backend.reason()
        if reason is None:
            break
        missing.append(f"{candidate}: {reason}")
    if backend.name == "reference":
        _warn_slow("; ".join(missing))
    return backend


_warned = False


def _warn_slow(why: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"fastnet runs on its NumPy reference backend, which is slow ({why})",
            stacklevel=outside(),
        )
