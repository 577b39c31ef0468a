"""The UCI 8x8 handwritten digits, embedded in the package.

Source: E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI
Machine Learning Repository, https://doi.org/10.24432/C50P49, licensed under CC BY 4.0;
details in digits.LICENSE.txt beside this file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastnet.datasets.idx import read_idx

_FILE = Path(__file__).with_name("digits.idx.gz")
_TRAIN = 1437  # the file stores rows in their final order, so the split needs no generator
_PIXELS = 64
_FULL = 16

_Samples = tuple[NDArray[np.float32], NDArray[np.int64]]


def digits() -> tuple[_Samples, _Samples]:
    """Load the 8x8 handwritten digits: `(X, y), (X_test, y_test)`.

    ======  ===========  =======  ====================================================
    X       (1437, 64)   float32  pixels row by row, 0 (empty) to 1 (full), in 1/16ths
    y       (1437,)      int64    the digit, 0 to 9
    X_test  (360, 64)    float32  as X
    y_test  (360,)       int64    as y
    ======  ===========  =======  ====================================================

    Each call returns new, writable arrays. The split never changes: it was drawn once at random,
    stratified by digit, and the file stores its rows in that order. Training and test set have the same
    writers. UCI publishes the samples ordered by writer, and a split along that order is harder.

    These are the 1,797 samples of the test part of "Optical Recognition of Handwritten
    Digits" by E. Alpaydin and C. Kaynak (1998), UCI Machine Learning Repository,
    https://doi.org/10.24432/C50P49, licensed under CC BY 4.0.
    """
    rows: NDArray[np.uint8] = read_idx(_FILE)
    return _samples(rows[:_TRAIN]), _samples(rows[_TRAIN:])


def _samples(rows: NDArray[np.uint8]) -> _Samples:
    x = np.divide(rows[:, :_PIXELS], _FULL, dtype=np.float32)
    return x, rows[:, _PIXELS].astype(np.int64)
