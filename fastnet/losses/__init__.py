"""Losses: fused ops of output and target; each file has one family."""

from fastnet.losses.base import Loss
from fastnet.losses.binary import BCELoss, BCEWithLogitsLoss, KLDivLoss
from fastnet.losses.cross_entropy import CrossEntropyLoss, NLLLoss
from fastnet.losses.function import FunctionLoss
from fastnet.losses.gaussian import GaussianNLLLoss
from fastnet.losses.margin import MultiMarginLoss, OneVsRestHingeLoss
from fastnet.losses.metrics import accuracy, binary_accuracy
from fastnet.losses.poisson import PoissonNLLLoss
from fastnet.losses.rbf import RBFLoss
from fastnet.losses.regression import (
    HalfMSELoss,
    HuberLoss,
    L1Loss,
    LogCoshLoss,
    MSELoss,
    SmoothL1Loss,
)

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "FunctionLoss",
    "GaussianNLLLoss",
    "HalfMSELoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "LogCoshLoss",
    "Loss",
    "MSELoss",
    "MultiMarginLoss",
    "NLLLoss",
    "OneVsRestHingeLoss",
    "PoissonNLLLoss",
    "RBFLoss",
    "SmoothL1Loss",
    "accuracy",
    "binary_accuracy",
]
