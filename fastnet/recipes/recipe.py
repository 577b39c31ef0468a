"""What recipes of nets with tuned defaults return, and the tasks that they know."""

from __future__ import annotations

from typing import NamedTuple

from fastnet.losses.base import Loss
from fastnet.model import Sequential
from fastnet.optim import Optimizer

TASKS = ("classification", "regression")


class Recipe(NamedTuple):
    """What a trainer needs: `Trainer(*recipe)`."""

    model: Sequential
    loss: Loss
    optimizer: Optimizer
