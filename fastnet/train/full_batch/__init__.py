"""Full-batch training: methods that minimise the loss of all rows as a function of one vector.

`methods.TABLE` has them all; each is a file with its options and its loop.
"""

from fastnet.train.full_batch.fit import checked_settings, fit
from fastnet.train.full_batch.history import FullBatchHistory
from fastnet.train.full_batch.methods import METHODS, TABLE
from fastnet.train.full_batch.objective import Objective, Point
from fastnet.train.full_batch.settings import Callback, Settings

__all__ = [
    "METHODS",
    "TABLE",
    "Callback",
    "FullBatchHistory",
    "Objective",
    "Point",
    "Settings",
    "checked_settings",
    "fit",
]
