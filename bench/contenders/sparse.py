"""Fits on a sparse matrix: read as it is, made dense a minibatch at a time, and by scikit-learn."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

import fastnet as fn
from contenders.workloads import LR, SEED
from fastnet.data import sparse

ROWS, COLUMNS, SHARE, HIDDEN, BATCH = 4_096, 20_000, 0.002, 128, 128


@cache
def data() -> tuple[Any, Any]:
    """A matrix in compressed rows, float32, and a class for each row."""
    import scipy.sparse

    random = np.random.default_rng(SEED)
    x = scipy.sparse.random_array(
        (ROWS, COLUMNS), density=SHARE, format="csr", dtype=np.float32, rng=random
    )
    return x, random.integers(0, 2, ROWS)


class SparseFit:
    """Epochs of a net with one hidden layer; dense: every minibatch is made dense."""

    quantum = 1

    def __init__(self, optimizer: fn.Optimizer, *, dense: bool) -> None:
        layers = fn.Linear(COLUMNS, HIDDEN), fn.ReLU(), fn.Linear(HIDDEN, 2)
        model = fn.Sequential(*layers, seed=SEED)
        self.trainer = fn.Trainer(model, fn.CrossEntropyLoss(), optimizer, metrics={}, seed=SEED)
        self._least = 1 << 60 if dense else sparse.DENSE  # elements for which a matrix is sparse

    def run(self, count: int) -> list[float]:
        """So many epochs; the loss of the first one ever."""
        kept, sparse.DENSE = sparse.DENSE, self._least
        try:
            self.trainer.fit(*data(), epochs=count, batch_size=BATCH, verbose=0)
        finally:
            sparse.DENSE = kept
        return [self.trainer.history.records[0]["loss"]]


class SklearnFit:
    """The same by scikit-learn's `partial_fit`, an epoch a call."""

    quantum = 1

    def __init__(self, solver: str) -> None:
        from sklearn.neural_network import MLPClassifier

        self.net = MLPClassifier(
            (HIDDEN,),
            solver=solver,
            alpha=0,
            batch_size=BATCH,
            learning_rate_init=LR,
            momentum=0,
            nesterovs_momentum=False,
            random_state=SEED,
        )

    def run(self, count: int) -> None:
        """So many epochs."""
        x, y = data()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(count):
                self.net.partial_fit(x, y, classes=[0, 1])


def fits(kind: Callable[..., fn.Optimizer], solver: str) -> dict[str, Callable[[], Any]]:
    """Who takes turns; nobody without SciPy."""
    if not importlib.util.find_spec("scipy"):
        return {}
    found: dict[str, Callable[[], Any]] = {
        "fastnet": lambda: SparseFit(kind(lr=LR), dense=False),
        "fastnet, dense": lambda: SparseFit(kind(lr=LR), dense=True),
    }
    if importlib.util.find_spec("sklearn"):
        found["scikit-learn"] = partial(SklearnFit, solver)
    return found


CASES = {
    "an epoch of a sparse matrix, 0.2 %, Adam": partial(fits, fn.Adam, "adam"),
    "an epoch of a sparse matrix, 0.2 %, SGD": partial(fits, fn.SGD, "sgd"),
}
