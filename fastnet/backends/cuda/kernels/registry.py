"""The table of launchers by name.

A launcher is `launch(queue, *arguments)`: it enqueues a kernel on a CUDA stream, with the arguments of the
reference kernel, and returns at once. Tensors are contiguous device arrays in their logical shapes; absent
tensors have as many dimensions and size 0 (see `absent`). Numbers that change from step to step (see
`changing`) are device arrays of one element, so that all steps have the same launches; all other numbers
are Python's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastnet.late import load_ops
from fastnet.op import KERNELS, Array, Kernel

load_ops()  # launchers look up what their ops declare

Launcher = Callable[..., None]
LAUNCHERS: dict[str, Launcher] = {}  # by kernel name
COUNTER = ("seed", "step")  # the counter of random draws


def launcher(function: Launcher) -> Launcher:
    """Register a launcher under its own name, which is a kernel's."""
    LAUNCHERS[function.__name__] = function
    return function


def tensor_arguments(name: str) -> tuple[str, ...]:
    """The arguments of a launcher that the kernel's op declares as tensors."""
    code = LAUNCHERS[name].__code__
    given = code.co_varnames[1 : code.co_argcount]
    return tuple(a for a in given if KERNELS[name].op.spec(a) is not None)


def changing(kernel: Kernel) -> Mapping[str, Any]:
    """The arguments of a kernel that are numbers and change from step to step, and their dtypes."""
    kinds = dict.fromkeys(COUNTER, np.uint64) | dict.fromkeys(kernel.op.hyper, np.float64)
    return {name: kinds[name] for name in kernel.arguments if name in kinds}


def absent(kernel: Kernel, name: str, dtype: Any) -> Array:
    """A host array that stands for an absent tensor of a kernel, in a model of `dtype`."""
    spec = kernel.op.spec(name)
    assert spec is not None
    return np.empty((0,) * len(spec.dims), spec.dtype or dtype)


def written(kernel: Kernel) -> tuple[str, ...]:
    """The tensors that a kernel writes: outputs and state, or gradients of inputs."""
    op = kernel.op
    made = {f"d{name}" for name in op.inputs} if kernel.phase == "vjp" else {*op.outputs, *op.state}
    return tuple(name for name in kernel.tensors if name in made)
