"""OneHot: slots, the unknown one, columns that are copied, in every backend."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError, ShapeError, UsageError

P = fn.preprocess
X = np.array([[2.0, 0.5, 7], [0, -1, 5], [2, 3, 5], [9, 0, 6]])


def test_slots_of_each_column_and_one_for_what_is_unknown():
    layer = P.OneHot().fit(X[:, [0, 2]])
    assert [c.tolist() for c in layer.categories_] == [[0, 2, 9], [5, 6, 7]]
    y = layer.transform(X[:, [0, 2]])
    wanted = [
        [0, 1, 0, 0, 0, 0, 1, 0],
        [1, 0, 0, 0, 1, 0, 0, 0],
        [0, 1, 0, 0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0, 1, 0, 0],
    ]
    assert y.tolist() == wanted
    assert layer.transform([[1, 6], [2, -5]]).tolist() == [
        [0, 0, 0, 1, 0, 1, 0, 0],
        [0, 1, 0, 0, 0, 0, 0, 1],
    ]


def test_other_columns_come_first_as_they_are(backend):
    layer = P.OneHot([2, 0]).fit(X)
    assert layer.config() == {"columns": [2, 0], "sizes": [3, 3], "num_features": 3}
    y = layer.transform(X)
    np.testing.assert_array_equal(y[:, 0], np.float32(X[:, 1]))
    assert y[:, 1:].tolist()[0] == [0, 0, 1, 0, 0, 1, 0, 0]
    np.testing.assert_array_equal(layer.inverse_transform(y), X)
    unknown = layer.inverse_transform(layer.transform([[3, 0.5, 7]]))
    np.testing.assert_array_equal(unknown, [[np.nan, 0.5, 7]])
    model = fn.Sequential(layer, backend=backend)
    np.testing.assert_array_equal(model.predict(X), y)
    np.testing.assert_array_equal(model.predict([[3, 0.5, 8]]), [[0.5, 0, 0, 0, 1, 0, 0, 0, 1]])


def test_the_gradient_is_that_of_the_copied_columns(backend):
    model = fn.Sequential(P.OneHot([0, 2]).fit(X), dtype="float64", backend=backend)
    model.forward(X)
    dy = np.arange(36.0).reshape(4, 9)
    expected = np.zeros((4, 3))
    expected[:, 1] = dy[:, 0]
    np.testing.assert_array_equal(model.backward(dy), expected)


def test_a_model_of_an_unfitted_one_needs_its_sizes():
    refused(
        lambda: fn.Sequential(P.OneHot(num_features=2), fn.Linear(3, 1)),
        UsageError,
        "does not know its categories; fit it first, or give sizes",
    )
    refused(lambda: fn.Sequential(P.OneHot()), UsageError, "does not know its number of features")
    model = fn.Sequential(P.OneHot([0, 2], [3, 3], 3), fn.Linear(9, 1), seed=0)
    refused(lambda: model.predict(X), UsageError, "layer 0 .OneHot. is not fitted")
    model[0].fit(X)
    assert model.predict(X).shape == (4, 1)
    two = X[[0, 1, 2]]
    refused(
        lambda: model[0].fit(two), DataError, r"^X has \[2, 2\] categories .* sizes is \[3, 3\]"
    )
    assert [c.tolist() for c in model[0].categories_] == [[0, 2, 9], [5, 6, 7]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: P.OneHot([]), r"^columns is \[\]; expected different integers"),
        (lambda: P.OneHot([1, 1]), r"^columns is \[1, 1\]; expected different"),
        (lambda: P.OneHot(3), "^columns is 3; expected integers ≥ 0"),
        (lambda: P.OneHot([3], num_features=3), r"^columns is \[3\]; expected .* \[0, 2\]"),
        (lambda: P.OneHot([0], sizes=[2, 3], num_features=3), r"^sizes is \[2, 3\]"),
        (lambda: P.OneHot(sizes=[0]), "^sizes is 0; expected an integer ≥ 1"),
    ],
)
def test_refusals(make, message):
    refused(make, HyperparameterError, message)


def test_data_that_have_no_categories():
    refused(lambda: P.OneHot([5]).fit(X), ShapeError, "^X has 3 features and columns is")
    close = np.array([[2.0**24], [2.0**24 + 1]])
    refused(lambda: P.OneHot().fit(close), DataError, "^column 0 of X .* one number in float32")
    many = np.arange(2.0**16 + 1)[:, None]
    refused(lambda: P.OneHot().fit(many), DataError, "^column 0 of X has 65537 categories")
