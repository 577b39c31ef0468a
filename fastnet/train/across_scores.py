"""The scores of an epoch on several processes: each measures its rows, and all get the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet.data.dataset import Dataset
from fastnet.distributed import Group
from fastnet.losses.metrics import Metric
from fastnet.op import Array
from fastnet.plan.compiler import Plan
from fastnet.train.scores import EpochScores, rows_of
from fastnet.train.shares import Shares


class AcrossScores:
    """As `EpochScores`, of minibatches whose rows several ranks share.

    Accuracies are those of all rows. Other metrics are means over the ranks, each of its rows, weighted by
    the number of these.
    """

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        data: Dataset,
        shares: Shares,
        plan: Plan,
        total: bool,
        group: Group,
        *,
        deterministic: bool = False,
    ) -> None:
        self.group, self.shares, self.total = group, shares, total
        self.deterministic = deterministic
        self._data, self._metrics = data, dict(metrics)
        self._sizes = np.array(shares.sizes, np.float64)
        self.offsets = np.append(0, np.cumsum(shares.sizes, dtype=np.int64))
        self.steps, self.rows = len(shares.sizes), int(self.offsets[-1])
        self._local = EpochScores(metrics, data, shares.offsets(deterministic), plan, total=total)
        self.names, self.metrics = self._local.names, self._local.metrics
        self._losses = np.empty(self.steps)

    def limit(self, step: int) -> int:
        """The step that a chunk beginning with `step` must not pass: any rank's blocks end there."""
        if not self.metrics:
            return self.steps
        return min(self.steps, step + self._least_block() - step % self._least_block())

    def _least_block(self) -> int:
        return self._block_of_all

    def settle(self) -> None:
        """Agree on the blocks whose outputs metrics see: those of the rank that has the smallest."""
        blocks = self.group.gathered(np.array([float(self._local._block)]))
        self._block_of_all = self._local._block = max(1, int(blocks.min()))

    def outputs(self, begin: int, end: int) -> Array | None:
        """The array for the outputs of this rank's rows in steps begin … end − 1, if any are needed."""
        return self._local.outputs(begin, end)

    def decisions(self, begin: int) -> Array | None:
        """The array for the decisions of this rank's rows from step `begin` on, if any are needed."""
        return self._local.decisions(begin)

    def add(self, begin: int, end: int, losses: Array, y: Array, order: Array) -> None:
        """Take the losses of whole minibatches in steps begin … end − 1, and measure complete blocks."""
        self._losses[begin:end] = losses
        if begin == 0:
            self._order = self.shares.index(order, self.offsets, self.deterministic)
        own = np.zeros(end - begin)
        if self._local.rows:
            self._local.add(begin, end, own, y, self._order)

    def mean_loss(self, end: int | None = None) -> float:
        """Loss of the steps before `end` (default: all), mean over samples or sum, in float64."""
        end = self.steps if end is None else end
        if self.total:
            return math.fsum(self._losses[:end])
        return math.fsum(self._losses[:end] * self._sizes[:end]) / float(self.offsets[end])

    def record(self) -> dict[str, float]:
        """The mean loss and the metrics of the epoch, the same on all ranks."""
        sums = np.zeros((2, len(self.names)))
        if self._local.rows and self.names:
            found = self._local.record()
            y = self._data.y[self._order]
            for i, name in enumerate(self.names):
                counted = rows_of(self._metrics[name], y)
                share = found[name] * counted
                exact = name not in self.metrics  # a number of rows
                sums[:, i] = np.rint(share) if exact else share, counted
        self.group.meet()
        if self.names:
            sums = self.group.sums(sums)
        values = (sums[0] / np.maximum(sums[1], 1)).tolist()
        return {"loss": self.mean_loss(), **dict(zip(self.names, values, strict=True))}

    def state_dict(self, done: int) -> dict[str, Any]:
        """Nothing: an epoch begins anew, as the number of ranks may be another."""
        return {}

    def load_state_dict(self, done: int, state: Mapping[str, Any]) -> None:
        """Nothing to load."""
