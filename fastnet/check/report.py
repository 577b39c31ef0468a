"""What the checks share: reports, and the rows on which they work."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from fastnet.data.dataset import Dataset
from fastnet.errors import CheckFailed, check_flag, check_kind
from fastnet.losses.base import Loss
from fastnet.losses.function import as_loss
from fastnet.model import Sequential
from fastnet.op import Array


class Report:
    """The result of a check: true where all is well, and a text to read."""

    ok: bool

    def text(self) -> str:
        """The report as lines of text."""
        raise NotImplementedError

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return self.text()

    def told(self, raise_on_failure: bool) -> Self:
        """The report itself, or CheckFailed where it is to be raised."""
        if raise_on_failure and not self.ok:
            raise CheckFailed(self.text(), report=self)
        return self


def checked(
    model: Any, loss: Any, X: Any, y: Any, raise_on_failure: Any
) -> tuple[Loss, Dataset, bool]:
    """The loss, the checked data and the flag, or an error of ours."""
    check_kind("model", model, Sequential)
    found: Loss = as_loss(loss)
    flag = check_flag("raise_on_failure", raise_on_failure)
    x = model.on_host("X", model.features("X", X))
    return found, model.data(found, x, y, "X", "y"), flag


def rows_of(data: Dataset, index: Array) -> tuple[Array, Array]:
    """Inputs and targets of these rows, as arrays."""
    x, y, _ = data.take(index)
    return np.asarray(x), y


def settle(model: Sequential, rows: int) -> None:
    """Let layers with statistics train, if there are rows enough, and no others: dropout drops nothing."""
    for _, layer in model.layers:
        statistics = any(p.buffer for p in layer._parameters.values())
        layer.train(statistics and rows >= layer.min_training_rows)


def spread(rows: int, count: int) -> Array:
    """At most `count` of so many rows, at equal distances."""
    return np.linspace(0, rows - 1, min(rows, count)).astype(np.int64)
