from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastnet.datasets import digits

# Of the source as a whole, from its own documentation.
PER_CLASS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
TEST_PER_CLASS = [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]


def sha256(array: NDArray[Any], dtype: str) -> str:
    return hashlib.sha256(array.astype(dtype).tobytes()).hexdigest()


def test_shapes_and_dtypes() -> None:
    (x, y), (x_test, y_test) = digits()
    assert (x.shape, y.shape) == ((1437, 64), (1437,))
    assert (x_test.shape, y_test.shape) == ((360, 64), (360,))
    assert x.dtype == x_test.dtype == np.float32
    assert y.dtype == y_test.dtype == np.int64


def test_pixels_are_the_seventeen_levels_from_0_to_1() -> None:
    for x, _ in digits():
        np.testing.assert_array_equal(np.unique(x), np.arange(17) / 16)


def test_every_class_has_its_share_in_both_parts() -> None:
    (_, y), (_, y_test) = digits()
    np.testing.assert_array_equal(np.bincount(y) + np.bincount(y_test), PER_CLASS)
    np.testing.assert_array_equal(np.bincount(y_test), TEST_PER_CLASS)
    share = np.array(PER_CLASS) * 360 / 1797
    assert np.abs(np.bincount(y_test) - share).max() < 1


def test_both_parts_are_shuffled() -> None:
    for _, y in digits():
        # In a shuffled order neighbours differ nine times in ten.
        assert 0.8 < np.mean(y[1:] != y[:-1]) < 0.97


def test_no_sample_is_there_twice() -> None:
    (x, _), (x_test, _) = digits()
    assert len(np.unique(np.concatenate([x, x_test]), axis=0)) == 1797


def test_contents_and_split_are_pinned() -> None:
    (x, y), (x_test, y_test) = digits()
    assert [sha256(x, "<f4"), sha256(y, "<i8"), sha256(x_test, "<f4"), sha256(y_test, "<i8")] == [
        "42529fb6a655e9c0e927267b21dd34017f645ff8bec67608d3acae3702ef36eb",
        "c1281028e5251b910fbb998bc625b6d6473e39ec5817e7c6d69de2f5f8bf38ab",
        "53d6a8c3d406e86d40aad5acd3374f1eed5131e403fad9d446ab12bfde56ba18",
        "4493b2052e7b4258621d51f10f17a672594c5e3f2beaa1cf97c818dc583aafe7",
    ]


def test_arrays_are_new_at_each_call_and_writable() -> None:
    first = [array for part in digits() for array in part]
    untouched = [array.copy() for array in first]
    for array in first:
        array[...] = 7
    for array, original in zip((a for part in digits() for a in part), untouched, strict=True):
        np.testing.assert_array_equal(array, original)


def test_the_four_arrays_share_no_memory() -> None:
    (x, y), (x_test, y_test) = digits()
    assert not np.may_share_memory(x, x_test)
    assert not np.may_share_memory(y, y_test)


def test_same_samples_as_scikit_learn() -> None:
    bundled = pytest.importorskip("sklearn.datasets").load_digits()
    (x, y), (x_test, y_test) = digits()
    ours = np.column_stack([np.concatenate([x, x_test]) * 16, np.concatenate([y, y_test])])
    theirs = np.column_stack([bundled.data, bundled.target])
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, theirs.tolist()))


def test_licence_lies_beside_the_data() -> None:
    text = (resources.files("fastnet.datasets") / "digits.LICENSE.txt").read_text("utf-8")
    for needed in ("E. Alpaydin", "C. Kaynak", "https://doi.org/10.24432/C50P49", "CC BY 4.0"):
        assert needed in text
        assert needed in str(digits.__doc__)
