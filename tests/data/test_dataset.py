"""The one type of a data set: what it tells of its rows, and what native code reads."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.data.minibatches import training_offsets
from fastnet.errors import DataError, ShapeError


def data(loss, y, x=None, **options):
    model = fn.Sequential(fn.Linear(4, 3), backend="reference", seed=0)
    x = np.arange(24.0, dtype=np.float32).reshape(6, 4) if x is None else x
    return model.data(loss, model.features("X", x), y, "X", "y", **options)


def test_it_tells_of_its_rows():
    found = data(fn.CrossEntropyLoss(), [0, 2, 1, 0, 0, 2], sample_weight=np.arange(6.0))
    assert (found.rows, found.width, found.row_shape) == (6, 4, (4,))
    assert (found.classes, found.host, found.by_rows) == (3, None, False)
    x, y, w = found.take(np.array([4, 1]))
    np.testing.assert_array_equal(x, [[16, 17, 18, 19], [4, 5, 6, 7]])
    assert y.tolist() == [0, 2] and w.tolist() == [4, 1] and w.dtype == np.float32


def test_native_code_reads_the_users_own_rows():
    x = np.ones((6, 4), np.uint8)
    found = data(fn.MSELoss(), np.zeros((6, 3)), x)
    assert found.source("x") == (x.ctypes.data, np.uint8)
    assert found.source("y")[1] == np.float64
    assert found.source("w") == (0, None)


def test_weights_over_their_mean_are_means_by_rows():
    given = np.array([1.0, 3.0, 0, 0, 2, 0])
    found = data(fn.MSELoss(), np.zeros((6, 3)), sample_weight=given, by_rows=True)
    assert found.by_rows
    np.testing.assert_allclose(found.w, given, rtol=1e-7)  # whose mean is 1
    assert not data(fn.MSELoss(), np.zeros((6, 3)), by_rows=True).by_rows
    total = data(fn.MSELoss("sum"), np.zeros((6, 3)), sample_weight=given, by_rows=True)
    assert not total.by_rows and total.w.tolist() == given.tolist()


def test_a_function_has_targets_of_its_own():
    def loss(output, y):
        return 0.0, 0 * output

    found = data(fn.FunctionLoss(loss), np.full(6, np.nan))
    assert found.host.name.endswith("loss") and found.classes == 0 and np.isnan(found.y).all()


def test_minibatches_are_large_enough_or_left_out():
    assert training_offsets(10, 4, False).tolist() == [0, 4, 8, 10]
    assert training_offsets(10, 4, True).tolist() == [0, 4, 8]
    with pytest.warns(UserWarning, match="last minibatch of each epoch has 1 row"):
        assert training_offsets(9, 4, False, minimum=2).tolist() == [0, 4, 8]
    with pytest.raises(ShapeError, match="at least 2 rows"):
        training_offsets(9, 1, False, minimum=2)
    with pytest.raises(DataError, match="drop_last=True"):
        training_offsets(3, 4, True)
