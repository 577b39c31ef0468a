"""The kernels, one family of ops a file, each with the function that launches it."""

from fastnet.backends.cuda.kernels import (
    batchnorm,
    clipping,
    dropout,
    formulas,
    labels,
    linear,
    losses,
    prelu,
    softmax,
    sums,
)
from fastnet.backends.cuda.kernels.registry import LAUNCHERS

__all__ = [
    "LAUNCHERS",
    "batchnorm",
    "clipping",
    "dropout",
    "formulas",
    "labels",
    "linear",
    "losses",
    "prelu",
    "softmax",
    "sums",
]
