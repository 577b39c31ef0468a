"""Training: the trainer with its callbacks, progress and history, and minibatches."""

from typing import TYPE_CHECKING

from fastnet.late import late_names

if TYPE_CHECKING:
    from fastnet.configured import from_config
    from fastnet.data.minibatches import batches
    from fastnet.train.callbacks import (
        Callback,
        CSVLogger,
        EarlyStopping,
        JSONLLogger,
        LearningRateScheduler,
        ModelCheckpoint,
        ReduceLROnPlateau,
        Snapshots,
        TensorBoard,
        Timer,
    )
    from fastnet.train.history import History
    from fastnet.train.many import fit_many
    from fastnet.train.record import Record
    from fastnet.train.sampling import ClassBalanced, HardExamples, ImportanceSampling
    from fastnet.train.trainer import Trainer

__all__ = [
    "CSVLogger",
    "Callback",
    "ClassBalanced",
    "EarlyStopping",
    "HardExamples",
    "History",
    "ImportanceSampling",
    "JSONLLogger",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "Record",
    "ReduceLROnPlateau",
    "Snapshots",
    "TensorBoard",
    "Timer",
    "Trainer",
    "batches",
    "fit_many",
    "from_config",
]

__getattr__, __dir__ = late_names(__name__, __all__)
