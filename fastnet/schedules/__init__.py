"""Schedules: learning rates, momenta and decays as pure functions of the optimizer's step.

A schedule is called with a step (from 0) or an array of steps. Every optimizer takes one in place of a
number: `fn.SGD(lr=fn.schedules.CosineAnnealingLR(0.1, 1000), momentum=0.9)`. Names and arguments are
PyTorch's, with the rate in place of the optimizer. Steps are the optimizer's; `s.per_epoch(n)` counts
epochs of n steps. Schedules can be multiplied, run one after the other (SequentialLR) and begin with a
warm-up (WarmupLR).
"""

from typing import TYPE_CHECKING

from fastnet.late import late_names

if TYPE_CHECKING:
    from fastnet.schedules.base import PerEpoch, ProductLR, Schedule
    from fastnet.schedules.cycles import (
        CosineAnnealingLR,
        CosineAnnealingWarmRestarts,
        CosLogLR,
        CyclicLR,
        FlatCosLR,
        OneCycleLR,
        OneCycleMomentum,
    )
    from fastnet.schedules.decays import (
        ConstantLR,
        ExponentialLR,
        InverseSqrtLR,
        InverseTimeLR,
        LambdaLR,
        LinearLR,
        MultiStepLR,
        PolynomialLR,
        StepLR,
    )
    from fastnet.schedules.sequences import SequentialLR, WarmupLR

__all__ = [
    "ConstantLR",
    "CosLogLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "FlatCosLR",
    "InverseSqrtLR",
    "InverseTimeLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "OneCycleMomentum",
    "PerEpoch",
    "PolynomialLR",
    "ProductLR",
    "Schedule",
    "SequentialLR",
    "StepLR",
    "WarmupLR",
]

__getattr__, __dir__ = late_names(__name__, __all__)
