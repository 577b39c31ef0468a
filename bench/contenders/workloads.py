"""What is trained in the benchmarks: the nets, minibatches and data that all contenders share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

import fastnet as fn

LR = 1e-3  # of Adam, everywhere
SEED = 0


@dataclass(frozen=True)
class Workload:
    """A dense net, its minibatch, and a data set of `batches` minibatches."""

    name: str
    widths: tuple[int, ...]
    batch: int
    activation: str = "relu"
    classes: bool = True  # labels and cross-entropy, or else numbers and mean squared error
    batchnorm: bool = False  # after each hidden linear layer
    dropout: float = 0.0  # after each hidden activation
    batches: int = 64

    @property
    def title(self) -> str:
        """The net and its minibatch in words."""
        extras = [
            text
            for used, text in (
                (self.batchnorm, "batchnorm"),
                (self.dropout, f"dropout {self.dropout}"),
            )
            if used
        ]
        parts = [f"{self.name} {'-'.join(map(str, self.widths))}", *extras, f"batch {self.batch}"]
        return ", ".join(parts)

    def model(self, backend: str) -> fn.Sequential:
        """The net in fastnet."""
        activation = {"relu": fn.ReLU, "tanh": fn.Tanh}[self.activation]
        layers: list[fn.Layer] = []
        for inputs, outputs in zip(self.widths[:-2], self.widths[1:-1], strict=True):
            layers.append(fn.Linear(inputs, outputs))
            if self.batchnorm:
                layers.append(fn.BatchNorm1d(outputs))
            layers.append(activation())
            if self.dropout:
                layers.append(fn.Dropout(self.dropout))
        layers.append(fn.Linear(self.widths[-2], self.widths[-1]))
        return fn.Sequential(*layers, backend=backend, seed=SEED)

    def loss(self) -> fn.Loss:
        """The loss in fastnet."""
        return fn.CrossEntropyLoss() if self.classes else fn.MSELoss()

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        linear = sum((i + 1) * o for i, o in zip(self.widths[:-1], self.widths[1:], strict=True))
        return linear + 2 * self.batchnorm * sum(self.widths[1:-1])

    @property
    def flops(self) -> int:
        """Of a step's matrix products: forward, gradients of weights, and of all inputs but x."""
        products = [i * o for i, o in zip(self.widths[:-1], self.widths[1:], strict=True)]
        return 2 * self.batch * (3 * sum(products) - products[0])

    def data(self) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
        """Inputs (n, features) float32; targets int64 (n,) or float32 (n, outputs).

        Random, as the time of a step depends on shapes alone. Targets are noisy, so that no net
        fits them and gradients never die out, however many steps a contender takes.
        """
        random = np.random.default_rng(SEED)
        rows, features, outputs = self.batch * self.batches, self.widths[0], self.widths[-1]
        if self.name == "xor":
            bits = np.tile([[0, 0], [0, 1], [1, 0], [1, 1]], (self.batches, 1))
            noise = random.normal(scale=0.1, size=(rows, 1))
            y = (bits[:, :1] ^ bits[:, 1:]) + noise
            return bits.astype(np.float32), y.astype(np.float32)
        x = random.standard_normal((rows, features), np.float32)
        if self.classes:
            return x, random.integers(0, outputs, rows)
        return x, random.standard_normal((rows, outputs), np.float32)

    def order(self) -> NDArray[np.int64]:
        """The rows in the order in which every contender takes them, epoch after epoch."""
        rows = self.batch * self.batches
        return np.random.default_rng(SEED + 1).permutation(rows).astype(np.int64)

    def minibatches(self) -> list[tuple[NDArray[np.float32], NDArray[np.generic]]]:
        """Inputs and targets in the order of an epoch, a minibatch after the other."""
        (x, y), order = self.data(), self.order().reshape(self.batches, self.batch)
        return [(x[rows], y[rows]) for rows in order]

    def without_dropout(self) -> Workload:
        """The same net without dropout, whose draws differ between libraries."""
        return replace(self, dropout=0.0)


_ALL = (
    Workload("xor", (2, 4, 1), 4, activation="tanh", classes=False),
    Workload("housing", (8, 64, 64, 64, 1), 64, classes=False),
    Workload("mnist", (784, 128, 10), 32),
    Workload("deep", (784, 512, 512, 512, 10), 128, batchnorm=True, dropout=0.2, batches=16),
    Workload("wide", (1024, 4096, 4096, 1000), 256, batches=2),
)
WORKLOADS = {workload.name: workload for workload in _ALL}
GPU_BATCHES = {"mnist": (32, 128, 1024), "deep": (32, 128, 1024), "wide": (4096,)}
ON_A_GPU = {
    f"{name}, batch {batch}": replace(WORKLOADS[name], batch=batch)
    for name, batches in GPU_BATCHES.items()
    for batch in batches
}
SLOW = ("wide",)  # left out unless asked for: seconds a step for some
