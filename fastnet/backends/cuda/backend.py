"""Loads the backend if Numba and CUDA are available."""

from __future__ import annotations

import importlib
import os

from fastnet.backends.base import Backend
from fastnet.errors import BackendUnavailable

INSTALL = "pip install 'fastnet-engine[cuda12]', or [cuda13] where nvidia-smi shows CUDA 13"


def load() -> Backend:
    """The backend; BackendUnavailable without numba-cuda or without a device with driver or simulator."""
    try:
        if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") in ("", "0"):
            importlib.import_module("numba_cuda")
        importlib.import_module("numba.cuda")
    except Exception as error:  # such as an AttributeError from incompatible versions
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        reason = f"numba.cuda cannot be imported ({type(error).__name__}: {error}): {INSTALL}"
        if missing in ("numba_cuda", "numba", "llvmlite"):
            reason = f"{missing.replace('_', '-')} is not installed: {INSTALL}"
        raise BackendUnavailable(reason) from None
    engine = importlib.import_module("fastnet.backends.cuda.engine")
    if reason := engine.reason(INSTALL):
        raise BackendUnavailable(reason)
    made: Backend = engine.CudaBackend()
    return made
