"""The loss before training against that of a net that knows nothing."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.check.neutral import loss_of, uninformed
from fastnet.check.report import Report, checked, rows_of, settle, spread
from fastnet.errors import check_int, check_real
from fastnet.model import Sequential

ROWS = 4096  # rows, by default


@dataclass(frozen=True, eq=False, repr=False)
class InitialLossReport(Report):
    """The result of `fn.check.initial_loss`.

    loss: of the model. expected: that of a net that knows nothing of its inputs, or None where fastnet does
        not know it. outputs: which outputs have the expected loss. tolerance: as given.
    hints: what may be wrong.
    """

    loss: float
    expected: float | None
    outputs: str
    tolerance: float
    hints: list[str]

    @property
    def ok(self) -> bool:  # type: ignore[override]
        """Whether the loss is finite and, where something is expected, near it."""
        if self.expected is None:
            return math.isfinite(self.loss)
        return abs(self.loss - self.expected) <= self.tolerance * abs(self.expected)

    def text(self) -> str:
        """The two losses, and what may be wrong."""
        word = "ok" if self.ok else "UNEXPECTED"
        line = f"initial loss: {word}, {self.loss:.4g}"
        if self.expected is None:
            line += "; nothing is expected of this loss but that it is finite"
        else:
            line += f"; expected {self.expected:.4g}, the loss {self.outputs}, within {self.tolerance:.0%}"
        return "\n".join([line, *self.hints])


def initial_loss(
    model: Sequential,
    loss: Any,
    X: Any,
    y: Any,
    *,
    rows: int = ROWS,
    tolerance: float = 0.5,
    raise_on_failure: bool = False,
) -> InitialLossReport:
    """Compare the loss of a model that has not trained with what it should be.

    model: a Sequential as it is before training, which stays as it is. The loss is that of a step of
        training: batchnorm has the statistics of these rows. Dropout drops nothing.
    loss: a loss or a function, as `Trainer` takes it.
    X, y: inputs and targets, as `fit` takes them. rows: integer ≥ 1 (default 4096). How many of their rows
        are used at most, at equal distances.
    tolerance: number ≥ 0 (default 0.5). |loss − expected| ≤ tolerance·expected is well.
    raise_on_failure: bool (default False). True raises CheckFailed where the report is not ok.

    Expected is, with the loss's own options, ln C for CrossEntropyLoss and NLLLoss of C classes, ln 2 for
    BCEWithLogitsLoss and BCELoss, the variance of the targets for MSELoss, half of it for HalfMSELoss, the
    mean distance from the median for L1Loss, the loss of the targets' quantile for PinballLoss, and the
    loss of the targets' mean for the other losses of reals and counts. Of a function, RBFLoss and
    GaussianNLLLoss nothing is expected. A loss far above: the outputs are too large at the start, or the
    targets have another scale. Far below: the model has trained already, or its inputs contain the target.
    Source: A. Karpathy, "A recipe for training neural networks", 2019.
    """
    found, data, flag = checked(model, loss, X, y, raise_on_failure)
    index = spread(data.rows, check_int("rows", rows, low=1))
    tolerance = check_real("tolerance", tolerance, low=0.0)
    x, target = rows_of(data, index)
    twin = copy.deepcopy(model)
    settle(twin, len(x))
    row = twin.output_shape(tuple(x.shape[1:]))
    output = twin.on_host("output", twin.forward(x)).astype(np.float64)
    value = loss_of(found, output, target)
    known = uninformed(found, target, row)
    expected = None if known is None else loss_of(found, known[0], target)
    report = InitialLossReport(value, expected, known[1] if known else "", tolerance, [])
    if not report.ok:
        report.hints.extend(_hints(report, output, target))
    return report.told(flag)


def _hints(report: InitialLossReport, output: Any, target: Any) -> list[str]:
    if not math.isfinite(report.loss):
        return ["the loss is not finite: look at the range of X, and at the first layers' outputs"]
    found = [f"outputs: mean {output.mean():.3g}, standard deviation {output.std():.3g}"]
    if target.dtype.kind == "f":
        found.append(f"targets: mean {target.mean():.3g}, standard deviation {target.std():.3g}")
    if report.expected == 0:
        return [*found, "all targets are equal"]
    if report.expected is not None and report.loss > report.expected:
        what = "a last layer with smaller weights"
        if target.dtype.kind == "f":
            what += ", or targets of mean 0 and standard deviation 1,"
        found.append(f"the loss is high: {what} may help")
    else:
        found.append(
            "the loss is low: has the model trained already? do inputs contain the target?"
        )
    return found
