"""The split of rows into those of the training and those of the validation."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet import random
from fastnet.errors import DataError, HyperparameterError, check_int, shown
from fastnet.op import Array


def split_rows(given: Any, count: int, seed: int, classes: Array | None) -> tuple[Array, Array]:
    """The rows of the training and of the validation, both sorted.

    given: the argument validation_split. seed: with the rows' number and their classes all that the split
    depends on. classes: the rows' classes, of which both parts get equal shares, up to a row; None: the
    rows have none.
    """
    size = _size(given, count)
    order = random.permutation(count, seed, user=1)
    held = order[:size] if classes is None else stratified(order, size, classes)
    taken = np.zeros(count, bool)
    taken[held] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)


def _size(given: Any, count: int) -> int:
    """The number of rows of the validation."""
    wanted = (
        f"a share in (0, 1) of the {count} rows, or a number of rows in [1, {max(1, count - 1)}]"
    )
    refusal = HyperparameterError(f"validation_split is {shown(given)}; expected {wanted}")
    if isinstance(given, (float, np.floating)) and 0 < given < 1:
        size = max(1, int(float(given) * count + 0.5))
    else:
        try:
            size = check_int("validation_split", given, low=1)
        except HyperparameterError:
            raise refusal from None
    if size >= count:
        raise refusal
    return size


def stratified(
    order: Array, size: int, classes: Array, name: str = "validation_split", spared: int = 1
) -> Array:
    """So many rows of those in this order, from each class its share, but `spared` rows of it at least.

    classes: the class of every row. name: the argument that gives the size, for a message.
    """
    classes = classes[order]
    _, of_row, counts = np.unique(classes, return_inverse=True, return_counts=True)
    most = counts - spared
    if size > most.sum():
        raise DataError(
            f"{name} takes {size} of {len(order)} rows, of {len(counts)} classes; expected at "
            f"most {most.sum()}, so that a row of each class is left to train on"
        )
    # Largest remainders: whole shares first, then a row more for the classes that lack the most.
    share = size * counts / len(order)
    number = np.minimum(share.astype(np.int64), most)
    while (left := size - int(number.sum())) > 0:
        open_ = np.flatnonzero(number < most)
        lacking = open_[np.argsort(number[open_] - share[open_], kind="stable")][:left]
        number[lacking] += 1
    grouped = order[np.argsort(of_row, kind="stable")]  # by class, each in this order
    begins = np.cumsum(counts) - counts
    return np.concatenate([grouped[b : b + n] for b, n in zip(begins, number, strict=True)])
