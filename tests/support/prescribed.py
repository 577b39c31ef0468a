"""Optimizers driven by prescribed gradients, which a net would not give twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet.op import Array


def set_gradients(model: Any, gradients: Mapping[str, Any]) -> None:
    """Make these, by the names of `named_parameters`, what the next step works with."""
    for name, p in model._named().items():
        if p.trainable:
            p.shown(p.grad)[...] = gradients[name]
    model.touch()  # a backend with memory of its own would not see it


def draw(model: Any, steps: int, seed: int = 0, *, zeros: bool = True) -> list[dict[str, Array]]:
    """Gradients for so many steps: normal numbers, a few huge, zero every other step, or always.

    With coupled decay, what is always zero is not prescribed: it is the parameter, which a rule that
    divides by its root makes chaotic. So it can be left out.
    """
    random = np.random.default_rng(seed)
    drawn = []
    for step in range(steps):
        gradients = {}
        for name, value in model.named_parameters().items():
            g = gradients[name] = random.normal(size=value.shape)
            g.flat[0] *= not zeros
            g.flat[1 % g.size] *= 1e6
            g.flat[2 % g.size] *= step % 2
        drawn.append(gradients)
    return drawn
