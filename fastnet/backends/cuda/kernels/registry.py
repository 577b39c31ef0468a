"""Where launchers are collected by name.

A launcher is `launch(queue, *arguments)`: it enqueues on a CUDA stream what a reference kernel does with
the same arguments, and returns at once. Tensors are contiguous device arrays of their logical shapes,
absent ones of as many dimensions and of size 0 (see `absent`). Numbers that change from step to step
(see `changing`) are device arrays of one element, so that a step's launches are like another's; all other
numbers are Python's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastnet.op import KERNELS, Array, Kernel

Launcher = Callable[..., None]
LAUNCHERS: dict[str, Launcher] = {}  # by the kernel's name
COUNTER = ("seed", "step")  # of random draws


def launcher(function: Launcher) -> Launcher:
    """Register a launcher under its own name, that of a kernel."""
    LAUNCHERS[function.__name__] = function
    return function


def tensor_arguments(name: str) -> tuple[str, ...]:
    """Those arguments of a launcher that the kernel's op declares as tensors."""
    code = LAUNCHERS[name].__code__
    given = code.co_varnames[1 : code.co_argcount]
    return tuple(a for a in given if KERNELS[name].op.spec(a) is not None)


def changing(kernel: Kernel) -> Mapping[str, Any]:
    """The numbers among a kernel's arguments that change from step to step, and their dtypes."""
    kinds = dict.fromkeys(COUNTER, np.uint64) | dict.fromkeys(kernel.op.hyper, np.float64)
    return {name: kinds[name] for name in kernel.arguments if name in kinds}


def absent(kernel: Kernel, name: str, dtype: Any) -> Array:
    """What stands for a tensor of a kernel that is not there, on the host, in a model of `dtype`."""
    spec = kernel.op.spec(name)
    assert spec is not None
    return np.empty((0,) * len(spec.dims), spec.dtype or dtype)


def written(kernel: Kernel) -> tuple[str, ...]:
    """The tensors that a kernel writes: outputs and state, or gradients of inputs."""
    op = kernel.op
    made = {f"d{name}" for name in op.inputs} if kernel.phase == "vjp" else {*op.outputs, *op.state}
    return tuple(name for name in kernel.tensors if name in made)
