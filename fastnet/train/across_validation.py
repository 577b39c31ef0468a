"""The validation of a fit on several processes: each evaluates its share of the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.data.dataset import Dataset
from fastnet.data.minibatches import batch_offsets
from fastnet.data.terms import UNKNOWN
from fastnet.distributed import Group
from fastnet.train import saved
from fastnet.train.ready import Waiting
from fastnet.train.scores import evaluation_steps, measure
from fastnet.train.shares import PARTS, own_parts
from fastnet.train.validating import with_decisions


class AcrossValidation:
    """The rows of validation data that a rank evaluates, and the scores of all rows.

    The ranks exchange the losses of single rows, and their decisions where these tell all metrics, else
    their outputs. So each has the numbers that one process would have, and scores them as one would.
    deterministic: rows are cut as those of minibatches are, so that native calls have the same rows at any
    number of ranks.
    """

    def __init__(self, trainer: Any, data: Dataset, group: Group, *, deterministic: bool) -> None:
        self._trainer, self._group, self._data = trainer, group, data
        model = trainer.model
        self._rows = model.rows_at_once("the validation data", data.rows, None)
        parts = PARTS if deterministic else group.size
        bounds = np.arange(parts + 1) * data.rows // parts
        own = own_parts(parts, group.rank, group.size)
        offsets = [bounds[own.start : own.start + 1]]
        for part in own:
            low, high = bounds[part], bounds[part + 1]
            offsets.append(low + batch_offsets(high - low, self._rows)[1:])
        self._offsets = np.concatenate(offsets)
        self._row, self._dtype = model.output_shape(data.row_shape), model.dtype

    def evaluating(self, pause: Callable[[], None]) -> Waiting[dict[str, float]]:
        """The scores of the model as it is, the same on all ranks; see `scores.evaluating`."""
        trainer, group, data, rows = self._trainer, self._group, self._data, self._data.rows
        metrics, loss = trainer.metrics, trainer.loss
        both = with_decisions(metrics, data, self._row, self._dtype)
        if both is not None:
            data = both[0]
        executor = trainer.model.evaluator(data, self._rows, loss, outputs=both is None)
        numbers = np.zeros((1 if both is None or not metrics else 2, rows))
        output = np.zeros((rows, *self._row), executor.plan.dtype) if both is None else None
        decisions = numbers[1] if len(numbers) > 1 else None
        found = output, numbers[0], decisions
        yield from evaluation_steps(executor, data, self._offsets, found, None, pause)
        group.meet()
        numbers = group.joined(numbers)
        scores = {"loss": loss.of_rows(numbers[0], data.y, data.w)}
        if output is not None:
            return {**scores, **measure(metrics, data.y, group.joined(output))}
        if metrics and both is not None:
            shares = both[1].shares(numbers[1:])
            scores |= {name: shares[name][0] for name in metrics}
        return scores


def identity(data: Dataset | None) -> list[float]:
    """Numbers that tell validation data from others."""
    if data is None:
        return [-1.0, 0.0]
    digest = hashlib.sha256(repr(saved.fingerprint(data, UNKNOWN)).encode()).digest()
    return [float(data.rows), float(int.from_bytes(digest[:6], "little"))]
