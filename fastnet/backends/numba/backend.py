"""Loads the backend if Numba is available."""

from __future__ import annotations

import importlib

from fastnet.backends.base import Backend
from fastnet.errors import BackendUnavailable


def load() -> Backend:
    """The backend; raises BackendUnavailable if Numba is missing or does not work with this NumPy."""
    try:
        engine = importlib.import_module("fastnet.backends.numba.engine")
    except ModuleNotFoundError as error:
        if error.name not in ("numba", "llvmlite", "_cffi_backend"):
            raise
        missing = "cffi" if error.name == "_cffi_backend" else error.name
        raise BackendUnavailable(
            f"{missing} is not installed: pip install 'fastnet-engine[numba]'"
        ) from None
    except ImportError as error:
        raise BackendUnavailable(f"numba cannot be imported: {error}") from None
    made: Backend = engine.create()
    return made
