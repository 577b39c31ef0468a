"""Minibatches: the order of rows and its division, as a pure function of seed and epoch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from fastnet import random
from fastnet.data import arrays, sparse
from fastnet.data.scaled import Scaled
from fastnet.errors import DataError, ShapeError, check_flag, check_int, check_seed, outside
from fastnet.op import Array


def epoch_order(count: int, seed: int, epoch: int, shuffle: bool = True) -> Array:
    """The order of an epoch's rows: a permutation of range(count) that depends on (seed, epoch)."""
    return random.permutation(count, seed, epoch) if shuffle else np.arange(count)


def batch_offsets(count: int, batch_size: int, drop_last: bool = False) -> Array:
    """The bounds of minibatches: int64 (batches + 1,); the last minibatch may be smaller."""
    batches = count // batch_size if drop_last else -(-count // batch_size)
    return np.minimum(np.arange(batches + 1, dtype=np.int64) * min(batch_size, count), count)


def training_offsets(count: int, batch_size: int, drop_last: bool, minimum: int = 1) -> Array:
    """The bounds of an epoch's minibatches of at least `minimum` rows; raises if there are none."""
    if min(count, batch_size) < minimum:
        raise ShapeError(
            f"X has {count} rows and batch_size is {batch_size}; this model has batchnorm and "
            f"needs minibatches of at least {minimum} rows in training"
        )
    offsets = batch_offsets(count, batch_size, drop_last)
    if len(offsets) < 2:
        raise DataError(
            f"X has {count} rows, fewer than batch_size = {batch_size}, and drop_last=True "
            "leaves none to train on"
        )
    if offsets[-1] - offsets[-2] < minimum:
        offsets = offsets[:-1]
        warnings.warn(
            f"the last minibatch of each epoch has {count % batch_size} row, too few for "
            "batchnorm in training: it is left out (choose another batch_size to use it)",
            stacklevel=outside(),
        )
    return offsets


def batches(
    X: Any,
    y: Any = None,
    *,
    batch_size: int = 32,
    seed: int | None = None,
    epoch: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
) -> Iterator[Any]:
    """Minibatches of one epoch, without replacement: `for xb, yb in batches(X, y, batch_size=32): …`.

    X, y: arrays with equally many rows; without y the items are minibatches of X alone. X may be a sparse
        matrix or a Scaled; its minibatches are then, too.
    batch_size: integer ≥ 1 (default 32). If it does not divide the rows, the last minibatch is smaller.
    seed: integer in [0, 2⁶⁴) (default None: a random one).
    epoch: integer ≥ 0 (default 0). The order depends on seed and epoch alone and is that of `Trainer.fit`.
    shuffle: bool (default True). False keeps the rows in order.
    drop_last: bool (default False). True leaves out a last minibatch that is smaller.

    The minibatches are copies. Raises ShapeError where X and y differ in rows, DataError where X is
    empty.
    """
    batch_size = check_int("batch_size", batch_size, low=1)
    epoch = check_int("epoch", epoch, high=2**64 - 1)
    inner = X.X if isinstance(X, Scaled) else X
    x = sparse.rows_in(inner) if sparse.is_sparse(inner) else arrays.as_array("X", inner)
    parts = [x] if y is None else [x, arrays.as_array("y", y)]
    if any(part.ndim == 0 for part in parts):
        raise ShapeError("X and y must have rows; a single number came")
    count = x.shape[0]
    if y is not None and count != len(parts[1]):
        raise ShapeError(f"X has {count} rows and y has {len(parts[1])}; expected as many")
    if not count:
        raise DataError("X is empty; expected at least one row")
    known = check_seed("seed", seed)
    shuffle, drop_last = check_flag("shuffle", shuffle), check_flag("drop_last", drop_last)
    order = epoch_order(count, random.fresh_seed() if known is None else known, epoch, shuffle)
    offsets = batch_offsets(count, batch_size, drop_last)
    return _cut(parts, order, offsets, X.scale if isinstance(X, Scaled) else None)


def _cut(parts: list[Any], order: Array, offsets: Array, scale: float | None) -> Iterator[Any]:
    for begin, end in pairwise(offsets):
        first, *rest = (part[order[begin:end]] for part in parts)
        first = first if scale is None else Scaled(first, scale)
        yield (first, *rest) if rest else first
