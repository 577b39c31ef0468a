"""The engine: kernels on the device for programs whose tensors lie on the host, one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import SIMULATOR, cuda, stream_for
from fastnet.backends.cuda.kernels import LAUNCHERS
from fastnet.backends.cuda.kernels.formulas import launcher_of
from fastnet.backends.cuda.kernels.registry import absent, changing, tensor_arguments
from fastnet.backends.reference import PythonRunner
from fastnet.op import Kernel
from fastnet.plan.instructions import kernels_of


def reason(install: str) -> str | None:
    """Why no kernel could run here, or None. `install` says how to get a compiler."""
    if SIMULATOR:
        return None
    no_compiler = f"numba-cuda finds no compiler for the device: {install}"
    if cuda.is_available():
        try:
            compiler = cuda.runtime.get_version()[0]
        except RuntimeError:  # there is no NVRTC
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


class Engine:
    """Copies a kernel's operands to the device, launches it, and copies back what it wrote."""

    def __init__(self) -> None:
        runner = PythonRunner(lambda kernel: partial(self._call, kernel))
        self.run: Callable[[np.ndarray, np.ndarray], None] = runner.run
        self.train: Callable[[np.ndarray], None] = runner.train

    @cached_property
    def _queue(self) -> Any:  # made when it is needed: a stream takes a context on the device
        return stream_for(self)

    def kernels(self) -> Mapping[str, tuple[str, ...]]:
        """The names of each kernel's tensor arguments, as the launcher spells them."""
        return {name: tensor_arguments(name) for name in LAUNCHERS}

    def prepare(self, program: np.ndarray) -> None:
        """Refuse what is missing."""
        for _, kernel in kernels_of(program):
            launcher_of(kernel)

    def _call(self, kernel: Kernel, *arguments: Any) -> None:
        given = dict(zip(kernel.arguments, arguments, strict=True))
        tensors = {name: given[name] for name in kernel.tensors}
        copies: dict[tuple[int, ...], Any] = {}  # what shares memory shares the copy
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


def written(kernel: Kernel) -> tuple[str, ...]:
    """The tensors that a kernel writes: outputs and state, or gradients of inputs."""
    op = kernel.op
    made = {f"d{name}" for name in op.inputs} if kernel.phase == "vjp" else {*op.outputs, *op.state}
    return tuple(name for name in kernel.tensors if name in made)
