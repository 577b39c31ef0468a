"""Gradients made shorter, and weights."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastnet.op import Array, Op


class grad_norm(Op):
    """norm = ‖g‖₂: squares summed in float64, over M blocks of ⌈N/M⌉ elements and then over these."""

    outputs: ClassVar = {"norm": "float64 1"}
    state: ClassVar = {"sums": "float64 M"}  # room
    inputs: ClassVar = {"g": "N"}
    dims = ("N", "M")

    @staticmethod
    def update(norm: Array, sums: Array, g: Array) -> None:
        """The blocks' sums, then the root of their sum."""
        size = -(-g.size // sums.size)
        for i in range(sums.size):
            sums[i] = np.square(g[i * size : (i + 1) * size], dtype=np.float64).sum()
        norm[0] = np.sqrt(sums.sum())


class scale_to_norm(Op):
    """g ← g·min(1, max_norm/(norm + 10⁻⁶)); all NaN where the norm is."""

    state: ClassVar = {"g": "N"}
    inputs: ClassVar = {"norm": "float64 1"}
    dims = ("N",)
    hyper = ("max_norm",)

    @staticmethod
    def update(g: Array, norm: Array, max_norm: float) -> None:
        """PyTorch's factor."""
        g *= np.minimum(max_norm / (norm[0] + 1e-6), 1.0)


class scale_units(Op):
    """Each column of w that is longer than max_norm is scaled to that length; sums in float64."""

    state: ClassVar = {"w": "I O"}
    dims = ("I", "O")
    hyper = ("max_norm",)

    @staticmethod
    def update(w: Array, max_norm: float) -> None:
        """A column holds the weights of one unit."""
        norms = np.sqrt(np.square(w, dtype=np.float64).sum(axis=0))
        w *= np.where(norms > max_norm, max_norm / np.maximum(norms, max_norm), 1.0)
