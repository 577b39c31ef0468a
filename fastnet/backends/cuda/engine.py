"""CudaBackend, and the reasons for which it cannot run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np

from fastnet.backends.base import Backend
from fastnet.backends.cuda import arrays
from fastnet.backends.cuda.device import SIMULATOR, cuda, stream_for
from fastnet.backends.cuda.executor import CudaExecutor, CudaPasses
from fastnet.backends.cuda.kernels import LAUNCHERS
from fastnet.backends.cuda.kernels.formulas import launcher_of
from fastnet.backends.cuda.kernels.registry import absent, changing, tensor_arguments, written
from fastnet.backends.cuda.products import CudaRunner
from fastnet.backends.reference import PythonRunner
from fastnet.backends.steps import Update
from fastnet.op import Array, Kernel
from fastnet.plan.compiler import Plan
from fastnet.plan.instructions import kernels_of
from fastnet.plan.segments import Storage


def reason(install: str) -> str | None:
    """Why no kernel can run here, or None. `install` says how to get a compiler."""
    if SIMULATOR:
        return None
    no_compiler = f"numba-cuda finds no compiler for the device: {install}"
    if cuda.is_available():
        try:
            compiler = cuda.runtime.get_version()[0]
        except RuntimeError:  # NVRTC is missing
            return no_compiler
        if (driver := cuda.driver.get_version()[0]) < compiler:
            return f"the driver is of CUDA {driver}, numba-cuda's compiler of {compiler}: {install}"
        return None
    error = " ".join(str(cuda.cuda_error() or "").split())
    if not error:
        return no_compiler
    if "NO_DEVICE" in error:
        return f"the driver finds no device ({error}): see nvidia-smi and CUDA_VISIBLE_DEVICES"
    return f"no NVIDIA driver works here ({error}): install one, until nvidia-smi shows a device"


class CudaBackend(Backend):
    """Compiles each kernel by numba-cuda at its first launch.

    Under NUMBA_ENABLE_CUDASIM=1 kernels run in Numba's simulator, which needs no GPU and is very slow.
    `run` and `train` take programs whose tensors are on the host: they copy a kernel's operands to the
    device, launch it, and copy its results back.
    """

    name = "cuda"

    def __init__(self) -> None:
        runner = PythonRunner(lambda kernel: partial(self._call, kernel))
        self.run, self.train = runner.run, runner.train  # type: ignore[method-assign]

    @cached_property
    def _queue(self) -> Any:  # made at first use, because a stream creates a context on the device
        return stream_for(self)

    def kernels(self) -> Mapping[str, tuple[str, ...]]:
        """The names of each kernel's tensor arguments, from its launcher."""
        return {name: tensor_arguments(name) for name in LAUNCHERS}

    def prepare(self, program: np.ndarray) -> None:
        """Raise BackendUnavailable for a missing kernel."""
        for _, kernel in kernels_of(program):
            launcher_of(kernel)

    def features(self, name: str, value: Any, shape: tuple[int, ...] | None, dtype: Any) -> Any:
        """Rows on the device, checked there."""
        return arrays.features(name, value, shape, dtype)

    def host(self, name: str, value: Any) -> Array:
        """A copy in the host's memory."""
        return arrays.host(name, value)

    def executor(self, plan: Plan, storage: Storage) -> CudaExecutor:
        """An executor of a plan on copies of the model's segments, which stay on the device."""
        for program in (plan.forward, plan.backward, plan.step):
            self.prepare(program)
        return CudaExecutor(plan, storage)

    def products(self, products: Any, storage: Storage, names: Mapping[str, Any]) -> CudaRunner:
        """A runner of products on copies of the model's segments."""
        for program in (products.plan.forward, products.plan.backward):
            self.prepare(program)
        return CudaRunner(products, storage, names)

    def passes(self, update: Update, storage: Storage) -> CudaPasses:
        """An executor of an update alone on these copies."""
        self.prepare(update.program)
        return CudaPasses(update, storage)

    def _call(self, kernel: Kernel, *arguments: Any) -> None:
        given = dict(zip(kernel.arguments, arguments, strict=True))
        tensors = {name: given[name] for name in kernel.tensors}
        copies: dict[tuple[int, ...], Any] = {}  # arguments that share memory share the copy
        for name, host in tensors.items():
            if not host.size:
                nothing = absent(kernel, name, host.dtype)
                given[name] = cuda.to_device(host if host.ndim == nothing.ndim else nothing)
                continue
            place = host.ctypes.data, *host.shape
            if place not in copies:
                copies[place] = cuda.to_device(host, stream=self._queue)
            given[name] = copies[place]
        for name, kind in changing(kernel).items():
            given[name] = cuda.to_device(np.array([given[name]], kind), stream=self._queue)
        launcher_of(kernel)(self._queue, *given.values())
        for name in written(kernel):
            if tensors[name].size:
                given[name].copy_to_host(tensors[name], stream=self._queue)
        self._queue.synchronize()
