"""Training: minibatches, the trainer, its progress and its history."""

from fastnet.train.data import batches
from fastnet.train.history import History
from fastnet.train.trainer import Trainer

__all__ = ["History", "Trainer", "batches"]
