"""Data and calls that are refused, by which error with which words, and that change nothing."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest
from refusals import NOT_INTEGERS, refused

import fastnet as fn
from fastnet.data import arrays
from fastnet.errors import (
    DataError,
    HyperparameterError,
    ShapeError,
    StateDictError,
    UsageError,
    shown,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3)).astype("f")
LABELS = np.array([0, 1, 0, 1, 1, 0])
TARGETS = RNG.normal(size=(6, 1)).astype("f")
NLL, MSE = fn.CrossEntropyLoss(), fn.MSELoss()


class World:
    """Models and a layer that have been used, each with values, gradients and a pending backward."""

    def __init__(self, backend):
        first = fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Dropout(0.5)
        self.model = fn.Sequential(*first, fn.Linear(4, 2), backend=backend, seed=1)
        self.regressor = fn.Sequential(fn.Linear(3, 1), backend=backend, seed=1)
        self.layer, self.norm = fn.Linear(3, 2), fn.BatchNorm1d(3)
        self.norm.reset_parameters(seed=1)
        self.layer.reset_parameters(seed=1)
        for model in (self.model, self.regressor):
            model.backward(np.ones_like(model.forward(X)))
            model.forward(X)
        for layer in (self.layer, self.norm):
            layer.backward(np.ones_like(layer.forward(X)))
            layer.forward(X)

    def parts(self):
        return self.model, self.regressor, self.layer, self.norm

    def bits(self):
        return [
            {name: array.tobytes() for name, array in named.items()}
            for part in self.parts()
            for named in (part.state_dict(), part.grads)
        ]

    def later(self):
        """What its parts do next: with what is pending, with their values and with their draws."""
        outputs = []
        for part in self.parts():
            outputs.append(part.backward(np.ones((6, 1)) * np.ones(part.output_shape((3,)))))
            outputs.append(part.forward(X))
        outputs.append(self.model.predict(X))
        return [output.tobytes() for output in outputs]

    def fit(self, X, y, **options):
        return fn.Trainer(self.model, NLL).fit(X, y, **{"verbose": 0, **options})

    def regress(self, X, y, **options):
        return fn.Trainer(self.regressor, MSE).fit(X, y, **{"verbose": 0, **options})


@pytest.fixture
def world(backend):
    return World(backend)


@pytest.fixture
def unchanged(world, backend):
    """Asks afterwards whether the world is as it was, and as one where nothing was refused."""
    before, data = world.bits(), [a.copy() for a in (X, LABELS, TARGETS)]
    yield
    assert world.bits() == before
    assert world.later() == World(backend).later()
    for now, then in zip((X, LABELS, TARGETS), data, strict=True):
        np.testing.assert_array_equal(now, then)


def kept(value):
    """A copy of an array, or of its text, to see later that nobody has written to it."""
    return value.tobytes() if isinstance(value, np.ndarray) else repr(value)


# Inputs.

INPUTS = {
    "forward": ("x", lambda w, x: w.model.forward(x)),
    "predict": ("x", lambda w, x: w.model.predict(x)),
    "value_and_grad": ("x", lambda w, x: w.model.value_and_grad(NLL, x, LABELS)),
    "fit": ("X", lambda w, x: w.fit(x, LABELS)),
    "validation": ("validation X", lambda w, x: w.fit(X, LABELS, validation_data=(x, LABELS))),
    "evaluate": ("X", lambda w, x: fn.Trainer(w.model, NLL).evaluate(x, LABELS)),
    "layer": ("Linear: x", lambda w, x: w.layer.forward(x)),
    "loss": ("output", lambda w, x: NLL.forward(x, LABELS)),
}
MODELS = [entry for entry in INPUTS if entry not in ("layer", "loss")]  # not those that are alone
WIDTHS = {"layer": r"\(n, features\)", "loss": r"\(n, features\)"}


def spoiled(value, array=X):
    array = array.astype("f8")
    array[2, -1] = value
    return array


BAD_SHAPES = [X[0], X[:, :, None], np.float32(3.0), 3, [], X[:0, 0]]
BAD_KINDS = [
    (X.astype(complex), "complex"),
    (X.astype(object), "object"),
    (X.astype(str), "<U"),
    (X.astype("M8[s]"), "datetime64"),
    (None, "object"),
    ("spam", "<U4"),
    ({"a": 1}, "object"),
]
BAD_VALUES = [np.nan, np.inf, -np.inf, 1e39]


@pytest.mark.usefixtures("unchanged")
class TestInputs:
    @pytest.mark.parametrize("entry", MODELS)
    def test_width(self, world, entry):
        name, call = INPUTS[entry]
        for bad in (X[:, :2], np.hstack([X, X]), X[:, :0]):
            message = rf"^{name} has shape \(6, {bad.shape[1]}\), expected \(n, 3\)$"
            refused(lambda bad=bad: call(world, bad), ShapeError, message)

    def test_width_of_a_layer(self, world):
        message = r"^Linear: rows of shape \(2,\) came, expected in_features = 3$"
        refused(lambda: world.layer.forward(X[:, :2]), ShapeError, message)
        message = r"^BatchNorm1d: rows of shape \(2,\) came, expected num_features = 3$"
        refused(lambda: world.norm.forward(X[:, :2]), ShapeError, message)

    @pytest.mark.parametrize("entry", INPUTS)
    def test_dimensions(self, world, entry):
        name, call = INPUTS[entry]
        wanted = WIDTHS.get(entry, r"\(n, 3\)")
        for bad in BAD_SHAPES:
            came = re.escape(str(np.shape(bad)))
            message = rf"^{name} has shape {came}, expected {wanted}"
            refused(lambda bad=bad: call(world, bad), ShapeError, message)

    def test_a_single_row_gets_a_hint(self, world):
        message = r"has shape \(3,\), expected \(n, 3\); for a single row pass x\[None\]$"
        refused(lambda: world.model.predict(X[0]), ShapeError, message)

    @pytest.mark.parametrize("entry", INPUTS)
    def test_kind(self, world, entry):
        name, call = INPUTS[entry]
        for bad, dtype in BAD_KINDS:
            message = rf"^{name} has dtype {dtype}.*; expected numbers$"
            refused(lambda bad=bad: call(world, bad), DataError, message)

    @pytest.mark.parametrize("entry", INPUTS)
    def test_ragged(self, world, entry):
        name, call = INPUTS[entry]
        message = f"^{name} is not a rectangular array: "
        refused(lambda: call(world, [[1, 2, 3], [4, 5]]), DataError, message)

    @pytest.mark.parametrize("entry", MODELS)
    @pytest.mark.parametrize("value", BAD_VALUES)
    def test_value(self, world, entry, value):
        name, call = INPUTS[entry]
        bad = spoiled(value)
        before = bad.tobytes()
        message = (
            rf"^{name} holds 1 values that are NaN, infinite or too large for float32; "
            rf"the first is {re.escape(str(np.float64(value)))} at index \(2, 2\)$"
        )
        refused(lambda: call(world, bad), DataError, message)
        assert bad.tobytes() == before

    @pytest.mark.parametrize("entry", ["fit", "validation", "evaluate", "value_and_grad"])
    def test_lengths(self, world, entry):
        name, call = INPUTS[entry]
        y = {"validation": "validation y"}.get(entry, "y")
        for rows in (5, 0):
            message = f"^{name} has {rows} rows and {y} has 6; expected as many$"
            refused(lambda rows=rows: call(world, X[:rows]), ShapeError, message)

    def test_no_rows(self, world):
        none = X[:0], LABELS[:0]
        for name, call in {
            "X and y": lambda: world.fit(*none),
            "x and y": lambda: world.model.value_and_grad(NLL, *none),
            "validation X and validation y": lambda: world.fit(X, LABELS, validation_data=none),
            "output and y": lambda: NLL.forward(*none),
        }.items():
            refused(call, DataError, f"^{name} are empty; expected at least one row$")
        for call in (world.model.forward, world.regressor.forward, world.layer.forward):
            refused(lambda call=call: call(X[:0]), ShapeError, r"(no|0) rows.*expected at least")
        assert world.model.predict(X[:0]).shape == (0, 2)

    def test_one_row_that_meets_batchnorm(self, world):
        message = (
            r"^(layer 1 \()?BatchNorm1d\)?: a training minibatch of 1 rows; expected at least 2"
            r"(: .* drop_last=True .*call model\.eval\(\) first| \(or call eval\(\) first\))$"
        )
        refused(lambda: world.model.forward(X[:1]), ShapeError, message)
        refused(lambda: world.norm.forward(X[:1]), ShapeError, message)
        refused(lambda: world.model.value_and_grad(NLL, X[:1], LABELS[:1]), ShapeError, message)
        message = "^X has 1 rows and batch_size is 32; this model has batchnorm"
        refused(lambda: world.fit(X[:1], LABELS[:1]), ShapeError, message)
        message = "^X has 6 rows and batch_size is 1; this model has batchnorm"
        refused(lambda: world.fit(X, LABELS, batch_size=1), ShapeError, message)


# Targets.

LABELLED = {
    "value_and_grad": ("y", lambda w, y: w.model.value_and_grad(NLL, X, y)),
    "fit": ("y", lambda w, y: w.fit(X, y)),
    "validation": ("validation y", lambda w, y: w.fit(X, LABELS, validation_data=(X, y))),
    "evaluate": ("y", lambda w, y: fn.Trainer(w.model, NLL).evaluate(X, y)),
    "loss": ("y", lambda w, y: NLL.forward(X[:, :2], y)),
}
BAD_LABELS = [
    (LABELS - 1, DataError, "holds labels from -1 to 0; expected 0 to 1, .* 2 columns"),
    (LABELS * 2, DataError, "holds labels from 0 to 2; expected 0 to 1, .* 2 columns"),
    (LABELS.astype("u8") + 2**63, DataError, "holds labels from 92233720368547758"),
    (LABELS.astype("f"), DataError, r"has dtype float32; .* integer labels: .*astype\('int64'\)"),
    (LABELS.astype(complex), DataError, "has dtype complex128; .* integer labels"),
    (LABELS.astype(object), DataError, "has dtype object; .* integer labels"),
    (
        list("spam!?"),
        DataError,
        r"has dtype <U1; .* labels: .*np\.unique\(y, return_inverse=True\)",
    ),
    (LABELS[:, None], ShapeError, r"has shape \(6, 1\); .* integer labels of shape \(n,\)"),
    (np.eye(2, dtype=int)[LABELS], ShapeError, r"has shape \(6, 2\); .* labels of shape \(n,\)"),
    (np.eye(3)[[0] * 6], ShapeError, r"has shape \(6, 3\); .* or probabilities \(n, 2\)"),
    (np.eye(2)[LABELS] * 1.1, DataError, r"holds numbers from 0.0 to 1.1; .* in \[0, 1\]"),
    (1, ShapeError, r"has shape \(\); .* integer labels of shape \(n,\)"),
    (None, ShapeError, r"has shape \(\); .* integer labels of shape \(n,\)"),
    ([[0], [1, 0]], DataError, "is not a rectangular array: "),
]

OF_FITS = (0, 1, 2, 5, 6)  # of these, those that a fit takes, or refuses by other words
BAD_LABELS_OF_FIT = [
    (
        LABELS.astype("u8") + 2**63,
        DataError,
        r"holds the label \d{19}; expected integers below 2\*\*63",
    ),
    (np.arange(6), DataError, "holds labels from 0 to 5; expected 0 to 1, .* 2 columns"),
    (list("spam!?"), DataError, r"holds 6 different labels, '!', '\?', 'a', .*; expected 2"),
    (list("aaaaaa"), DataError, "holds 1 different labels, 'a'; expected 2"),
    (["a", None] * 3, DataError, "holds None in row 1, a missing label; fill it"),
    (np.array(["a", np.nan] * 3, object), DataError, "holds nan in row 1, a missing label"),
    (["a", 1] * 3, DataError, "holds labels of the types int, str; expected strings, booleans"),
    (LABELS.astype("f").astype(object), DataError, "holds labels of the types float; expected"),
    (np.array([2**70, 1] * 3, object), DataError, "holds integers beyond 64 bits"),
]
BAD_LABELS_LATER = [  # after labels 0 and 1, or before a fit
    (
        LABELS.astype(object) + 1,
        DataError,
        "holds labels from 1 to 2; expected 0 to 1, .* 2 columns",
    ),
    (["a", "b"] * 3, DataError, "holds the label 'a'"),
    (["a", None] * 3, DataError, "holds None in row 1, a missing label; fill it"),
]

REGRESSED = {
    "value_and_grad": ("y", lambda w, y: w.regressor.value_and_grad(MSE, X, y)),
    "fit": ("y", lambda w, y: w.regress(X, y)),
    "validation": ("validation y", lambda w, y: w.regress(X, TARGETS, validation_data=(X, y))),
    "evaluate": ("y", lambda w, y: fn.Trainer(w.regressor, MSE).evaluate(X, y)),
    "loss": ("y", lambda w, y: MSE.forward(TARGETS, y)),
}
BAD_TARGETS = [
    (TARGETS.T, ShapeError, r"has shape \(1, 6\); MSELoss takes the output's shape \(n, 1\)$"),
    (X, ShapeError, r"has shape \(6, 3\); MSELoss takes the output's shape \(n, 1\)$"),
    (TARGETS[..., None], ShapeError, r"has shape \(6, 1, 1\); MSELoss takes .*\(n, 1\)$"),
    (0.5, ShapeError, r"has shape \(\); MSELoss takes the output's shape \(n, 1\)$"),
    (TARGETS.astype(complex), DataError, "has dtype complex64|complex128; MSELoss takes numbers"),
    (TARGETS.astype(object), DataError, "has dtype object; MSELoss takes numbers"),
    (TARGETS.astype(str), DataError, "has dtype <U.*; MSELoss takes numbers"),
    (None, DataError, "has dtype object; MSELoss takes numbers"),
    ([[1.0], [1.0, 2.0]], DataError, "is not a rectangular array: "),
]


@pytest.mark.usefixtures("unchanged")
class TestTargets:
    @pytest.mark.parametrize("entry", LABELLED)
    def test_labels(self, world, entry):
        name, call = LABELLED[entry]
        table = BAD_LABELS
        if entry in ("fit", "validation", "evaluate"):
            more = BAD_LABELS_OF_FIT if entry == "fit" else BAD_LABELS_LATER
            table = [row for i, row in enumerate(BAD_LABELS) if i not in OF_FITS] + more
        for bad, kind, message in table:
            if bad is None and entry == "fit":
                continue  # y is left out then, see train/test_streams.py
            before = kept(bad)
            refused(lambda bad=bad: call(world, bad), kind, rf"^{name} {message}")
            assert kept(bad) == before

    @pytest.mark.parametrize("entry", REGRESSED)
    def test_numbers(self, world, entry):
        name, call = REGRESSED[entry]
        for bad, kind, message in BAD_TARGETS:
            if bad is None and entry == "fit":
                continue  # y is left out then, see train/test_streams.py
            before = kept(bad)
            refused(lambda bad=bad: call(world, bad), kind, rf"^{name} {message}")
            assert kept(bad) == before

    @pytest.mark.parametrize("entry", [entry for entry in REGRESSED if entry != "loss"])
    @pytest.mark.parametrize("value", BAD_VALUES)
    def test_values(self, world, entry, value):
        name, call = REGRESSED[entry]
        message = rf"^{name} holds 1 values that are NaN, infinite .* at index \(2, 0\)$"
        refused(lambda: call(world, spoiled(value, TARGETS)), DataError, message)

    @pytest.mark.parametrize("table", [LABELLED, REGRESSED], ids=["labels", "numbers"])
    def test_lengths(self, world, table):
        good = LABELS if table is LABELLED else TARGETS
        for entry, (name, call) in table.items():
            x = {"validation": "validation X", "loss": "output", "value_and_grad": "x"}
            for rows in (5, 0):
                message = f"^{x.get(entry, 'X')} has 6 rows and {name} has {rows}; expected as many"
                refused(lambda y=good[:rows], call=call: call(world, y), ShapeError, message)


# What is handed to a model besides.


@pytest.mark.parametrize("part", ["model", "regressor", "layer", "norm"])
@pytest.mark.usefixtures("unchanged")
def test_dy(world, part):
    part = getattr(world, part)
    width = part.output_shape((3,))[0]
    good = np.ones((6, width))
    name = "" if isinstance(part, fn.Sequential) else f"{type(part).__name__}: "
    for bad, kind, message in [
        (
            good[:5],
            ShapeError,
            rf"dy has shape \(5, {width}\), expected the output's \(6, {width}\)",
        ),
        (good[:, :0], ShapeError, r"dy has shape \(6, 0\), expected "),
        (good[0], ShapeError, rf"dy has shape \({width},\), expected "),
        (1.0, ShapeError, r"dy has shape \(\), expected "),
        (good.astype(complex), DataError, "dy has dtype complex128; expected numbers"),
        (None, DataError, "dy has dtype object; expected numbers"),
        ([[1], [2, 3]], DataError, "dy is not a rectangular array"),
    ]:
        refused(lambda bad=bad: part.backward(bad), kind, f"^{name}{message}")


@pytest.mark.parametrize("part", ["model", "regressor"])
@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.usefixtures("unchanged")
def test_values_of_dy(world, part, value):
    model = getattr(world, part)
    width = model.output_shape((3,))[0]
    bad = spoiled(value, np.ones((6, width)))
    message = "^dy holds 1 values that are NaN, infinite or too large for float32"
    refused(lambda: model.backward(bad), DataError, message)


def read_only(shape):
    array = np.zeros(shape, "f")
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("call", ["forward", "predict"])
@pytest.mark.usefixtures("unchanged")
def test_out(world, call):
    run = getattr(world.model, call)
    for bad, message in [
        (np.zeros((5, 2), "f"), r"out is float32 of shape \(5, 2\); expected .* shape \(6, 2\)"),
        (np.zeros((6, 2)), r"out is float64 of shape \(6, 2\); expected an ndarray of float32"),
        ([[0.0] * 2] * 6, "out is list of shape None; expected an ndarray of float32"),
        (np.float32(3.0), r"out is float32 of shape \(\); expected an ndarray"),
        (read_only((6, 2)), "out is read-only; expected a writable array"),
    ]:
        before = kept(bad)
        refused(lambda bad=bad: run(X, out=bad), ShapeError, f"^{message}")
        assert kept(bad) == before


COUNTS = {
    "fit": ("batch_size", lambda w, v: w.fit(X, LABELS, batch_size=v)),
    "epochs": ("epochs", lambda w, v: w.fit(X, LABELS, epochs=v)),
    "predict": ("batch_size", lambda w, v: w.model.predict(X, batch_size=v)),
    "evaluate": ("batch_size", lambda w, v: fn.Trainer(w.model, NLL).evaluate(X, LABELS, v)),
    "summary": ("batch_size", lambda w, v: w.model.summary(batch_size=v)),
}


@pytest.mark.parametrize("entry", COUNTS)
@pytest.mark.usefixtures("unchanged")
def test_batch_sizes_and_epochs(world, entry):
    name, call = COUNTS[entry]
    for bad in [0, -1, *NOT_INTEGERS]:
        if bad is None and entry in ("predict", "evaluate"):
            continue  # means the default there
        wanted = f"in [1, {2**40}]" if entry == "summary" else "≥ 1"
        message = re.escape(f"{name} is {shown(bad)}; expected an integer {wanted}")
        refused(lambda bad=bad: call(world, bad), HyperparameterError, f"^{message}$")


@pytest.mark.usefixtures("unchanged")
def test_the_rest_of_a_fit(world):
    for options, kind, message in [
        ({"validation_data": X}, DataError, r"^validation_data must be a pair \(X, y\), or"),
        ({"validation_data": (X,)}, DataError, r"^validation_data must be a pair \(X, y\), or"),
        ({"validation_data": 3}, DataError, r"^validation_data must be a pair \(X, y\), or"),
        ({"restore_best": True}, HyperparameterError, "^restore_best=True needs validation_data"),
        (
            {"batch_size": 7, "drop_last": True},
            DataError,
            "^X has 6 rows, fewer than batch_size = 7, and drop_last=True leaves none",
        ),
    ]:
        refused(lambda options=options: world.fit(X, LABELS, **options), kind, message)


@pytest.mark.usefixtures("unchanged")
def test_what_makes_a_trainer(world):
    for bad, message in [
        ((fn.Linear(3, 2), NLL), r"^model is Linear\(3, 2\); expected a Sequential$"),
        ((None, NLL), "^model is None; expected a Sequential$"),
        ((world.model, "mse"), "^loss is 'mse'; expected a loss, such as MSELoss"),
        ((world.model, fn.MSELoss), "^loss is the class .*; expected a loss, such as MSELoss"),
        ((world.model, NLL, "adam"), "^optimizer is 'adam'; expected an Optimizer$"),
        (
            (world.model, NLL, fn.Adam),
            "^optimizer is the class Adam; expected an Optimizer, such as Adam",
        ),
        ((world.model, NLL, None, {"a": 1}), r"^metrics\['a'\] is 1; expected a function"),
        ((world.model, NLL, None, {"loss": max}), r"^metrics\['loss'\] is .*a name other than"),
        ((world.model, NLL, None, {}, -1), "^seed is -1; expected an integer in "),
    ]:
        refused(lambda bad=bad: fn.Trainer(*bad), HyperparameterError, message)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda w: w.model.value_and_grad("mse", X, LABELS),
            "^loss is 'mse'; expected a loss, such as MSELoss",
        ),
        (
            lambda w: w.model.value_and_grad(fn.MSELoss, X, LABELS),
            r"^loss is the class MSELoss; expected",
        ),
        (lambda w: fn.SGD().step(w.layer), r"^model is Linear\(3, 2\); expected a Sequential"),
        (lambda w: fn.SGD().step(None), "^model is None; expected a Sequential"),
        (
            lambda w: fn.Trainer(w.model, NLL, metrics=[max]),
            r"^metrics holds .*; expected names out of accuracy",
        ),
    ],
    ids=["loss by name", "class of a loss", "layer", "None", "list of metrics"],
)
@pytest.mark.usefixtures("unchanged")
def test_what_is_something_else(world, call, message):
    refused(lambda: call(world), HyperparameterError, message)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("weight", np.ones((3, 2)), r"has shape \(3, 2\), expected \(2, 3\)$"),
        ("bias", [0.0, np.nan], "holds NaN or infinity as float32$"),
        ("bias", ["a", "b"], "has dtype <U1; expected numbers$"),
        ("bias", ["1", "2"], "has dtype <U1; expected numbers$"),
        ("bias", [1j, 0], "has dtype complex128; expected numbers$"),
        ("bias", np.zeros(2, "M8[s]"), r"has dtype datetime64\[s\]; expected numbers$"),
        ("bias", np.zeros(2, "m8[s]"), r"has dtype timedelta64\[s\]; expected numbers$"),
        ("bias", np.array([0.5, 1], object), "has dtype object; expected numbers$"),
        ("bias", np.ma.array([0.5, 1], mask=[1, 0]), "is a masked array with masked values"),
        ("bias", [[1.0], [1.0, 2.0]], "is not a rectangular array: "),
        ("num_batches_tracked", 1.5, "holds values that are no int64$"),
        ("num_batches_tracked", 1e30, "holds values that are no int64$"),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_values_of_a_state_dict(world, name, value, message):
    part = world.norm if name == "num_batches_tracked" else world.layer
    message = rf"^state_dict\['{name}'\] {message}"
    refused(lambda: part.load_state_dict({name: value}, strict=False), StateDictError, message)


@pytest.mark.parametrize("loss", [NLL, lambda y, t: (0.0, y)], ids=["loss", "function"])
@pytest.mark.usefixtures("unchanged")
def test_a_refused_flag_leaves_the_pending_backward(world, loss):
    for bad in (None, "no", 1, [True]):
        refused(
            lambda bad=bad: world.model.value_and_grad(loss, X, LABELS, accumulate=bad),
            HyperparameterError,
            r"^accumulate is .*; expected True or False$",
        )


@pytest.mark.usefixtures("unchanged")
def test_calls_out_of_order(world):
    for call, message in [
        (lambda: fn.Linear(3, 2).backward(X), "^Linear: backward needs a forward before it"),
        (lambda: fn.Sequential(fn.ReLU()).backward(X), "^backward needs a forward before it"),
        (lambda: fn.MSELoss().backward(), "^MSELoss: backward needs a forward before it"),
        (lambda: fn.Sequential(world.model[0]), r"^layer 0 \(Linear\) is part of a model already"),
        (lambda: world.model[0].load_state_dict({}), r"^layer 0 \(Linear\) belongs to a model"),
        (lambda: world.model[0].reset_parameters(), r"^layer 0 \(Linear\) belongs to a model"),
    ]:
        refused(call, UsageError, message)


@pytest.mark.parametrize("shape", [(40_000, 50), (2, 1_000_000)])
@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_a_refusal_of_large_inputs_takes_no_copy_of_them(shape, layout):
    if layout == "strided":
        x = np.ones((shape[0], 2 * shape[1]), "f")[:, ::2]
    else:
        x = np.ones(shape, "f", order=layout)
    x[1, 7], x[-1, -1] = np.nan, -np.inf
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"x holds 2 values .* first is nan at index \(1, 7\)"):
            arrays.check_finite("x", x, np.float32)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 4
