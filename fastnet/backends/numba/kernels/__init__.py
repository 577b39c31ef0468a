"""The kernels: each file has one family of ops, with names and arguments of the reference kernels."""

from fastnet.backends.numba.kernels import (
    batchnorm,
    clipping,
    cross_entropy,
    decision,
    dropout,
    formulas,
    gaussian,
    images,
    linear,
    losses,
    margin,
    muon,
    prelu,
    preprocess,
    softmax,
    sums,
)
from fastnet.backends.numba.kernels.registry import FUNCTIONS

__all__ = [
    "FUNCTIONS",
    "batchnorm",
    "clipping",
    "cross_entropy",
    "decision",
    "dropout",
    "formulas",
    "gaussian",
    "images",
    "linear",
    "losses",
    "margin",
    "muon",
    "prelu",
    "preprocess",
    "softmax",
    "sums",
]
