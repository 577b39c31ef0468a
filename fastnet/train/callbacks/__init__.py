"""Callbacks: hooks that a fit calls, and what fastnet has to put there."""

from fastnet.train.callbacks.base import Callback, check_callbacks
from fastnet.train.callbacks.files import CSVLogger, JSONLLogger, ModelCheckpoint, TensorBoard
from fastnet.train.callbacks.monitors import EarlyStopping, KeepBest, ReduceLROnPlateau
from fastnet.train.callbacks.plain import LearningRateScheduler, Snapshots, Timer

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "JSONLLogger",
    "KeepBest",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "Snapshots",
    "TensorBoard",
    "Timer",
    "check_callbacks",
]
