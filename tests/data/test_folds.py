"""train_test_split, KFold and StratifiedKFold: sizes, shares of classes, kinds of arrays."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError, ShapeError

pd = pytest.importorskip("pandas")
scipy_sparse = pytest.importorskip("scipy.sparse")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(103, 3))
CODES = RNG.choice(3, 103, p=[0.7, 0.2, 0.1])
NAMES = np.array(["cat", "dog", "eel"])[CODES]


@pytest.mark.parametrize(
    ("sizes", "train", "test"),
    [
        ({}, 77, 26),
        ({"test_size": 0.2}, 82, 21),
        ({"test_size": 10}, 93, 10),
        ({"train_size": 0.5}, 51, 52),
        ({"train_size": np.int64(7)}, 7, 96),
        ({"test_size": 0.1, "train_size": np.float32(0.25)}, 25, 11),
        ({"test_size": 50, "train_size": 53}, 53, 50),
    ],
)
@pytest.mark.parametrize("more", [{}, {"shuffle": False}, {"stratify": NAMES}])
def test_sizes(sizes, train, test, more):
    rows = np.arange(103)
    first, second = fn.train_test_split(rows, **sizes, **more, seed=3)
    assert (len(first), len(second)) == (train, test)
    assert len({*first, *second}) == train + test
    if more == {"shuffle": False}:
        assert first.tolist() + second.tolist() == [*range(train + test)]


def test_the_rows_are_a_function_of_the_seed():
    rows = np.arange(103)
    one, again, other = (fn.train_test_split(rows, seed=s)[1].tolist() for s in (1, 1, 2))
    assert one == again != other
    assert fn.train_test_split(rows)[1].tolist() != fn.train_test_split(rows)[1].tolist()
    assert sorted(one) != one  # in a random order


@pytest.mark.parametrize("labels", [CODES, NAMES, NAMES.tolist(), pd.Series(NAMES), CODES[:, None]])
@pytest.mark.parametrize("sizes", [{"test_size": 0.3}, {"test_size": 11, "train_size": 60}])
def test_stratified_shares_are_the_nearest_whole_numbers(labels, sizes):
    first, second = fn.train_test_split(CODES, stratify=labels, seed=5, **sizes)
    counts = np.bincount(CODES)
    for part in (first, second):
        share = len(part) * counts / 103
        assert np.abs(np.bincount(part, minlength=3) - share).max() < 1
    train_test = np.bincount(first, minlength=3) + np.bincount(second, minlength=3)
    assert (train_test <= counts).all()


def test_exact_shares():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    first, second = fn.train_test_split(labels, test_size=0.2, stratify=labels, seed=0)
    assert np.bincount(first).tolist() == [40, 24, 16]
    assert np.bincount(second).tolist() == [10, 6, 4]


def test_parts_are_of_the_arrays_kind():
    frame = pd.DataFrame(X, columns=list("abc"), index=[f"r{i}" for i in range(103)])
    matrix = scipy_sparse.coo_matrix(X)
    scaled = fn.Scaled(X, 0.5)
    given = np.arange(103), X, frame, pd.Series(NAMES), NAMES.tolist(), matrix, scaled
    parts = fn.train_test_split(*given, test_size=0.3, seed=0)
    for which in (0, 1):
        rows, x, part, series, names, sparse, halves = parts[which::2]
        np.testing.assert_array_equal(x, X[rows])
        assert isinstance(part, pd.DataFrame) and part.index.tolist() == [f"r{i}" for i in rows]
        np.testing.assert_array_equal(part, X[rows])
        assert series.tolist() == NAMES[rows].tolist() == names and type(names) is list
        np.testing.assert_array_equal(sparse.toarray(), X[rows])
        assert isinstance(halves, fn.Scaled) and halves.scale == 0.5
        np.testing.assert_array_equal(halves.X, X[rows])


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: fn.train_test_split(), HyperparameterError, "^arrays is .*at least one array"),
        (lambda: fn.train_test_split(X, X[:5]), ShapeError, r"^arrays\[1\] has 5 rows and arr"),
        (lambda: fn.train_test_split(3), ShapeError, "^arrays is 3; expected an array"),
        (lambda: fn.train_test_split(X[:0]), DataError, "^arrays has no rows"),
        (
            lambda: fn.train_test_split(X[:1]),
            HyperparameterError,
            "of the 1 rows of arrays 1 and 0",
        ),
        (lambda: fn.train_test_split(X, test_size=1.0), HyperparameterError, "^test_size is 1.0"),
        (lambda: fn.train_test_split(X, test_size=103), HyperparameterError, "of arrays 103 and 0"),
        (
            lambda: fn.train_test_split(X, test_size=60, train_size=0.5),
            HyperparameterError,
            "of arrays 60 and 51",
        ),
        (
            lambda: fn.train_test_split(X, stratify=NAMES, shuffle=False),
            HyperparameterError,
            "^stratify is .* and shuffle is False",
        ),
        (lambda: fn.train_test_split(X, stratify=NAMES[:9]), ShapeError, "^stratify has shape"),
        (
            lambda: fn.train_test_split(X, stratify=NAMES, test_size=101),
            DataError,
            "^test_size takes 101 of 103 rows, of 3 classes; expected at most 100",
        ),
        (lambda: fn.KFold(4).split(X[:3]), DataError, "^X has 3 rows and n_splits is 4"),
        (lambda: fn.KFold().split(X, groups=CODES), HyperparameterError, "^groups is .*GroupKFold"),
        (lambda: fn.KFold(seed=3), HyperparameterError, "^seed is 3 and shuffle is False"),
        (lambda: fn.StratifiedKFold().split(X), DataError, "^y is None; expected the labels"),
        (
            lambda: fn.StratifiedKFold().split(X, np.full(103, np.nan)),
            DataError,
            "^y holds NaN",
        ),
    ],
)
def test_refusals(make, kind, message):
    refused(make, kind, message)


@pytest.mark.parametrize("count", [6, 100, 103, 104])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_row_is_tested_once(count, shuffle):
    folds = fn.KFold(5, shuffle=shuffle, seed=7 if shuffle else None)
    parts = list(folds.split(X[:1].repeat(count, axis=0)))
    assert sorted(np.concatenate([test for _, test in parts])) == [*range(count)]
    for train, test in parts:
        assert sorted([*train, *test]) == [*range(count)] and train.dtype == test.dtype == np.int64
    sizes = [len(test) for _, test in parts]
    assert sizes == sorted(sizes, reverse=True) and max(sizes) - min(sizes) <= 1
    again = list(folds.split(range(count)))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(parts, again, strict=True))
    if shuffle:
        other = fn.KFold(5, shuffle=True, seed=8).split(range(count))
        assert any(not np.array_equal(a[1], b[1]) for a, b in zip(parts, other, strict=True))


@pytest.mark.parametrize("shuffle", [False, True])
def test_stratified_folds_have_equal_shares(shuffle):
    folds = fn.StratifiedKFold(4, shuffle=shuffle, seed=1 if shuffle else None)
    tests = [test for _, test in folds.split(X, NAMES)]
    counts = np.array([np.bincount(CODES[test], minlength=3) for test in tests])
    assert (np.ptp(counts, axis=0) <= 1).all() and np.ptp(counts.sum(axis=1)) <= 1
    assert sorted(np.concatenate(tests)) == [*range(103)]


def test_a_class_with_fewer_rows_than_folds_is_told():
    with pytest.warns(UserWarning, match="y has a class with 2 rows, and n_splits is 3"):
        fn.StratifiedKFold(3).split(X[:9], [0] * 7 + [1] * 2)
