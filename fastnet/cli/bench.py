"""`fastnet bench`: how fast this machine trains and predicts with a few nets, in ten to twenty seconds."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

import fastnet as fn
from fastnet.errors import BackendUnavailable
from fastnet.terminal import show

SECONDS = 0.15  # that a measurement takes, at least
REPEATS = 5  # measurements, of which the median counts
ROWS = 1_000  # of a prediction of many


@dataclass(frozen=True)
class Case:
    """A net, and how it is trained."""

    name: str
    widths: tuple[int, ...]
    classes: bool
    rows: int
    batch: int

    def model(self, backend: str) -> fn.Sequential:
        """A new net with ReLU between its layers."""
        layers: list[fn.Layer] = []
        for before, after in zip(self.widths, self.widths[1:], strict=False):
            layers += [fn.Linear(before, after), fn.ReLU()]
        return fn.Sequential(*layers[:-1], backend=backend, seed=0)

    def data(self) -> tuple[Any, Any]:
        """Rows of random numbers, and targets."""
        rng = np.random.default_rng(0)
        X = rng.normal(size=(self.rows, self.widths[0])).astype(np.float32)
        if self.classes:
            return X, rng.integers(0, self.widths[-1], self.rows)
        return X, rng.normal(size=(self.rows, self.widths[-1])).astype(np.float32)

    def flops(self) -> int:
        """Those of the products of a step: forward, weights' gradients, and but for the first inputs'."""
        products = [a * b for a, b in zip(self.widths, self.widths[1:], strict=False)]
        return 2 * self.batch * (3 * sum(products) - products[0])


CASES = (
    Case("xor 2-4-1", (2, 4, 1), False, 4, 4),
    Case("housing 8-64-64-64-1", (8, 64, 64, 64, 1), False, 4_096, 64),
    Case("mnist 784-128-10", (784, 128, 10), True, 2_048, 32),
    Case("wide 256-512-512-10", (256, 512, 512, 10), True, 2_048, 128),
)
HEAD = ("net", "batch", "µs a step", "GFLOP/s", "µs a row", f"µs {ROWS:,} rows")


def run(options: argparse.Namespace) -> None:
    """Print a table."""
    if options.threads is not None:
        fn.set_num_threads(options.threads)
    if (found := fn.backends().get(options.backend)) is not None and found.reason:
        raise BackendUnavailable(f"backend {options.backend!r} is not available: {found.reason}")
    rows = [HEAD]
    name = CASES[0].model(options.backend).backend
    show(
        f"backend {name}, {fn.get_num_threads()} threads, float32, Adam; medians of {REPEATS} measurements"
    )
    for case in CASES:
        step, one, many = measured(case, options.backend)
        rate = case.flops() / step / 1e3
        rows.append(
            (case.name, str(case.batch), f"{step:.3g}", f"{rate:.3g}", f"{one:.3g}", f"{many:.3g}")
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)]
        show("  ".join([f"{row[0]:<{widths[0]}}", *cells[1:]]))


def measured(case: Case, backend: str) -> tuple[float, float, float]:
    """µs of a training step, of a prediction of one row, and of one of many rows."""
    X, y = case.data()
    model = case.model(backend)
    loss = fn.CrossEntropyLoss() if case.classes else fn.MSELoss()
    trainer = fn.Trainer(model, loss, fn.Adam(1e-4), metrics=[], seed=0)
    steps = -(-case.rows // case.batch)

    def train(count: int) -> None:
        trainer.fit(X, y, epochs=count, batch_size=case.batch, verbose=0)

    step = _microseconds(train) / steps
    one, many = X[:1], np.resize(X, (ROWS, X.shape[1]))
    out, outs = model.predict(one), model.predict(many)

    def predict(x: Any, into: Any) -> Callable[[int], None]:
        def some(count: int) -> None:
            for _ in range(count):
                model.predict(x, out=into)

        return some

    return step, _microseconds(predict(one, out)), _microseconds(predict(many, outs))


def _microseconds(run: Callable[[int], None]) -> float:
    """µs of one of the things that `run` does so many times."""
    count = 1
    while True:  # which warms up, too
        begun = time.perf_counter()
        run(count)
        passed = time.perf_counter() - begun
        if passed >= SECONDS:
            break
        count = max(2 * count, int(1.2 * count * SECONDS / max(passed, 1e-6)))
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        run(count)
        times.append((time.perf_counter() - begun) / count)
    return median(times) * 1e6
