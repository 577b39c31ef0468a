"""CudaBackend: what the registry sees; what needs Numba and CUDA is imported when first used."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnet.backends.base import Backend
from fastnet.errors import BackendUnavailable
from fastnet.op import Array, Op
from fastnet.plan.compiler import Plan
from fastnet.plan.segments import Storage

if TYPE_CHECKING:
    from fastnet.backends.cuda.engine import Engine

INSTALL = "pip install 'fastnet-engine[cuda12]', or [cuda13] where nvidia-smi shows CUDA 13"


class CudaBackend(Backend):
    """Kernels compiled by numba-cuda, each when it is first launched.

    Under NUMBA_ENABLE_CUDASIM=1 they run in Numba's simulator, which needs no GPU and is very slow.
    """

    name = "cuda"

    def __init__(self) -> None:
        self._reason: str | None = None
        self._engine: Engine | None = None

    def reason(self) -> str | None:
        """None where numba-cuda, a driver and a device are there, or the simulator is on."""
        if self._engine is None and self._reason is None:
            self._reason = self._missing()
        return self._reason

    def _missing(self) -> str | None:
        try:
            if not _simulated():
                importlib.import_module("numba_cuda")
            importlib.import_module("numba.cuda")
        except Exception as error:  # such as an AttributeError, where versions do not fit together
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing in ("numba_cuda", "numba", "llvmlite"):
                return f"{missing.replace('_', '-')} is not installed: {INSTALL}"
            return f"numba.cuda cannot be imported ({type(error).__name__}: {error}): {INSTALL}"
        engine = importlib.import_module("fastnet.backends.cuda.engine")
        reason: str | None = engine.reason(INSTALL)
        if reason is None:
            self._engine = engine.Engine()
        return reason

    def _ready(self) -> Engine:
        reason = self.reason()
        if self._engine is None:
            raise BackendUnavailable(f"backend 'cuda': {reason}")
        return self._engine

    def kernels(self) -> Mapping[str, tuple[str, ...]]:
        """The kernels it has, read off their launchers' argument lists."""
        return self._ready().kernels()

    def prepare(self, program: np.ndarray) -> None:
        """Nothing is made ahead; a kernel that is missing is an error here."""
        self._ready().prepare(program)

    def run(self, program: np.ndarray, context: np.ndarray) -> None:
        """Run the instructions in order, each on copies of its operands on the device."""
        self._ready().run(program, context)

    def train(self, args: np.ndarray) -> None:
        """Run a chunk of training steps in the same way."""
        self._ready().train(args)

    def features(self, name: str, value: Any, shape: tuple[int, ...] | None, dtype: Any) -> Any:
        """Rows that lie on the device, checked there."""
        return _module("arrays").features(name, value, shape, dtype)

    def host(self, name: str, value: Any) -> Array:
        """A copy in the host's memory."""
        found: Array = _module("arrays").host(name, value)
        return found

    def executor(self, plan: Plan, storage: Storage) -> Any:
        """What runs a plan on copies of the model's segments, which stay on the device."""
        for program in (plan.forward, plan.backward, plan.step):
            self.prepare(program)
        return _module("executor").CudaExecutor(plan, storage)

    def passes(
        self,
        program: np.ndarray,
        ops: Sequence[type[Op]],
        own: Mapping[str, Array],
        storage: Storage,
    ) -> Any:
        """What runs an update program on them."""
        self.prepare(program)
        return _module("executor").CudaPasses(program, ops, own, storage)


def _module(name: str) -> Any:
    return importlib.import_module(f"fastnet.backends.cuda.{name}")


def _simulated() -> bool:
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
