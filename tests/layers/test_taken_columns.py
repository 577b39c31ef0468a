"""The layer that takes some columns."""

from __future__ import annotations

import numpy as np
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, ShapeError


def test_columns_in_any_order(backend):
    x = np.random.default_rng(1).normal(size=(9, 5))
    model = fn.Sequential(fn.Columns([3, 0, 3]), dtype="float64", backend=backend)
    np.testing.assert_array_equal(model.predict(x), x[:, [3, 0, 3]])
    model.forward(x)
    dy = np.arange(27.0).reshape(9, 3)
    want = np.zeros((9, 5))
    want[:, 0], want[:, 3] = dy[:, 1], dy[:, 0] + dy[:, 2]
    np.testing.assert_array_equal(model.backward(dy), want)


def test_branches_with_columns_of_their_own(backend):
    layers = fn.Concat(fn.Sequential(fn.Columns([1, 2]), fn.ReLU()), fn.Columns(range(1)))
    model = fn.Sequential(layers, dtype="float64", backend=backend)
    np.testing.assert_array_equal(model.predict([[5.0, -1.0, 2.0]]), [[0.0, 2.0, 5.0]])


def test_what_is_no_column_is_refused():
    for wrong, message in (
        ([], "columns is"),
        (3, "columns is 3"),
        ([0, -1], r"columns\[1\] is -1"),
    ):
        refused(lambda w=wrong: fn.Columns(w), HyperparameterError, f"^{message}")
    layer = fn.Columns([0, 4])
    refused(
        lambda: layer.forward(np.zeros((2, 4))), ShapeError, "at least 5 features, as columns has 4"
    )
