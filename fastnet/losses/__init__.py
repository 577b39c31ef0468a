"""Losses: fused ops of output and target, one family a file."""

from fastnet.losses.base import Loss, accuracy
from fastnet.losses.cross_entropy import CrossEntropyLoss, NLLLoss
from fastnet.losses.regression import (
    HalfMSELoss,
    HuberLoss,
    L1Loss,
    LogCoshLoss,
    MSELoss,
    SmoothL1Loss,
)

__all__ = [
    "CrossEntropyLoss",
    "HalfMSELoss",
    "HuberLoss",
    "L1Loss",
    "LogCoshLoss",
    "Loss",
    "MSELoss",
    "NLLLoss",
    "SmoothL1Loss",
    "accuracy",
]
