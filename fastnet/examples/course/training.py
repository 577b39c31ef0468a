"""What several experiments do: rows of layers, fits of many nets at once, accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples.course.experiment import Array, Data


def accuracies(models: Sequence[fn.Sequential], X: Array, y: Array) -> Array:
    """The share of rows, in percent, whose largest output is at their class; for each model."""
    return np.array([100 * float((m.predict(X).argmax(axis=1) == y).mean()) for m in models])


def tested(models: Sequence[fn.Sequential], data: Data) -> Array:
    """These of the test rows."""
    return accuracies(models, data.X_test, data.y_test)


def fitted(
    models: list[fn.Sequential],
    X: Array,
    y: Array,
    optimizers: Any,
    seed: int,
    loss: Any = None,
    **options: Any,
) -> list[Any]:
    """The histories of nets that are trained at once, all with the same order of rows."""
    return fn.fit_many(
        models,
        X,
        y,
        losses=loss or fn.CrossEntropyLoss(),
        optimizers=optimizers,
        seeds=[seed] * len(models),
        **options,
    )


def one_hot(y: Array, classes: int = 10) -> Array:
    """Targets of zeros and ones."""
    return np.asarray(np.eye(classes, dtype=np.float32)[y])
