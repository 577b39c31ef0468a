"""Passes over gradients before a step: sums over minibatches, clipping."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from fastnet.errors import DivergenceError, HyperparameterError, check_flag, check_real, shown
from fastnet.formulas.language import Real, each, madd, maximum, minimum, where
from fastnet.op import Array, Op


class accumulate_gradient(Op):
    """total ← keep·total + share·g (ignoring total if keep is 0); g ← total."""

    state: ClassVar = {"total": "N", "g": "N"}
    dims = ("N",)
    hyper = ("keep", "share")

    @each
    def update(total: Real, g: Real, keep: float, share: float) -> tuple[Real, Real]:
        """With keep + share = 1, total is the mean of the gradients so far."""
        mean = where(keep > 0, madd(keep, total, share * g), share * g)
        return mean, mean


class clip_value(Op):
    """g ← min(max(g, −limit), limit); NaN stays NaN."""

    state: ClassVar = {"g": "N"}
    dims = ("N",)
    hyper = ("limit",)

    @each
    def update(g: Real, limit: float) -> Real:
        """Clip each element by itself."""
        return minimum(maximum(g, -limit), limit)


SCALE, LEAST = 2.0**-538, 2.0**-930


class grad_norm(Op):
    """norm = ‖g‖₂: squares summed in float64, over M blocks of ⌈N/M⌉ elements and then over the blocks.

    If that sum overflows or is less than LEAST, the op computes it again from scaled elements.
    """

    outputs: ClassVar = {"norm": "float64 1"}
    state: ClassVar = {"sums": "float64 M"}  # workspace
    inputs: ClassVar = {"g": "N"}
    dims = ("N", "M")

    @staticmethod
    def update(norm: Array, sums: Array, g: Array) -> None:
        """The sums of the blocks, then the root of their sum."""
        size = -(-g.size // sums.size)
        for i in range(sums.size):
            sums[i] = np.square(g[i * size : (i + 1) * size], dtype=np.float64).sum()
        squares = sums.sum()
        norm[0] = np.sqrt(squares)
        if not LEAST < squares < np.inf:
            scale = 1 / SCALE if squares < 1 else SCALE
            norm[0] = np.sqrt(np.square(scale * g.astype(np.float64)).sum()) / scale


class scale_to_norm(Op):
    """g ← g·min(1, max_norm/(norm + 10⁻⁶)); all NaN if norm is NaN."""

    state: ClassVar = {"g": "N"}
    inputs: ClassVar = {"norm": "float64 1"}
    dims = ("N",)
    hyper = ("max_norm",)

    @staticmethod
    def update(g: Array, norm: Array, max_norm: float) -> None:
        """PyTorch's factor."""
        g *= np.minimum(max_norm / (norm[0] + 1e-6), 1.0)


def clip_grad_norm_(model: Any, max_norm: float, error_if_nonfinite: bool = False) -> float:
    """Scale a model's gradients by min(1, max_norm/(‖g‖₂ + 10⁻⁶)); returns ‖g‖₂ over all of them.

    For loops of your own, between backward and `optimizer.step`; a Trainer takes `clip_norm`. Squares are
    summed in float64, in an order that gives the same bits on the C backend for any number of threads.

    max_norm: number ≥ 0.
    error_if_nonfinite: bool (default False). True: if the norm is NaN or infinite, raise DivergenceError
        and leave the gradients as they are. False: they become NaN or 0, as in PyTorch.
    Source: R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
    ICML 2013, algorithm 1; 10⁻⁶ is PyTorch's.
    """
    limit = check_real("max_norm", max_norm, low=0.0)
    transform = _of(model).transform_grads
    if not check_flag("error_if_nonfinite", error_if_nonfinite):
        return float(transform(grad_norm, scale_to_norm, number=limit))
    norm = transform(grad_norm)
    if not math.isfinite(norm):
        raise DivergenceError(f"the norm of the gradients is {norm}; they were not clipped")
    transform(scale_to_norm, number=limit)
    return float(norm)


def clip_grad_value_(model: Any, limit: float) -> None:
    """Clip each element of a model's gradients to [−limit, limit]; NaN stays NaN.

    limit: number ≥ 0. For loops of your own; a Trainer takes `clip_value`.
    """
    limit = check_real("limit", limit, low=0.0)
    _of(model).transform_grads(clip_value, number=limit)


def _of(model: Any) -> Any:
    if isinstance(model, type) or not hasattr(model, "transform_grads"):
        raise HyperparameterError(f"model is {shown(model)}; expected a Sequential")
    return model
