"""fastnet: trains dense neural nets on a CPU, with one native call for many whole steps."""

import typing as _typing
from importlib import import_module as _import_module

from fastnet import errors, init, layers, losses, optim, preprocess, schedules
from fastnet.backends.registry import backends
from fastnet.configured import register
from fastnet.data.folds import KFold, StratifiedKFold, train_test_split
from fastnet.data.mixup import MixUp
from fastnet.data.scaled import Scaled
from fastnet.errors import BackendUnavailable, DeviceError, DivergenceError, FastnetError
from fastnet.layers import *  # noqa: F403
from fastnet.losses import *  # noqa: F403
from fastnet.model import Ensemble, Sequential, load
from fastnet.optim import *  # noqa: F403
from fastnet.parallel import get_num_threads, set_num_threads, threads

if _typing.TYPE_CHECKING:
    from fastnet import check, curvature, datasets, plot, recipes, tabular
    from fastnet import sklearn as sklearn
    from fastnet.int8 import quantize
    from fastnet.interop.keras_in import from_keras
    from fastnet.interop.onnx_in import import_onnx
    from fastnet.interop.sklearn_in import from_sklearn
    from fastnet.interop.torch_in import from_torch
    from fastnet.train import (
        Callback,
        ClassBalanced,
        CSVLogger,
        EarlyStopping,
        HardExamples,
        History,
        ImportanceSampling,
        JSONLLogger,
        LearningRateScheduler,
        ModelCheckpoint,
        Record,
        ReduceLROnPlateau,
        Snapshots,
        TensorBoard,
        Timer,
        Trainer,
        batches,
        fit_many,
        from_config,
    )

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "CSVLogger",
    "Callback",
    "ClassBalanced",
    "DeviceError",
    "DivergenceError",
    "EarlyStopping",
    "Ensemble",
    "FastnetError",
    "HardExamples",
    "History",
    "ImportanceSampling",
    "JSONLLogger",
    "KFold",
    "MixUp",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "Record",
    "ReduceLROnPlateau",
    "Scaled",
    "Sequential",
    "Snapshots",
    "StratifiedKFold",
    "TensorBoard",
    "Timer",
    "Trainer",
    "__version__",
    "backends",
    "batches",
    "check",
    "curvature",
    "datasets",
    "errors",
    "fit_many",
    "from_config",
    "from_keras",
    "from_sklearn",
    "from_torch",
    "get_num_threads",
    "import_onnx",
    "init",
    "load",
    "plot",
    "preprocess",
    "quantize",
    "recipes",
    "register",
    "schedules",
    "set_num_threads",
    "tabular",
    "threads",
    "train_test_split",
    *layers.__all__,
    *losses.__all__,
    *optim.__all__,
]


# A program that only predicts does not need these, so they load at their first use.
_TRAIN = (
    *("CSVLogger", "Callback", "EarlyStopping", "History", "JSONLLogger", "LearningRateScheduler"),
    *("ModelCheckpoint", "Record", "ReduceLROnPlateau", "Snapshots", "TensorBoard", "Timer"),
    *("ClassBalanced", "HardExamples", "ImportanceSampling", "Trainer", "batches", "fit_many"),
    "from_config",  # needs all classes registered
)
_MODELS = {
    "from_keras": "interop.keras_in",
    "from_sklearn": "interop.sklearn_in",
    "from_torch": "interop.torch_in",
    "import_onnx": "interop.onnx_in",
    "quantize": "int8",
}
_ROOMS = ("check", "curvature", "datasets", "plot", "recipes", "sklearn", "tabular")
_LATE = {**dict.fromkeys(_ROOMS, ""), **dict.fromkeys(_TRAIN, "train"), **_MODELS}


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module 'fastnet' has no attribute {name!r}")
    module = _import_module(f"fastnet.{_LATE[name] or name}")
    value = getattr(module, name) if _LATE[name] else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
