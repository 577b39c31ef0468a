"""The table of kernels by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

# Every kernel of this backend by name, jitted; it compiles at first use.
FUNCTIONS: dict[str, Callable[..., None]] = {}


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Jit a kernel and register it under its own name."""
    jitted: Any = njit(error_model="numpy")(function)
    FUNCTIONS[function.__name__] = jitted
    return function
