"""Epochs with an activation by fn.elementwise, and with the built-in one of the same arithmetic."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import fastnet as fn
from contenders.workloads import LR, SEED
from fastnet.formulas import expm1, minimum, sigmoid, where

SIZES = {"4×16": (4, 16, 1000), "64×256": (64, 256, 20)}  # rows, columns, minibatches


@fn.elementwise
def silu(x: Any) -> Any:
    """x·σ(x)."""
    return x * sigmoid(x)


@fn.elementwise
def elu(x: Any, alpha: float = 1.0) -> Any:
    """x where x > 0, else alpha·(eˣ − 1)."""
    return where(x > 0, x, alpha * expm1(minimum(x, 0)))


PAIRS = {"SiLU": (silu, fn.SiLU), "ELU": (elu, fn.ELU)}


class OwnFit:
    """Epochs of a net with an activation between two linear layers."""

    quantum = 1

    def __init__(self, kind: Callable[[], fn.Layer], size: str) -> None:
        self.rows, width, count = SIZES[size]
        layers = fn.Linear(width, width), kind(), fn.Linear(width, width)
        model = fn.Sequential(*layers, seed=SEED)
        self.trainer = fn.Trainer(model, fn.MSELoss(), fn.Adam(lr=LR), seed=SEED)
        random = np.random.default_rng(SEED)
        self.x = random.standard_normal((self.rows * count, width)).astype(np.float32)

    def run(self, count: int) -> None:
        """So many epochs."""
        self.trainer.fit(self.x, self.x, epochs=count, batch_size=self.rows, verbose=0)


def fits(name: str, size: str) -> dict[str, Callable[[], Any]]:
    """Who takes turns; nobody without Numba, which compiles the function."""
    if not importlib.util.find_spec("numba"):
        return {}
    own, built_in = PAIRS[name]
    return {
        "fastnet": partial(OwnFit, own, size),
        "the built-in one": partial(OwnFit, built_in, size),
    }


CASES = {
    f"an epoch with {name} by fn.elementwise, {size}": partial(fits, name, size)
    for name in PAIRS
    for size in SIZES
}
