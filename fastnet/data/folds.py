"""Splits by the user: into training and test data, and into folds of a cross-validation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnet import random
from fastnet.configured import Fixed
from fastnet.data import arrays, labels, sparse
from fastnet.data.frames import only_column
from fastnet.data.lazy import LazyRows
from fastnet.data.scaled import Scaled
from fastnet.data.split import stratified
from fastnet.errors import (
    DataError,
    HyperparameterError,
    ShapeError,
    check_flag,
    check_int,
    check_real,
    check_seed,
    outside,
    shown,
)
from fastnet.op import Array

SPLIT, FOLDS = 2, 3  # users of random.permutation


def train_test_split(
    *arrays: Any,
    test_size: Any = None,
    train_size: Any = None,
    shuffle: bool = True,
    stratify: Any = None,
    seed: int | None = None,
) -> list[Any]:
    """Two parts of each array, with the same rows: `X_train, X_test, y_train, y_test = …(X, y)`.

    arrays: at least one, with equally many rows: arrays, lists, data frames, sparse matrices, `fn.Scaled`.
        A part is of the same kind, and a copy. For the places of the rows give `numpy.arange(len(X))` too.
    test_size: share in (0, 1), of which test_size·n rows are rounded up, or a number of rows ≥ 1. Default
        None: what train_size leaves, or a quarter.
    train_size: share in (0, 1), rounded down, or a number of rows ≥ 1. Default None: what the test leaves.
    shuffle: bool (default True). False: the first rows train, the next ones test.
    stratify: labels (n,), numbers or strings, of which both parts get equal shares, or None (default).
        Largest remainders make them whole rows; each class keeps one to train on. Needs shuffle=True.
    seed: integer in [0, 2⁶⁴) (default None: a random one). With n and the labels it determines the rows.

    Names and rounding are scikit-learn's; its random_state is seed here, and gives other rows.
    """
    if not arrays:
        raise HyperparameterError("arrays is (); expected at least one array to split")
    parts = list(arrays)
    count = _rows(parts, "arrays")
    test, train = _sizes(test_size, train_size, count)
    shuffle, known = check_flag("shuffle", shuffle), check_seed("seed", seed)
    if stratify is not None and not shuffle:
        raise HyperparameterError(
            f"stratify is {shown(stratify)} and shuffle is False; expected shuffle=True, which stratifying "
            "needs, or stratify=None"
        )
    if not shuffle:
        rows = np.arange(train), np.arange(train, train + test)
    else:
        order = random.permutation(
            count, random.fresh_seed() if known is None else known, user=SPLIT
        )
        rows = order[test : test + train], order[:test]
        if stratify is not None:
            rows = _shared(order, train, test, _classes("stratify", stratify, count, "arrays have"))
    return [take(part, index) for part in parts for index in rows]


def _shared(order: Array, train: int, test: int, classes: Array) -> tuple[Array, Array]:
    """Rows to train and to test on, with equal shares of each class, both in this order."""
    chosen = np.zeros((2, len(order)), bool)
    chosen[1, stratified(order, test, classes, "test_size")] = True
    left = order[~chosen[1, order]]
    chosen[0, left if train == len(left) else stratified(left, train, classes, "train_size", 0)] = (
        True
    )
    train_rows, test_rows = (order[part[order]] for part in chosen)
    return train_rows, test_rows


def _sizes(test_size: Any, train_size: Any, count: int) -> tuple[int, int]:
    """The numbers of rows to test and to train on."""
    if test_size is None and train_size is None:
        test_size = 0.25
    test = _size("test_size", test_size, count, math.ceil)
    train = _size("train_size", train_size, count, math.floor)
    if test is None:
        assert train is not None
        test = count - train
    train = count - test if train is None else train
    if test < 1 or train < 1 or test + train > count:
        raise HyperparameterError(
            f"test_size is {shown(test_size)} and train_size is {shown(train_size)}: of the {count} rows "
            f"of arrays {test} and {train}; expected at least one row in both, and no more than there are"
        )
    return test, train


def _size(name: str, given: Any, count: int, rounded: Any) -> int | None:
    if given is None:
        return None
    if isinstance(given, (float, np.floating)):
        share = check_real(name, given, low=0.0, high=1.0, open_low=True, open_high=True)
        return int(rounded(share * count))
    return check_int(name, given, low=1)


def _rows(parts: list[Any], name: str) -> int:
    """The number of rows of these arrays; raises where they differ, or have none."""
    counts = []
    for number, part in enumerate(parts):
        inner = part.X if isinstance(part, Scaled) else part
        shape = getattr(inner, "shape", None)
        try:
            if isinstance(inner, (str, bytes, dict, set, frozenset, type)):
                raise TypeError
            counts.append(len(inner) if shape is None else int(shape[0]))
        except (TypeError, IndexError, ValueError):
            which = name if len(parts) == 1 else f"{name}[{number}]"
            raise ShapeError(f"{which} is {shown(part)}; expected an array with rows") from None
        if counts[-1] != counts[0]:
            raise ShapeError(
                f"{name}[{number}] has {counts[-1]} rows and {name}[0] has {counts[0]}; expected as many"
            )
    if not counts[0]:
        raise DataError(f"{name} has no rows; expected at least one")
    return counts[0]


def take(value: Any, rows: Array) -> Any:
    """These rows of an array, list, frame or matrix, as a copy of its kind."""
    if isinstance(value, Scaled):
        return Scaled(take(value.X, rows), value.scale)
    if isinstance(value, (np.ndarray, LazyRows)):
        return value[rows]
    if isinstance(value, (list, tuple)):
        return type(value)([value[row] for row in rows.tolist()])
    if hasattr(value, "iloc"):  # of pandas
        return value.iloc[rows]
    if hasattr(value, "column_names") and hasattr(value, "take"):  # of pyarrow
        return value.take(rows)
    if sparse.is_sparse(value) and hasattr(value, "tocsr"):
        return value.tocsr()[rows]
    if hasattr(value, "iter_columns") or hasattr(value, "dtype"):  # of polars, PyTorch, …
        return value[rows]
    return arrays.as_array("arrays", value)[rows]


def _classes(name: str, given: Any, count: int, of: str) -> Array:
    """The number of each row's class."""
    y = labels.read(name, only_column(given))
    y = y[:, 0] if y.shape[1:] == (1,) else y
    if y.shape != (count,):
        raise ShapeError(
            f"{name} has shape {y.shape} and {of} {count} rows; expected a label for each"
        )
    if y.dtype.kind == "f" and np.isnan(y).any():
        raise DataError(f"{name} holds NaN; fill such labels or leave their rows out")
    if y.dtype.kind not in "biufO":
        raise DataError(f"{name} has dtype {y.dtype}; expected labels: numbers or strings")
    return np.unique(y.astype(str) if y.dtype.kind == "O" else y, return_inverse=True)[1]


class KFold(Fixed):
    """Folds 0 … n_splits − 1 of rows, each of which is the test data once: n = Σ of their sizes.

    n_splits: integer ≥ 2 (default 5). Folds differ by one row at most; the first n mod n_splits have one
        more.
    shuffle: bool (default False). False: a fold is a range of neighbouring rows.
    seed: integer in [0, 2⁶⁴), needed with shuffle=True to have the same folds again (default None: a random
        one). With n it determines the folds.

    Names and folds without a shuffle are scikit-learn's, whose functions take this as cv.
    Source: M. Stone, "Cross-validatory choice and assessment of statistical predictions", JRSS B 36, 1974.
    """

    def __init__(
        self, n_splits: int = 5, *, shuffle: bool = False, seed: int | None = None
    ) -> None:
        super().__init__(
            n_splits=check_int("n_splits", n_splits, low=2),
            shuffle=check_flag("shuffle", shuffle),
            seed=check_seed("seed", seed),
        )
        if self.seed is not None and not self.shuffle:
            raise HyperparameterError(
                f"seed is {seed} and shuffle is False; expected shuffle=True, or no seed"
            )

    def split(self, X: Any, y: Any = None, groups: None = None) -> Iterator[tuple[Array, Array]]:
        """The rows to train on and those to test on, for each fold: int64, both ascending.

        X: anything with rows. y: not used. groups: None, which scikit-learn gives.
        """
        self._no_groups(groups)
        count = self._count(X)
        sizes = np.full(self.n_splits, count // self.n_splits)
        sizes[: count % self.n_splits] += 1
        fold = np.empty(count, np.int64)
        fold[self._order(count)] = np.repeat(np.arange(self.n_splits), sizes)
        return self._parts(fold)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """n_splits; scikit-learn asks for it."""
        return int(self.n_splits)

    def _no_groups(self, groups: Any) -> None:
        if groups is not None:
            raise HyperparameterError(
                f"groups is {shown(groups)}; expected None: folds by groups are scikit-learn's GroupKFold"
            )

    def _count(self, X: Any) -> int:
        count = _rows([X], "X")
        if count < self.n_splits:
            raise DataError(
                f"X has {count} rows and n_splits is {self.n_splits}; expected at least as many rows"
            )
        return count

    def _order(self, count: int) -> Array:
        if not self.shuffle:
            return np.arange(count)
        seed = random.fresh_seed() if self.seed is None else self.seed
        return random.permutation(count, seed, user=FOLDS)

    def _parts(self, fold: Array) -> Iterator[tuple[Array, Array]]:
        for number in range(self.n_splits):
            yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


class StratifiedKFold(KFold):
    """As KFold, with equal shares of each class in all folds: a class's numbers differ by one at most.

    n_splits, shuffle, seed: see KFold. Folds differ by one row at most too. A class with fewer rows than
    folds is missing in some of them, of which a warning tells.

    Source: R. Kohavi, "A study of cross-validation and bootstrap for accuracy estimation and model
    selection", IJCAI 1995.
    """

    def split(self, X: Any, y: Any = None, groups: None = None) -> Iterator[tuple[Array, Array]]:
        """The rows to train on and those to test on, for each fold: int64, both ascending.

        X: anything with rows. y: labels (n,), numbers or strings. groups: None, which scikit-learn gives.
        """
        self._no_groups(groups)
        count = self._count(X)
        if y is None:
            raise DataError("y is None; expected the labels, of which folds get equal shares")
        classes = _classes("y", y, count, "X has")
        fewest = int(np.bincount(classes).min())
        if fewest < self.n_splits:
            warnings.warn(
                f"y has a class with {fewest} rows, and n_splits is {self.n_splits}: some folds lack it",
                stacklevel=outside(),
            )
        order = self._order(count)
        fold = np.empty(count, np.int64)
        # Class by class, rows go round the folds, which so fill up evenly.
        fold[order[np.argsort(classes[order], kind="stable")]] = np.arange(count) % self.n_splits
        return self._parts(fold)
