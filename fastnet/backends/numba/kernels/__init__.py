"""The kernels, one family of ops a file, with the names and arguments of the reference kernels."""

from fastnet.backends.numba.kernels import (
    activations,
    batchnorm,
    clipping,
    dropout,
    linear,
    losses,
    optim,
    sums,
)
from fastnet.backends.numba.kernels.registry import FUNCTIONS

__all__ = ["FUNCTIONS", "activations", "batchnorm", "clipping", "dropout", "linear", "losses", "optim", "sums"]
