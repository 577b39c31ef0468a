"""Whether a model can learn a few rows by heart."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.check.neutral import loss_of, perfect
from fastnet.check.report import Report, checked, rows_of, settle, spread
from fastnet.errors import (
    DivergenceError,
    check_int,
    check_kind,
    check_real,
)
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.optim import Adam, Optimizer
from fastnet.train import Trainer

ROWS, STEPS = 16, 1000  # by default
LR = 0.01  # of the default optimizer


@dataclass(frozen=True, eq=False, repr=False)
class OverfitReport(Report):
    """The result of `fn.check.overfit`.

    losses: the loss of each step, float64. first, last: the first one, and that after the last step.
    least: the lowest possible loss of these rows. tolerance: as given. rows: how many there were.
    hints: what may be wrong.
    """

    losses: Array
    last: float
    least: float
    tolerance: float
    rows: int
    hints: list[str]

    @property
    def first(self) -> float:
        """The loss before the first step."""
        return float(self.losses[0]) if len(self.losses) else math.nan

    @property
    def ok(self) -> bool:  # type: ignore[override]
        """Whether the distance to the lowest possible loss has become small."""
        return self.last - self.least <= self.tolerance * (self.first - self.least)

    def text(self) -> str:
        """The losses, and what may be wrong."""
        word = "ok" if self.ok else "NOT LEARNED"
        goal = self.least + self.tolerance * (self.first - self.least)
        lines = [
            f"overfit: {word}, {self.rows} rows, loss {self.first:.4g} -> {self.last:.3g} in "
            f"{len(self.losses)} steps; expected at most {goal:.3g}"
        ]
        if abs(self.least) > 1e-9:
            lines.append(f"the lowest possible loss of these rows is {self.least:.4g}")
        return "\n".join([*lines, *self.hints])


def overfit(
    model: Sequential,
    loss: Any,
    X: Any,
    y: Any,
    optimizer: Optimizer | None = None,
    *,
    rows: int = ROWS,
    steps: int = STEPS,
    tolerance: float = 0.01,
    raise_on_failure: bool = False,
) -> OverfitReport:
    """Train a copy of a model on a few rows, whose loss should fall to about its lowest possible value.

    model: a Sequential, which stays as it is. Dropout drops nothing in the copy.
    loss: a loss or a function, as `Trainer` takes it.
    X, y: inputs and targets, as `fit` takes them.
    optimizer: what trains the copy, with a state of its own (default None: Adam(0.01)).
    rows: integer ≥ 1 (default 16). How many of the rows, at equal distances.
    steps: integer ≥ 1 (default 1000). Each has all these rows.
    tolerance: number in [0, 1] (default 0.01). last − least ≤ tolerance·(first − least) is well, where
        first and last are the losses before and after, and least is the lowest possible one: that of the
        targets themselves for soft labels, label smoothing and counts, else 0.
    raise_on_failure: bool (default False). True raises CheckFailed where the report is not ok.

    A net that cannot do this will not learn more rows either: the loss, the labels or the gradients may be
    wrong, the rate too low or too high, or the net too small. Divergence is a report that is not ok.
    Source: A. Karpathy, "A recipe for training neural networks", 2019.
    """
    found, data, flag = checked(model, loss, X, y, raise_on_failure)
    if optimizer is not None:
        check_kind("optimizer", optimizer, Optimizer)
    index = spread(data.rows, check_int("rows", rows, low=1))
    steps = check_int("steps", steps, low=1)
    tolerance = check_real("tolerance", tolerance, low=0.0, high=1.0)
    x, target = rows_of(data, index)
    twin = copy.deepcopy(model)
    settle(twin, len(x))
    rule = Adam(LR) if optimizer is None else optimizer
    trainer = Trainer(twin, found, rule, metrics={}, seed=0)
    hints = _contradictions(x, target)
    try:
        trainer.fit(x, target, steps, len(x), shuffle=False, respect_modes=True, verbose=0)
        last = trainer.train_on_batch(x, target, respect_modes=True)
    except DivergenceError as error:
        last = math.inf
        hints.append(f"it diverged: {error}")
    losses = np.array([record["loss"] for record in trainer.history.records])
    best = perfect(found, target, twin.output_shape(tuple(x.shape[1:])))
    least = 0.0 if best is None else loss_of(found, best, target)
    report = OverfitReport(losses, last, least, tolerance, len(x), hints)
    if not report.ok and math.isfinite(last):
        tail = losses[-max(1, len(losses) // 10) :]
        falling = len(losses) > 10 and last - least < 0.99 * (tail[0] - least)
        hints.append(
            "the loss still falls: more steps or a higher rate may do"
            if falling
            else "the loss has stopped falling: look at the labels, the rate and the size of the net"
        )
    return report.told(flag)


def _contradictions(x: Array, target: Array) -> list[str]:
    """A hint where rows with equal inputs have different targets."""
    seen: dict[bytes, int] = {}
    for i, row in enumerate(x):
        j = seen.setdefault(np.ascontiguousarray(row).tobytes(), i)
        if not np.array_equal(target[i], target[j]):
            return [f"rows {j} and {i} of these have equal inputs and different targets"]
    return []
