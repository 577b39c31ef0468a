"""Checks of a net before it trains for long: its gradients, its first loss, and whether it can overfit.

Each works on a copy, so that the model stays as it is, and returns a report to read. A report is true where
all is well; with `raise_on_failure=True` a check raises CheckFailed where it is not.
"""

from fastnet.check.gradients import GradientReport, gradients
from fastnet.check.initial import InitialLossReport, initial_loss
from fastnet.check.memorizing import OverfitReport, overfit

__all__ = [
    "GradientReport",
    "InitialLossReport",
    "OverfitReport",
    "gradients",
    "initial_loss",
    "overfit",
]
