"""Whole fits as users of fastnet write them: what is fitted, and fastnet's `Trainer.fit`.

A contender's `run(epochs)` trains so many epochs, a multiple of its `quantum`, and returns their mean
losses. Here too fastnet's public names must do, so that the same fits run under an earlier commit.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import fastnet as fn
from contenders.workloads import LR, SEED, WORKLOADS, Workload
from measure.timing import aside


def _iris() -> tuple[Any, Any]:
    """150 flowers: four lengths, standardised, and three species."""
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32), y.astype(np.int64)


@dataclass(frozen=True)
class Fit:
    """A net, its data, and for how many epochs it is fitted."""

    workload: Workload
    epochs: int
    source: Callable[[], tuple[Any, Any]] | None = None  # of rows that are not random
    needs: str = "numpy"  # the module that has them
    peers: bool = True  # whether others fit it too

    def data(self) -> tuple[Any, Any]:
        """Inputs and targets, as `Workload.data` has them."""
        return self.source() if self.source else self.workload.data()

    @property
    def title(self) -> str:
        """Net, rows, minibatch, epochs in words."""
        rows = len(self.data()[0])
        net = self.workload.title.replace(", batch ", f", {rows:,} rows, batch ")
        return f"{net}, {self.epochs:,} epochs"

    def shortened(self, epochs: int) -> Fit:
        """The same for at most so many epochs."""
        return replace(self, epochs=min(self.epochs, epochs))


_ALL = {
    "xor": Fit(replace(WORKLOADS["xor"], batches=1), 2000),
    "iris": Fit(Workload("iris", (4, 16, 3), 32), 200, _iris, "sklearn"),
    "digits": Fit(Workload("digits", (64, 64, 10), 32), 50, lambda: fn.datasets.digits()[0]),
    "housing": Fit(WORKLOADS["housing"], 20),
    "mnist": Fit(WORKLOADS["mnist"], 20),
    "deep": Fit(replace(WORKLOADS["deep"], batches=64), 20, peers=False),
}
FITS = {name: fit for name, fit in _ALL.items() if importlib.util.find_spec(fit.needs)}
ONE_BY_ONE = Fit(
    replace(WORKLOADS["housing"], batch=1, batches=20_000), 1
)  # an epoch of single rows


class FastnetFit:
    """`Trainer.fit`, silent, each time from the start; making a model anew is not counted.

    batch_size, optimizer: others than the workload's own and Adam.
    """

    def __init__(
        self,
        fit: Fit,
        *,
        shuffle: bool = True,
        callbacks: Sequence[fn.Callback] = (),
        optimizer: fn.Optimizer | None = None,
    ) -> None:
        self.quantum, self.data = fit.epochs, fit.data()
        workload = fit.workload
        self.options: dict[str, Any] = {"batch_size": workload.batch, "shuffle": shuffle}
        self.options |= {"callbacks": callbacks, "verbose": 0}
        self.trainer = fn.Trainer(
            workload.model("auto"), workload.loss(), optimizer or fn.Adam(lr=LR), seed=SEED
        )

    def run(self, epochs: int) -> list[float]:
        """One fit after the other."""
        for _ in range(epochs // self.quantum):
            with aside():
                self.trainer.reset()
            self.trainer.fit(*self.data, epochs=self.quantum, **self.options)
        return [record["loss"] for record in self.trainer.history.records]
