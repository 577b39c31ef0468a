"""Losses: fused ops of output and target, one family a file."""

from fastnet.losses.base import Loss, accuracy
from fastnet.losses.mse import MSELoss
from fastnet.losses.softmax_nll import CrossEntropyLoss

__all__ = ["CrossEntropyLoss", "Loss", "MSELoss", "accuracy"]
