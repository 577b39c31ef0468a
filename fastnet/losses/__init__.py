"""Losses: fused ops of output and target; each file has one family."""

from typing import TYPE_CHECKING

from fastnet.late import late_names

if TYPE_CHECKING:
    from fastnet.losses.base import Loss
    from fastnet.losses.binary import BCELoss, BCEWithLogitsLoss, KLDivLoss
    from fastnet.losses.cross_entropy import CrossEntropyLoss, NLLLoss
    from fastnet.losses.ensemble import EnsembleLoss
    from fastnet.losses.function import FunctionLoss
    from fastnet.losses.gaussian import GaussianNLLLoss
    from fastnet.losses.hierarchical import HierarchicalSoftmaxLoss
    from fastnet.losses.margin import MultiMarginLoss, OneVsRestHingeLoss
    from fastnet.losses.metrics import accuracy, binary_accuracy
    from fastnet.losses.named_metrics import (
        AUC,
        F1,
        MAE,
        R2,
        RMSE,
        BalancedAccuracy,
        LogLoss,
        TopK,
    )
    from fastnet.losses.poisson import PoissonNLLLoss
    from fastnet.losses.rbf import RBFLoss
    from fastnet.losses.regression import (
        HalfMSELoss,
        HuberLoss,
        L1Loss,
        LogCoshLoss,
        MSELoss,
        PinballLoss,
        SmoothL1Loss,
    )

__all__ = [
    "AUC",
    "F1",
    "MAE",
    "R2",
    "RMSE",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BalancedAccuracy",
    "CrossEntropyLoss",
    "EnsembleLoss",
    "FunctionLoss",
    "GaussianNLLLoss",
    "HalfMSELoss",
    "HierarchicalSoftmaxLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "LogCoshLoss",
    "LogLoss",
    "Loss",
    "MSELoss",
    "MultiMarginLoss",
    "NLLLoss",
    "OneVsRestHingeLoss",
    "PinballLoss",
    "PoissonNLLLoss",
    "RBFLoss",
    "SmoothL1Loss",
    "TopK",
    "accuracy",
    "binary_accuracy",
]

__getattr__, __dir__ = late_names(__name__, __all__)
