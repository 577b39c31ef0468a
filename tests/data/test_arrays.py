"""What users hold data in: frames, series, sparse matrices; what is taken and what is named."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import DataError

pd = pytest.importorskip("pandas")
sparse = pytest.importorskip("scipy.sparse")

FLOATS = [0.5, -1.0, 2.0]
COLUMNS = {  # a column as pandas keeps it, and its numbers
    "bool": (np.array([True, False, True]), [1, 0, 1]),
    "int8": (np.array([3, -4, 5], "i1"), [3, -4, 5]),
    "uint64": (np.array([3, 4, 5], "u8"), [3, 4, 5]),
    "float32": (np.array(FLOATS, "f4"), FLOATS),
    "Int64": (pd.array([1, 2, 3], dtype="Int64"), [1, 2, 3]),
    "boolean": (pd.array([True, False, True], dtype="boolean"), [1, 0, 1]),
    "Float64": (pd.array(FLOATS, dtype="Float64"), FLOATS),
    "category": (pd.Categorical([7, 9, 7]), [7, 9, 7]),
    "sparse": (pd.arrays.SparseArray([0.0, 0.0, 4.0]), [0, 0, 4]),
}
REFUSED = {  # a column, and what is said of it
    "strings": (["a", "b", "a"], "has dtype .*; expected numbers: .*pandas.get_dummies"),
    "categories": (
        pd.Categorical(["a", "b", "a"]),
        "has dtype category; expected numbers: .*dummies",
    ),
    "dates": (pd.to_datetime(["2020"] * 3), r"has dtype datetime64.*; expected numbers"),
    "objects": ([True, None, False], r"has dtype object; .*astype\('float32'\)"),
    "no integer": (pd.array([1, None, 3], dtype="Int64"), "has dtype Int64 and missing values"),
    "no bool": (
        pd.array([True, None, False], dtype="boolean"),
        "has dtype boolean and missing values",
    ),
    "no float": (pd.array([1.5, None, 3], dtype="Float64"), "has dtype Float64 and missing values"),
}


def frame(column):
    return pd.DataFrame({"first": FLOATS, "other": column})


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_that_convert_exactly(backend, kind):
    column, numbers = COLUMNS[kind]
    model = fn.Sequential(fn.ScaledTanh(), backend=backend, dtype="float64")
    given = np.column_stack([FLOATS, numbers])
    np.testing.assert_array_equal(model.predict(frame(column)), model.predict(given))
    alone = pd.DataFrame({"a": column, "b": column})
    both = np.column_stack([numbers, numbers]).astype("d")
    np.testing.assert_array_equal(model.predict(alone), model.predict(both))


def test_frames_of_two_columns_of_one_name():
    X = pd.concat([frame([True, False, True])] * 2, axis=1)
    model = fn.Sequential(fn.LeakyReLU(1.0))
    np.testing.assert_array_equal(model.predict(X)[:, 3], [1, 0, 1])


@pytest.mark.parametrize("kind", REFUSED)
def test_columns_that_do_not_are_named(kind):
    column, message = REFUSED[kind]
    model = fn.Sequential(fn.Linear(2, 1), backend="reference", seed=0)
    trainer = fn.Trainer(model, fn.MSELoss())
    X, good = frame(column), frame(FLOATS)
    for name, call in {
        "X": lambda: trainer.fit(X, np.ones((3, 1)), verbose=0),
        "x": lambda: model.predict(X),
        "y": lambda: trainer.fit(good, X, verbose=0),
    }.items():
        refused(call, DataError, f"^column 'other' of {name} {message}")


@pytest.mark.parametrize("kind", ["bool", "int8", "Int64", "boolean", "category"])
def test_labels_in_a_series(kind):
    column, numbers = COLUMNS[kind]
    labels = pd.Series(column).map(lambda v: int(v) % 2) if kind == "int8" else pd.Series(column)
    classes = 10
    loss, output = fn.CrossEntropyLoss(), np.random.default_rng(0).normal(size=(3, classes))
    expected = [n % 2 for n in numbers] if kind == "int8" else numbers
    assert loss.forward(output, labels) == loss.forward(output, np.array(expected))


@pytest.mark.parametrize(
    "labels", [["a", "b", "a"], pd.Series(["a", "b", "a"]), [b"a", b"b", b"a"]]
)
@pytest.mark.parametrize("loss", [fn.CrossEntropyLoss(), fn.NLLLoss(), fn.MultiMarginLoss()])
def test_names_of_classes_are_told_how_to_be_numbers(loss, labels):
    message = r"^y has dtype .*; .*classes, y = np\.unique\(y, return_inverse=True\)"
    refused(lambda: loss.forward(np.eye(3), labels), DataError, message)


@pytest.mark.parametrize("loss", [fn.CrossEntropyLoss(), fn.NLLLoss(ignore_index=-1)])
def test_bools_are_labels(backend, loss):
    y = np.array([True, False, True])
    model = fn.Sequential(fn.Linear(3, 2), fn.LogSoftmax(), backend=backend, seed=0)
    found = [model.value_and_grad(loss, np.eye(3), labels) for labels in (y, y.astype(int))]
    assert found[0] == found[1]


@pytest.mark.parametrize("make", ["csr_matrix", "csc_array", "coo_matrix", "dok_array"])
def test_sparse_targets_are_named(make):
    made = getattr(sparse, make)(np.eye(3))
    model = fn.Sequential(fn.Linear(3, 3), backend="reference", seed=0)
    fit = fn.Trainer(model, fn.MSELoss()).fit
    model.forward(np.eye(3))
    for name, call in {
        "dy": lambda: model.backward(made),
        "y": lambda: model.value_and_grad(fn.MSELoss(), np.eye(3), made),
        "validation y": lambda: fit(np.eye(3), np.eye(3), validation_data=(np.eye(3), made)),
    }.items():
        message = rf"^{name} is a sparse {make}; .* pass {name.split()[-1]}\.toarray\(\)$"
        refused(call, DataError, message)


class Unreadable:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("not today")


def test_what_cannot_be_read_is_named():
    model = fn.Sequential(fn.Linear(3, 3), backend="reference", seed=0)
    refused(lambda: model.predict(Unreadable()), DataError, "^x cannot be read .*: not today$")
