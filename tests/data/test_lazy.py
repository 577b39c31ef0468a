"""Inputs that are made a minibatch at a time, sparse and scaled ones: what is made of them, and refused."""

from __future__ import annotations

import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError, ShapeError

sparse = pytest.importorskip("scipy.sparse")

ROWS, COLUMNS = 45, 23


def matrix(dtype="float64", rows=ROWS):
    """CSR with empty rows and an empty column."""
    made = sparse.random(rows, COLUMNS, 0.15, format="csr", random_state=3, dtype=np.float64)
    made.data = (100 * made.data).astype(dtype)
    made = made.tolil()
    made[2], made[rows - 1], made[:, 5] = 0, 0, 0
    return made.tocsr()


def int64(csr):
    csr = csr.copy()
    csr.indices, csr.indptr = csr.indices.astype("i8"), csr.indptr.astype("i8")
    return csr


def backwards(csr):
    """The same matrix with the elements of each row in the other order."""
    csr = csr.copy()
    for begin, end in zip(csr.indptr[:-1], csr.indptr[1:], strict=True):
        csr.indices[begin:end] = csr.indices[begin:end][::-1].copy()
        csr.data[begin:end] = csr.data[begin:end][::-1].copy()
    csr.has_sorted_indices = csr.has_canonical_format = True  # an old flag
    return csr


def twice(csr):
    """The same matrix, each element as two halves."""
    data, indices = np.repeat(csr.data / 2, 2), np.repeat(csr.indices, 2)
    return sparse.csr_matrix((data, indices, 2 * csr.indptr), shape=csr.shape)


def spare(csr):
    """The same matrix with room behind its elements."""
    csr = csr.copy()
    csr.data = np.append(csr.data, [np.nan] * 3)
    csr.indices = np.append(csr.indices, np.full(3, 10**6, csr.indices.dtype))
    return csr


FORMS = {
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc": lambda csr: csr.tocsc(),
    "coo": lambda csr: csr.tocoo(),
    "lil": lambda csr: csr.tolil(),
    "dok": lambda csr: csr.todok(),
    "int64": int64,
    "backwards": backwards,
    "twice": twice,
    "spare": spare,
    "read-only": lambda csr: csr,
}


class Everything:
    """What fits, evaluations and predictions make of inputs; `same` compares, on c to the bit."""

    def __init__(self, backend, X, y, dtype, *, weights=None, loss=None):
        layers = (
            fn.Linear(COLUMNS, 9),
            fn.BatchNorm1d(9),
            fn.ReLU(),
            fn.Dropout(0.2),
            fn.Linear(9, 3),
        )
        model = fn.Sequential(*layers, dtype=dtype, backend=backend, seed=1)
        loss = fn.CrossEntropyLoss() if loss is None else loss
        trainer = fn.Trainer(model, loss, fn.Adam(0.01), seed=2)
        data = X, y, *([] if weights is None else [weights])
        trainer.fit(X, y, 2, 8, data, sample_weight=weights, verbose=0)
        self.found = {"epochs": [list(record.values())[1:-2] for record in trainer.history.records]}
        self.found |= {"loss": trainer.evaluate(X, y, sample_weight=weights)["loss"]}
        self.found |= {"batch": trainer.train_on_batch(X, y), "predict": model.predict(X, 7)}
        self.found |= {"forward": model.forward(X), **model.state_dict()}
        self.found |= {"value": model.value_and_grad(trainer.loss, X, y), **grads(model)}

    def same(self, other, backend):
        for name, value in self.found.items():
            if backend == "c":
                np.testing.assert_array_equal(value, other.found[name], name)
            else:
                np.testing.assert_allclose(value, other.found[name], 1e-3, 1e-4, err_msg=name)


def grads(model):
    return {f"gradient of {name}": grad.copy() for name, grad in model.grads.items()}


def labels(rows=ROWS):
    return np.random.default_rng(0).integers(0, 3, rows)


@pytest.mark.contract
@pytest.mark.parametrize("kind", ["sparse", "scaled"])
def test_a_few_rows(backend, kind):
    X = sparse.random(7, 5, 0.4, format="csr", random_state=1)
    images = (X.toarray() * 255).astype("u1")
    given, dense = (X, X.toarray()) if kind == "sparse" else (fn.Scaled(images, 0.5), images * 0.5)
    found = []
    for x in (given, dense):
        model = fn.Sequential(fn.Linear(5, 3), backend=backend, seed=0)
        trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.SGD(0.1), seed=0)
        options = {"batch_size": 4, "sample_weight": np.linspace(0.5, 1, 7), "verbose": 0}
        trainer.fit(x, labels(7), 2, **options)
        found.append([*trainer.history.history["loss"], *model.predict(x).ravel()])
    np.testing.assert_allclose(*found, 1e-5, 1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_sparse_matrix_is_read_as_the_dense_one(backend, form):
    X, y = matrix(), labels()
    given = FORMS[form](X.copy())
    if form == "read-only":
        for part in (given.data, given.indices, given.indptr):
            part.flags.writeable = False
    before = given.copy()
    Everything(backend, given, y, "float32").same(
        Everything(backend, X.toarray(), y, "float32"), backend
    )
    assert (given != before).nnz == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("values", ["float32", "float64", "uint8", "int16", "bool"])
def test_values_of_any_dtype_are_read_as_dense_ones(backend, values, dtype):
    X, y = matrix(values), labels()
    w = np.random.default_rng(1).uniform(0.5, 2, ROWS)
    both = (Everything(backend, x, y, dtype, weights=w) for x in (X, X.toarray()))
    next(both).same(next(both), backend)


def test_a_loss_in_python_sees_the_same_rows(backend):
    def square(output, y):
        error = output - np.eye(3)[y]
        return float((error**2).mean()), 2 * error / error.size

    X, y, loss = matrix(), labels(), fn.FunctionLoss(square)
    both = (Everything(backend, x, y, "float64", loss=loss) for x in (X, X.toarray()))
    next(both).same(next(both), backend)


def test_rows_of_many_nets(backend):
    X, y, rows = matrix(), labels(), [np.arange(30), np.arange(10, 45)]

    def losses(x):
        models = [fn.Sequential(fn.Linear(COLUMNS, 3), backend=backend, seed=i) for i in (0, 1)]
        options = {"rows": rows, "validation": "rest", "epochs": 2, "verbose": 0}
        found = fn.fit_many(models, x, y, losses=fn.CrossEntropyLoss(), seeds=[0, 1], **options)
        return [history.history["val_loss"] for history in found]

    np.testing.assert_allclose(losses(X), losses(X.toarray()), 1e-6 if backend != "c" else 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64", "sparse"])
def test_scaled_inputs_are_those_of_a_product_in_the_models_dtype(backend, kind, dtype):
    X, y, factor = matrix(), labels(), np.dtype(dtype).type(1 / 255)
    if kind != "sparse":
        X = np.random.default_rng(0).integers(0, 256, X.shape).astype(kind)
    dense = (X.toarray() if kind == "sparse" else X).astype(dtype) * factor
    both = (Everything(backend, x, y, dtype) for x in (fn.Scaled(X, 1 / 255), dense))
    next(both).same(next(both), backend)


@pytest.mark.parametrize("kind", ["sparse", "scaled", "both"])
def test_minibatches_for_loops_are_of_the_same_kind(backend, kind):
    X, y = matrix(), labels()
    given = {"sparse": X, "scaled": fn.Scaled(X.toarray(), 0.5), "both": fn.Scaled(X, 0.5)}[kind]
    model, trainer = model_and_trainer(backend)
    for xb, yb in fn.batches(given, y, batch_size=8, seed=0):
        assert isinstance(xb, type(given))
        trainer.train_on_batch(xb, yb)
    other, trainer = model_and_trainer(backend)
    trainer.fit(given, y, batch_size=8, verbose=0)
    np.testing.assert_array_equal(model.predict(given), other.predict(given))
    (alone,) = fn.batches(given, batch_size=99)
    assert isinstance(alone, type(given))
    with pytest.raises(ShapeError, match="X has 45 rows and y has 44"):
        fn.batches(given, y[1:])


def test_no_copy_is_made_of_images():
    X, y = np.zeros((4000, 784), np.uint8), np.zeros(4000, np.int64)
    trainer = fn.Trainer(fn.Sequential(fn.Linear(784, 3), seed=0), fn.CrossEntropyLoss(), seed=0)
    trainer.fit(fn.Scaled(X[:64], 1 / 255), y[:64], verbose=0)
    tracemalloc.start()
    try:
        trainer.fit(fn.Scaled(X, 1 / 255), y, verbose=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < X.nbytes / 2


# What is refused, before anything has changed.


def model_and_trainer(backend, dtype="float32"):
    model = fn.Sequential(fn.Linear(COLUMNS, 3), backend=backend, dtype=dtype, seed=0)
    return model, fn.Trainer(model, fn.CrossEntropyLoss(), seed=0)


@contextmanager
def refuses(kind, message, model):
    """An error with these words, and a model that stays as it is."""
    before = model.state_dict()
    with pytest.raises(kind, match=message):
        yield
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def with_parts(**parts):
    """A matrix, of which parts are replaced where SciPy does not look."""
    made = matrix()
    for name, change in parts.items():
        array = np.array(getattr(made, name))
        change(array)
        setattr(made, name, array)
    return made


def moved(made, name, value):
    """A matrix, one of whose places is another now."""
    getattr(made, name)[3] = value
    return made


def put(place, value):
    def change(array):
        array[place] = value

    return change


class Bare:
    """CSR's parts alone."""

    format = "csr"

    def __init__(self, **parts):
        csr = matrix()
        known = {"indptr": csr.indptr, "indices": csr.indices, "data": csr.data, "shape": csr.shape}
        self.__dict__.update(known | parts)


WRONG = {
    "column beyond": (
        with_parts(indices=put(3, COLUMNS)),
        r"indices of X holds the column 23; .* \[0, 23\)",
    ),
    "column below": (with_parts(indices=put(3, -1)), "indices of X holds the column -1"),
    "indptr falls": (
        with_parts(indptr=put(3, 10**6)),
        "indptr of X has 46 numbers; .* never falling",
    ),
    "indptr begins late": (with_parts(indptr=put(0, 1)), "indptr of X .* from 0 on"),
    "indptr short": (Bare(indptr=np.zeros(3, int)), "indptr of X has 3 numbers; expected 46"),
    "indptr of floats": (Bare(indptr=np.zeros(46)), "indptr of X has dtype float64"),
    "too few values": (
        Bare(data=np.zeros(2)),
        r"indices and data of X have shapes \(\d+,\) and \(2,\)",
    ),
    "NaN": (
        with_parts(data=put(4, np.nan)),
        r"X holds 1 values that are NaN.*is nan at index \(\d+, \d+\)",
    ),
    "infinity": (with_parts(data=put(4, -np.inf)), "X holds 1 values .*the first is -inf"),
    "too large": (with_parts(data=put(4, 1e39)), "too large for float32"),
    "row of coo": (
        moved(matrix().tocoo(), "row", 10**9),
        r"row of X holds 1000000000; .* \[0, 45\)",
    ),
    "column of coo": (moved(matrix().tocoo(), "col", -5), "col of X holds -5"),
    "row of csc": (moved(matrix().tocsc(), "indices", 10**9), "X is a damaged csc_matrix: "),
    "indptr of csc": (moved(matrix().tocsc(), "indptr", 10**9), "X is a damaged csc_matrix: "),
    "column of bsr": (
        moved(matrix().tobsr((1, 1)), "indices", 10**9),
        "X is a damaged bsr_matrix: ",
    ),
    "row of lil": (
        moved(matrix().tolil(), "rows", [10**6]),
        "X is a damaged lil_matrix: rows and data",
    ),
    "complex": (matrix().astype(complex), "data of X has dtype complex128; expected numbers"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_damaged_matrix_is_refused(backend, what):
    X, message = WRONG[what]
    model, trainer = model_and_trainer(backend)
    with refuses(DataError, message, model):
        trainer.fit(X, labels(), verbose=0)
    with pytest.raises(DataError):
        model.predict(X)


def test_parts_of_csr_are_enough(backend):
    model, _ = model_and_trainer(backend)
    np.testing.assert_array_equal(model.predict(Bare()), model.predict(matrix().toarray()))


def test_other_shapes_are_refused(backend):
    model, trainer = model_and_trainer(backend)
    with refuses(ShapeError, r"X has shape \(45, 22\), expected \(n, 23\)", model):
        trainer.fit(matrix()[:, :-1], labels(), verbose=0)
    with refuses(ShapeError, "X has 45 rows and y has 44", model):
        trainer.fit(matrix(), labels()[:-1], verbose=0)
    with refuses(DataError, "empty; expected at least one row", model):
        trainer.fit(matrix()[:0], labels()[:0], verbose=0)
    with refuses(ShapeError, r"X has shape \(45,\)", model):
        trainer.evaluate(fn.Scaled(labels(), 2), labels())


@pytest.mark.parametrize("column", [-1, COLUMNS, 2**31 - 1])
def test_a_column_that_changes_during_a_fit_is_refused(backend, column):
    X, y = sparse.csr_matrix(np.ones((40, COLUMNS))), np.zeros(40, int)
    _, trainer = model_and_trainer(backend)

    class Changes(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            X.indices[17 * COLUMNS + 4] = column

    message = r"^X has a column outside \[0, 23\): it was changed during training$"
    with pytest.raises(DataError, match=message):
        trainer.fit(X, y, 3, 8, shuffle=False, callbacks=[Changes()], verbose=0)


def test_a_scale_has_its_range(backend):
    given = fn.Scaled(matrix(), 1)
    given.scale = "2"
    model, trainer = model_and_trainer(backend)
    with refuses(HyperparameterError, "scale is '2'; expected a finite number", model):
        trainer.fit(given, labels(), verbose=0)
    X, y = np.full((4, COLUMNS), 2.0), np.zeros(4, int)
    for scale in (1e-40, 1e39):
        with refuses(HyperparameterError, "the scale of X is .* normal number of float32", model):
            trainer.fit(fn.Scaled(X, scale), y, verbose=0)
    with refuses(DataError, r"X holds 2.0, which times the scale 3e\+38 is too large", model):
        trainer.fit(fn.Scaled(X, 3e38), y, verbose=0)
    with refuses(DataError, "X is a Scaled of a Scaled; expected one of an array", model):
        trainer.fit(fn.Scaled(fn.Scaled(X, 2), 2), y, verbose=0)
    with refuses(DataError, "X holds 4 values that are NaN", model):
        trainer.fit(fn.Scaled(np.where(np.eye(4, COLUMNS, 3), np.nan, X), 2), y, verbose=0)
