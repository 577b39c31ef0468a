"""The kernels: each file has one family of ops, with the functions that launch them."""

from fastnet.backends.cuda.kernels import (
    batchnorm,
    clipping,
    decision,
    dropout,
    formulas,
    images,
    joining,
    labels,
    layernorm,
    linear,
    losses,
    muon,
    prelu,
    preprocess,
    scale,
    softmax,
    sums,
)
from fastnet.backends.cuda.kernels.registry import LAUNCHERS

__all__ = [
    "LAUNCHERS",
    "batchnorm",
    "clipping",
    "decision",
    "dropout",
    "formulas",
    "images",
    "joining",
    "labels",
    "layernorm",
    "linear",
    "losses",
    "muon",
    "prelu",
    "preprocess",
    "scale",
    "softmax",
    "sums",
]
