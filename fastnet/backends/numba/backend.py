"""NumbaBackend: what the registry sees; everything that needs Numba is imported when first used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from fastnet.backends.base import Backend
from fastnet.errors import BackendUnavailable

if TYPE_CHECKING:
    from fastnet.backends.numba.engine import Engine


class NumbaBackend(Backend):
    """Kernels compiled by Numba, each on its own, when a program first needs it.

    Under NUMBA_DISABLE_JIT=1 the same kernel functions run as plain Python.
    """

    name = "numba"

    def __init__(self) -> None:
        self._reason: str | None = None
        self._engine: Engine | None = None

    def reason(self) -> str | None:
        """None where Numba is installed and works with this NumPy."""
        if self._engine is None and self._reason is None:
            try:
                engine = importlib.import_module("fastnet.backends.numba.engine")
                self._engine = engine.engine()
            except ModuleNotFoundError as error:
                if error.name not in ("numba", "llvmlite", "_cffi_backend"):
                    raise
                missing = "cffi" if error.name == "_cffi_backend" else error.name
                self._reason = f"{missing} is not installed: pip install 'fastnet-engine[numba]'"
            except ImportError as error:
                self._reason = f"numba cannot be imported: {error}"
        return self._reason

    def _ready(self) -> Engine:
        reason = self.reason()
        if self._engine is None:
            raise BackendUnavailable(f"backend 'numba': {reason}")
        return self._engine

    def kernels(self) -> Mapping[str, tuple[str, ...]]:
        """The kernels it has, read off their argument lists."""
        return self._ready().kernels()

    def prepare(self, program: np.ndarray) -> None:
        """Compile what the program needs and has not been compiled yet; fill `entry`."""
        self._ready().prepare(program)

    def run(self, program: np.ndarray, context: np.ndarray) -> None:
        """Run the instructions in order, without the GIL."""
        self._ready().run(program, context)

    def train(self, args: np.ndarray) -> None:
        """Run a chunk of training steps in one native call, without the GIL."""
        self._ready().train(args)
