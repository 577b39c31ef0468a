"""fastnet: trains dense neural nets on a CPU, a whole step in one native call."""

import typing as _typing
from importlib import import_module as _import_module

from fastnet import errors, init
from fastnet.backends.registry import backends
from fastnet.errors import BackendUnavailable, DivergenceError, FastnetError
from fastnet.layers import (
    BatchNorm1d,
    Dropout,
    Layer,
    LeakyReLU,
    Linear,
    ReLU,
    Sigmoid,
    Tanh,
)
from fastnet.losses import CrossEntropyLoss, Loss, MSELoss, accuracy
from fastnet.model import Sequential
from fastnet.optim import SGD, Adam, AdamW, Optimizer
from fastnet.train import History, Trainer, batches

if _typing.TYPE_CHECKING:
    from fastnet import datasets

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "BackendUnavailable",
    "BatchNorm1d",
    "CrossEntropyLoss",
    "DivergenceError",
    "Dropout",
    "FastnetError",
    "History",
    "Layer",
    "LeakyReLU",
    "Linear",
    "Loss",
    "MSELoss",
    "Optimizer",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "Trainer",
    "__version__",
    "accuracy",
    "backends",
    "batches",
    "datasets",
    "errors",
    "init",
]


def __getattr__(name: str) -> object:
    # A trained model's host need not load what reads files.
    if name == "datasets":
        return _import_module("fastnet.datasets")
    raise AttributeError(f"module 'fastnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
