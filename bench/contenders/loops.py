"""Training loops of one's own, as users of fastnet write them: its public names alone.

A contender's `run(steps)` carries out that many steps, each with the next minibatch, and goes on where
it stopped. Nothing here knows how fastnet is built, so that the same loops run under an earlier commit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastnet as fn
from contenders.workloads import LR, SEED, Workload


class Fastnet:
    """What all ways of training with fastnet share: the model, its loss, Adam, the data."""

    quantum = 1

    def __init__(self, workload: Workload, backend: str = "auto") -> None:
        self.batch, self.order = workload.batch, workload.order()
        self.model = workload.model(backend)
        self.loss = workload.loss()
        self.optimizer = fn.Adam(lr=LR)
        self.x, self.y = workload.data()
        self.taken = 0  # steps so far

    def run(self, steps: int) -> Any:
        """Carry out `steps` steps."""
        raise NotImplementedError


class Loop(Fastnet):
    """A loop over minibatches; a subclass has the step."""

    def __init__(self, workload: Workload, backend: str = "auto") -> None:
        super().__init__(workload, backend)
        self.minibatches = workload.minibatches()

    def step(self, x: Any, y: Any) -> float:
        """One step; returns the loss."""
        raise NotImplementedError

    def run(self, steps: int) -> Any:
        """A step after the other; returns the losses."""
        losses = []
        for _ in range(steps):
            losses.append(self.step(*self.minibatches[self.taken % len(self.minibatches)]))
            self.taken += 1
        return np.array(losses)


class FastnetLoop(Loop):
    """`value_and_grad`, then `optimizer.step`: two native calls a step."""

    def step(self, x: Any, y: Any) -> float:
        """Two calls."""
        value = self.model.value_and_grad(self.loss, x, y)
        self.optimizer.step(self.model)
        return value


class FiveCalls(Loop):
    """`forward`, `loss.forward`, `zero_grad`, `backward(loss.backward())`, `optimizer.step`."""

    def step(self, x: Any, y: Any) -> float:
        """As a loop of PyTorch's is written."""
        value = self.loss.forward(self.model.forward(x), y)
        self.model.zero_grad()
        self.model.backward(self.loss.backward())
        self.optimizer.step(self.model)
        return float(value)


class TrainOnBatch(Loop):
    """`trainer.train_on_batch`: one native call a step."""

    def __init__(self, workload: Workload, backend: str = "auto") -> None:
        super().__init__(workload, backend)
        self.trainer = fn.Trainer(self.model, self.loss, self.optimizer, seed=SEED)

    def step(self, x: Any, y: Any) -> float:
        """One call."""
        return self.trainer.train_on_batch(x, y)


LOOPS: dict[str, Callable[..., Loop]] = {
    "fastnet train_on_batch": TrainOnBatch,
    "fastnet value_and_grad": FastnetLoop,
    "fastnet five calls": FiveCalls,
}
