"""Sums of gradients."""

from __future__ import annotations

from typing import Any

from fastnet.backends.cuda.kernels.loops import each
from fastnet.backends.cuda.kernels.registry import launcher


@launcher
@each("y")
def add_to_forward(i: int, y: Any, x: Any) -> None:
    """y ← y + x."""
    y[i] += x[i]
