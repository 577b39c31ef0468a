"""Where launchers are collected by name.

A launcher is `launch(queue, *arguments)`: it enqueues on a CUDA stream what a reference kernel does with
the same arguments, and returns at once. Tensors are contiguous device arrays of their logical shapes,
absent ones of as many dimensions and of size 0 (see `absent`); numbers are Python's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.op import KERNELS, Array, Kernel

Launcher = Callable[..., None]
LAUNCHERS: dict[str, Launcher] = {}  # by the kernel's name


def launcher(function: Launcher) -> Launcher:
    """Register a launcher under its own name, that of a kernel."""
    LAUNCHERS[function.__name__] = function
    return function


def tensor_arguments(name: str) -> tuple[str, ...]:
    """Those arguments of a launcher that the kernel's op declares as tensors."""
    code = LAUNCHERS[name].__code__
    given = code.co_varnames[1 : code.co_argcount]
    return tuple(a for a in given if KERNELS[name].op.spec(a) is not None)


def absent(kernel: Kernel, name: str, dtype: Any) -> Array:
    """What stands for a tensor of a kernel that is not there, on the host, in a model of `dtype`."""
    spec = kernel.op.spec(name)
    assert spec is not None
    return np.empty((0,) * len(spec.dims), spec.dtype or dtype)
