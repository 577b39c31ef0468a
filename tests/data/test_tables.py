"""Tables and columns of polars and Arrow: what converts exactly is taken, all else is named."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import DataError

pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")

ROWS = [0.5, -1.0, 2.0]
TAKEN = {  # a column as polars keeps it, and its numbers
    "Float32": (pl.Series(ROWS, dtype=pl.Float32), ROWS),
    "Float64": (pl.Series(ROWS), ROWS),
    "Int8": (pl.Series([3, -4, 5], dtype=pl.Int8), [3, -4, 5]),
    "UInt64": (pl.Series([3, 4, 5], dtype=pl.UInt64), [3, 4, 5]),
    "Boolean": (pl.Series([True, False, True]), [1, 0, 1]),
}
MISSING = {
    "Int64": pl.Series([1, None, 3]),
    "Float64": pl.Series([1.0, None, 3.0]),
    "Boolean": pl.Series([True, None, False]),
    "String": pl.Series(["a", None, "b"]),
    "Null": pl.Series([None] * 3),
}
NO_NUMBERS = {
    "String": pl.Series(["1", "2", "1"]),
    "Categorical": pl.Series(["a", "b", "a"], dtype=pl.Categorical),
    "Enum": pl.Series(["a", "b", "a"], dtype=pl.Enum(["a", "b"])),
    "Date": pl.Series([datetime.date(2020, 1, 1)] * 3),
    "Datetime": pl.Series([datetime.datetime(2020, 1, 1)] * 3),
    "Duration": pl.Series([datetime.timedelta(1)] * 3),
    "Time": pl.Series([datetime.time(1)] * 3),
    "Decimal": pl.Series(ROWS).cast(pl.Decimal(10, 2)),
    "List": pl.Series([[1.0, 2.0]] * 3),
    "Binary": pl.Series([b"a"] * 3),
}
ARROW = {  # how Arrow calls the dtypes above
    "Float64": "double",
    "Boolean": "bool",
    "Categorical": "dictionary",
    "Enum": "dictionary",
    "Datetime": "timestamp",
    "Binary": "large_binary",
    "List": "large_list",
}


def tables(column):
    """The column beside one of floats, in each library's tables."""
    arrow = column.to_arrow()
    return [
        pl.DataFrame({"first": ROWS, "other": column}),
        pa.table({"first": ROWS, "other": arrow}),
        pa.record_batch({"first": ROWS, "other": arrow}),
    ]


def columns(column):
    """The column alone, in each library's forms."""
    arrow = column.to_arrow()
    return [column, arrow, pa.chunked_array([arrow[:1], arrow[1:]])]


def calls(model, X, y):
    """The public calls that take data, each by what it calls the table."""
    trainer = fn.Trainer(model, fn.MSELoss(), optimizer=fn.SGD(0.0), seed=0)
    return {
        "X of fit": lambda: trainer.fit(X, y, shuffle=False, verbose=0).history["loss"][-1],
        "X of evaluate": lambda: trainer.evaluate(X, y)["loss"],
        "x of predict": lambda: model.predict(X),
        "x of forward": lambda: model.forward(X),
        "x of value_and_grad": lambda: model.value_and_grad(fn.MSELoss(), X, y),
    }


def test_columns_that_convert_exactly(backend):
    model = fn.Sequential(fn.Linear(2, 1), backend=backend, dtype="float64", seed=0)
    for column, numbers in TAKEN.values():
        expected = calls(model, np.column_stack([ROWS, numbers]), np.array(numbers, "d"))
        for X, y in zip(tables(column), columns(column), strict=True):
            for name, call in calls(model, X, y).items():
                np.testing.assert_array_equal(call(), expected[name]())


@pytest.mark.parametrize("kind", MISSING)
def test_missing_values_are_named(kind):
    _check_named(kind, MISSING[kind], "and missing values, which are NaN; fill them or leave")


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_columns_that_are_no_numbers_are_named(kind):
    _check_named(
        kind,
        NO_NUMBERS[kind],
        r"; expected numbers: convert it with cast, or ",
        y_message=r"has dtype \S+; MSELoss takes numbers: convert y to float32$",
    )


def _check_named(kind, column, message, y_message=None):
    model = fn.Sequential(fn.Linear(2, 1), backend="reference", seed=0)
    named = f"has dtype ({kind}|{ARROW.get(kind, kind.lower())}|large_string)[^;]*{message}"
    for X, y in zip(tables(column), columns(column), strict=True):
        for name, call in calls(model, X, np.ones(3)).items():
            refused(call, DataError, f"^column 'other' of {name[0]} {named}")
        given = calls(model, np.ones((3, 2)), y)
        for name in ("X of fit", "X of evaluate", "x of value_and_grad"):
            refused(given[name], DataError, f"^y {y_message or named}")


def test_a_lazy_frame_is_told_to_be_collected():
    lazy = pl.DataFrame({"first": ROWS, "other": ROWS}).lazy()
    model = fn.Sequential(fn.Linear(2, 1), backend="reference", seed=0)
    for name, call in calls(model, lazy, np.ones(3)).items():
        name = name[0]
        message = rf"^{name} is a LazyFrame; expected its values: pass {name}\.collect\(\)$"
        refused(call, DataError, message)


def test_a_column_that_its_library_cannot_convert_is_named():
    column = pl.Series([1, 2, 3], dtype=pl.Int128)
    model = fn.Sequential(fn.Linear(1, 1), backend="reference", seed=0)
    frame = pl.DataFrame({"other": column})
    message = "^column 'other' of x cannot be read as an array: "
    refused(lambda: model.predict(frame), DataError, message)


def test_labels():
    loss, output = fn.CrossEntropyLoss(), np.random.default_rng(0).normal(size=(3, 4))
    for kind in (pl.Int8, pl.UInt32, pl.Int64):
        for labels in columns(pl.Series([2, 0, 3], dtype=kind)):
            assert loss.forward(output, labels) == loss.forward(output, np.array([2, 0, 3]))
    for labels in columns(NO_NUMBERS["Categorical"]):
        numbers = r"classes, y = np\.unique\(y, return_inverse=True\) numbers the classes"
        refused(lambda y=labels: loss.forward(output, y), DataError, f"^y has dtype .*{numbers}")
        assert np.unique(labels, return_inverse=True)[1].tolist() == [0, 1, 0]
