"""Fits of sparse rows, whose elements the first layer reads: on c the bits of a fit of dense rows."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.backends import executor
from fastnet.data.sparse import SparseRows
from fastnet.plan.instructions import kernels_of

sparse = pytest.importorskip("scipy.sparse")

WIDTH = 301
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def matrix(rows=70, width=WIDTH, density=0.02):
    """CSR with rows and columns without elements, and a column that all other rows have."""
    made = sparse.random(rows, width, density, format="lil", random_state=3)
    made[:, 7] = 1.5
    made[2], made[rows - 1], made[:, 5], made[:, width - 1] = 0, 0, 0, 0
    made = made.tocsr()
    made.eliminate_zeros()
    return made


def labels(rows):
    return np.random.default_rng(0).integers(0, 3, rows)


def usual(width):
    return fn.Linear(width, 19), fn.BatchNorm1d(19), fn.ReLU(), fn.Linear(19, 3)


def everything(
    X, y, *, layers=None, optimizer=None, dtype="float32", backend="c", fit=None, trainer=None
):
    """What a fit makes of the data: records, parameters, gradients, optimizer's state, predictions."""
    model = fn.Sequential(*(layers or usual)(X.shape[1]), dtype=dtype, backend=backend, seed=1)
    made = fn.Trainer(
        model, fn.CrossEntropyLoss(), optimizer or fn.Adam(0.01), seed=2, **trainer or {}
    )
    options = {
        "epochs": 3,
        "batch_size": 16,
        "validation_data": (X, y),
        "verbose": 0,
        **(fit or {}),
    }
    made.fit(X, y, **options)
    found = {"records": [list(record.values())[1:-2] for record in made.history.records]}
    found |= {f"grad {n}": g.copy() for n, g in model.grads.items()} | model.state_dict()
    found |= {
        "state": made.optimizer.state_dict(model)["steps"],
        "loss": made.evaluate(X, y)["loss"],
    }
    found |= {"batch": made.train_on_batch(X, y), "after": model.predict(X)}
    found |= {"value": model.value_and_grad(made.loss, X, y)}
    model.value_and_grad(made.loss, X, y, accumulate=True)
    return found | {f"sum {n}": g.copy() for n, g in model.grads.items()}


def same(X, y, **options):
    """Assert that a sparse matrix and the dense one give the same bits."""
    found, wanted = (everything(x, y, **options) for x in (X, X.toarray()))
    for name, value in found.items():
        np.testing.assert_array_equal(value, wanted[name], name)


def program_of(X, y, *layers):
    """The kernels of a step on these data."""
    model = fn.Sequential(*layers, backend="c", seed=0)
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), seed=0)
    data = trainer._checked(X, y, None, "X", "y")[0]
    plan = model.training_executor(data, 16, trainer.loss).plan
    return [kernel.name for _, kernel in kernels_of(plan.step)]


c = pytest.mark.skipif(not fn.backends()["c"].available, reason="no backend c")


@c
def test_the_first_linear_layer_reads_elements_where_these_are_few():
    few, many, y = matrix(), matrix(density=0.3), labels(70)
    layers = lambda: (fn.Linear(WIDTH, 5), fn.ReLU(), fn.Linear(5, 3))  # noqa: E731
    of_few = program_of(few, y, *layers())
    assert [name for name in of_few if "linear" in name] == [
        "sparse_linear_forward", "linear_forward", "linear_vjp", "sparse_linear_vjp"
    ]  # fmt: skip
    assert not any("sparse" in name for name in program_of(many, y, *layers()))
    assert not any("sparse" in name for name in program_of(few, y, fn.ReLU(), fn.Linear(WIDTH, 3)))
    assert not any("sparse" in name for name in program_of(few.toarray(), y, *layers()))


def square(width):
    return fn.Linear(width, width)


OPTIMIZERS = {
    "Adam": lambda: fn.Adam(0.01),
    "AdamW": lambda: fn.AdamW(0.01, weight_decay=0.1),
    "SGD": lambda: fn.SGD(0.1),
    "SGD with decay": lambda: fn.SGD(0.1, weight_decay=0.1),
    "momentum": lambda: fn.SGD(0.1, momentum=0.9),
    "Lion": lambda: fn.Lion(0.01),
    "groups": lambda: fn.SGD(0.1, groups=[{"params": "0.*", "lr": 0.01}]),
    "frozen weight": lambda: fn.SGD(0.1, groups=[{"params": "0.weight", "lr": 0.0}]),
    "schedule": lambda: fn.SGD(fn.schedules.StepLR(0.1, step_size=4, gamma=0.5)),
}


@c
@dtypes
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_makes_the_steps_of_dense_rows(name, dtype):
    same(matrix(), labels(70), optimizer=OPTIMIZERS[name](), dtype=dtype)


@c
@dtypes
@pytest.mark.parametrize("optimizer", [fn.Adam, fn.SGD])
@pytest.mark.parametrize("outputs", [1, 3, 15, 16, 33, 64, 100, 128, 130, 200, 300])
def test_layers_of_every_width(outputs, optimizer, dtype):
    def layers(width):
        return fn.Linear(width, outputs), fn.Tanh(), fn.Linear(outputs, 3)

    same(matrix(), labels(70), layers=layers, optimizer=optimizer(0.01), dtype=dtype)


@c
@pytest.mark.parametrize("optimizer", [fn.Adam, fn.SGD])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 64, 511, 512, 513, 700])
def test_minibatches_of_every_size(rows, optimizer):
    def layers(width):
        return fn.Linear(width, 17), fn.ReLU(), fn.Linear(17, 3)

    fit = {"batch_size": rows, "epochs": 2}
    same(matrix(720), labels(720), layers=layers, optimizer=optimizer(0.01), fit=fit)


@c
@pytest.mark.parametrize("width", [40, 2048, 2049, 5000])
def test_columns_of_every_number(width):
    """Also those that two passes sort."""
    same(matrix(40, width, 1 / 80), labels(40), optimizer=fn.SGD(0.1))


@c
@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads_gives_the_same_bits(threads, monkeypatch):
    monkeypatch.setattr(executor, "WORK_TO_SHARE", 1)
    with fn.threads(threads):
        for optimizer in (fn.Adam(0.01), fn.SGD(0.1)):
            same(matrix(300, 2000, 0.01), labels(300), optimizer=optimizer)
    found = {}
    for threads in (1, 3):
        with fn.threads(threads):
            found[threads] = everything(matrix(300, 2000, 0.01), labels(300), optimizer=fn.SGD(0.1))
    for name, value in found[1].items():
        np.testing.assert_array_equal(value, found[3][name], name)


@c
@pytest.mark.parametrize(
    "more",
    [
        {"trainer": {"clip_norm": 0.1}},
        {"trainer": {"clip_value": 1e-3}},
        {"trainer": {"averaging": fn.EMA(0.9)}},
        {"fit": {"accumulation_steps": 3}},
        {"fit": {"sample_weight": np.linspace(0.1, 2, 70)}},
        {"fit": {"shuffle": False, "validation_data": None}},
        {"layers": lambda width: [fn.Linear(width, 3, bias=False)]},
        {"layers": lambda width: [fn.Linear(width, 8), fn.BatchNorm1d(8), fn.Linear(8, 3)]},
        {"layers": lambda width: [square(width), fn.ReLU(), fn.Linear(width, 3)]},
    ],
    ids=[
        "norm",
        "value",
        "average",
        "accumulation",
        "weights",
        "in order",
        "no bias",
        "folded",
        "wide",
    ],
)
@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_whatever_else_a_step_does(more, optimizer):
    same(matrix(), labels(70), optimizer=OPTIMIZERS[optimizer](), **more)


@c
def test_rows_without_elements_train_the_bias_alone():
    X = sparse.csr_matrix((40, WIDTH))
    same(X, labels(40), optimizer=fn.SGD(0.1))
    same(X, labels(40), optimizer=fn.Adam(0.1))


def of_other_calls(X, y, tmp_path):
    """What other ways of training make of the data."""
    found = {}

    def made(loss=None, **options):
        layers = fn.Linear(WIDTH, 9), fn.BatchNorm1d(9), fn.ReLU(), fn.Linear(9, 3)
        model = fn.Sequential(*layers, backend="c", seed=1)
        return fn.Trainer(model, loss or fn.CrossEntropyLoss(), fn.SGD(0.1), seed=2, **options)

    def square(output, labels):
        error = output - np.eye(3)[labels]
        return float((error**2).mean()), 2 * error / error.size

    trainer = made(fn.FunctionLoss(square), metrics={"mean": lambda y, output: output.mean()})
    trainer.fit(X, y, 2, 16, (X, y), verbose=0)
    found["function"] = trainer.history.history["val_loss"], trainer.history.history["mean"]
    trainer = made(averaging=fn.EMA(0.9, evaluate=True))
    trainer.fit(X, y, 2, 16, (X, y), verbose=0)
    found["average"] = trainer.history.history["val_loss"]
    found["averaged"] = trainer.averaged_model(X).predict(X)
    trainer = made()
    trainer.fit_full_batch(X, y, "gradient-descent", max_iter=3)
    found["full batch"] = trainer.model.predict(X)
    found["range test"] = trainer.find_lr(X, y, 16, steps=9).losses
    path = tmp_path / f"{type(X).__name__}.safetensors"
    trainer.fit(X, y, 2, 16, checkpoint=path, verbose=0)
    found["saved"] = fn.Trainer.load(path).evaluate(X, y)["loss"]
    trainers = [made(), made()]
    histories = fn.fit_many(
        [each.model for each in trainers],
        X,
        y,
        losses=fn.CrossEntropyLoss(),
        optimizers=[fn.SGD(0.1), fn.Adam(0.01)],
        seeds=[1, 2],
        rows=[np.arange(40), np.arange(20, 70)],
        validation="rest",
        epochs=2,
        verbose=0,
    )
    found["many"] = [history.history["val_loss"] for history in histories]
    return found | {"loop": loop(X, y)}


def loop(X, y):
    model = fn.Sequential(*usual(WIDTH), backend="c", seed=1)
    loss, optimizer = fn.CrossEntropyLoss(), fn.SGD(0.1)
    for xb, yb in fn.batches(X, y, batch_size=16, seed=0):
        model.value_and_grad(loss, xb, yb)
        optimizer.step(model)
    return model.predict(X)


@c
def test_all_ways_of_training_read_sparse_rows(tmp_path):
    found, wanted = (
        of_other_calls(x, labels(70), tmp_path) for x in (matrix(), matrix().toarray())
    )
    for name, value in found.items():
        np.testing.assert_array_equal(value, wanted[name], name)


@c
def test_plain_sgd_leaves_rows_of_columns_that_no_row_has():
    X, y = matrix(), labels(70)
    model = fn.Sequential(fn.Linear(WIDTH, 3), backend="c", seed=0)
    before = model.state_dict()["0.weight"]
    fn.Trainer(model, fn.CrossEntropyLoss(), fn.SGD(0.1), seed=0).fit(X, y, 4, 16, verbose=0)
    moved = (model.state_dict()["0.weight"] != before).any(axis=0)
    np.testing.assert_array_equal(moved, np.diff(X.tocsc().indptr) > 0)


@c
@dtypes
def test_gradients_are_the_references(dtype):
    X, y, found = matrix(600), labels(600), {}
    for backend in ("c", "reference"):
        layers = fn.Linear(WIDTH, 19), fn.ReLU(), fn.Linear(19, 3)
        kind = dtype if backend == "c" else "float64"
        model = fn.Sequential(*layers, dtype=kind, backend=backend, seed=1)
        if backend == "c":
            state = model.state_dict()
        model.load_state_dict(state)
        model.value_and_grad(fn.CrossEntropyLoss(), X, y)
        found[backend] = model.grads
    for name, gradient in found["c"].items():
        scale = np.abs(found["reference"][name]).max()
        error = np.abs(gradient - found["reference"][name]).max() / scale
        assert error < (1e-13 if dtype == "float64" else 1e-5), name


@c
def test_a_label_or_a_column_that_changes_ends_the_fit():
    X, y = matrix(), labels(70)

    class Changes(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            X.indices[3] = self.column

    for column in (-1, WIDTH, 2**31 - 1):
        X, y, changes = matrix(), labels(70), Changes()
        changes.column = column
        model = fn.Sequential(fn.Linear(WIDTH, 3), backend="c", seed=0)
        with pytest.raises(fn.errors.DataError, match=r"^X has a column outside \[0, 301\)"):
            fn.Trainer(model, fn.CrossEntropyLoss()).fit(X, y, 3, 8, callbacks=[changes], verbose=0)


@c
def test_memory_for_elements_comes_in_few_sizes():
    X = matrix()
    rows = SparseRows(X.data, X.shape, "float32", 0.0, X.indptr.astype("i8"), X.indices)
    assert rows.counts.max() == 15
    assert rows.room(10) == 160
    assert rows.room(1 << 28) == 0  # elements have numbers of 32 bits
    counts = [matrix(density=d).getnnz(axis=1).max() for d in (0.02, 0.04)]
    assert counts[0] <= 16 < counts[1]
