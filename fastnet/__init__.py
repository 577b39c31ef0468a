"""fastnet: trains dense neural nets on a CPU, with one native call for many whole steps."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from fastnet import layers, losses, optim
from fastnet.backends.registry import backends  # now, as the package of this name hides it later
from fastnet.late import late_names as _late_names

if _TYPE_CHECKING:
    from fastnet import (
        check,
        curvature,
        datasets,
        errors,
        init,
        plot,
        preprocess,
        recipes,
        schedules,
        tabular,
    )
    from fastnet import sklearn as sklearn
    from fastnet.configured import from_config, register
    from fastnet.data.folds import KFold, StratifiedKFold, train_test_split
    from fastnet.data.mixup import MixUp
    from fastnet.data.scaled import Scaled
    from fastnet.errors import BackendUnavailable, DeviceError, DivergenceError, FastnetError
    from fastnet.int8 import quantize
    from fastnet.interop.keras_in import from_keras
    from fastnet.interop.onnx_in import import_onnx
    from fastnet.interop.sklearn_in import from_sklearn
    from fastnet.interop.torch_in import from_torch
    from fastnet.layers import *  # noqa: F403
    from fastnet.losses import *  # noqa: F403
    from fastnet.model import Ensemble, Sequential, load
    from fastnet.optim import *  # noqa: F403
    from fastnet.parallel import get_num_threads, set_num_threads, threads
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

# sklearn is no public name of its own, so that `from fastnet import *` works without scikit-learn.
__getattr__, __dir__ = _late_names(__name__, [*__all__, "sklearn"])
