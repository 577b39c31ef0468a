"""Losses that are functions: the same training as with a loss of fastnet's own."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError, ShapeError

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(50, 3))
Y = np.sin(X[:, :2])
WEIGHTS = np.arange(50.0)


def squared_error(y, t, w=None):
    w = np.ones(len(y)) if w is None else w
    share = w[:, None] / y.size  # of weights that a trainer has divided by their mean
    return np.sum(share * (y - t) ** 2), 2 * share * (y - t)


def total(y, t):
    return np.sum((y - t) ** 2), 2 * (y - t)


def correlation(y, t):
    """1 − the correlation of a minibatch: no sum over rows."""
    a, b = y - y.mean(), t - t.mean()
    norms = np.sqrt(np.sum(a * a) * np.sum(b * b))
    r = np.sum(a * b) / norms
    return 1 - r, -(b / norms - r * a / np.sum(a * a))


def distance(y, output):
    return np.abs(output - y).mean()


def model_of(backend="c", **options):
    layers = fn.Linear(3, 8), fn.BatchNorm1d(8), fn.Tanh(), fn.Dropout(0.3), fn.Linear(8, 2)
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=1, **options)


def state_of(model):
    return np.concatenate([v.ravel() for v in model.state_dict().values()])


OPTIONS = {
    "plain": ({}, {}),
    "weights": ({}, {"sample_weight": WEIGHTS}),
    "clipping": ({"clip_norm": 0.1, "clip_value": 0.05}, {}),
    "accumulation": ({"averaging": fn.EMA(0.9)}, {"accumulation_steps": 3}),
    "all": ({"clip_norm": 0.1}, {"accumulation_steps": 2, "sample_weight": WEIGHTS}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_fit_is_that_of_the_same_loss_of_fastnet(backend, name):
    made, fitted = OPTIONS[name]
    ends = []
    for loss in (fn.MSELoss(), squared_error):
        model = model_of(backend)
        optimizer = fn.SGD(0.05, momentum=0.9)
        trainer = fn.Trainer(model, loss, optimizer, {"distance": distance}, seed=3, **made)
        trainer.fit(X, Y, 3, 8, (X, Y), verbose=0, **fitted)
        kept = ("loss", "distance", "val_loss", "val_distance")
        history = [[record[k] for k in kept] for record in trainer.history.records]
        averages = trainer.averaged_model(X) if "averaging" in made else model
        ends.append((state_of(model), history, state_of(averages), trainer.step))
    for got, want in zip(ends[1], ends[0], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_value_and_grad_adds_and_overwrites(backend):
    model, own = model_of(backend).eval(), fn.MSELoss()
    for accumulate in (False, True, False):
        model.value_and_grad(own, X, Y)
        want = {name: (1 + accumulate) * g for name, g in model.grads.items()}
        value = model.value_and_grad(squared_error, X, Y, accumulate=accumulate)
        assert value == pytest.approx(own.forward(model.predict(X), Y), rel=1e-12)
        for name, g in model.grads.items():
            np.testing.assert_allclose(g, want[name], rtol=1e-9, atol=1e-14)


def test_a_loss_of_the_minibatch_as_a_whole(backend):
    model = fn.Sequential(
        fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2), dtype="float64", backend=backend, seed=2
    )
    model.value_and_grad(correlation, X, Y)
    h, got, ends = 1e-6, model.grads["0.weight"][1, 2], []
    for sign in (1, -1):
        moved = copy.deepcopy(model)
        with moved.edit() as values:
            values["0.weight"][1, 2] += sign * h
        ends.append(correlation(moved.predict(X), Y)[0])
    assert got == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6)
    trainer = fn.Trainer(model, correlation, fn.Adam(0.05), seed=1)
    history = trainer.fit(X, Y, 40, 25, verbose=0)
    assert history.records[-1]["loss"] < 0.2 < history.records[0]["loss"]


def test_a_sum_adds_up_over_the_epoch():
    for loss in (fn.FunctionLoss(total, reduction="sum"), total):
        model = fn.Sequential(fn.Linear(3, 2), dtype="float64", seed=1)
        trainer = fn.Trainer(model, loss, fn.SGD(0.0), seed=3)
        want = total(model.predict(X), Y)[0]
        if loss is total:  # taken for a mean of 25 rows
            want /= 2
        assert trainer.fit(X, Y, 1, 25, verbose=0).records[0]["loss"] == pytest.approx(want)
        assert trainer.evaluate(X, Y)["loss"] == pytest.approx(total(model.predict(X), Y)[0])


@pytest.mark.parametrize("kind", ["uint8", "int32", "bool", "int64", "float32", "float64"])
def test_targets_of_any_shape_and_kind(kind):
    targets = RANDOM.integers(2, size=(50, 2, 2)).astype(kind)
    seen = []

    def loss(y, t, w):
        assert not any(part.flags.writeable for part in (y, t, w))
        seen.append((y.dtype, t.dtype, w.dtype, t.shape))
        return 0.0, np.zeros_like(y)

    model = fn.Sequential(fn.Linear(3, 2), dtype="float32")
    trainer = fn.Trainer(model, loss, seed=1)
    trainer.fit(X, targets, 1, 32, shuffle=False, sample_weight=WEIGHTS, verbose=0)
    real = "float32" if kind.startswith("float") else "int64"
    assert seen == [("float32", real, "float32", (rows, 2, 2)) for rows in (32, 18)]
    labels = RANDOM.integers(2, size=50)

    def hinge(y, t):
        sign = np.where(np.arange(2) == t[:, None], 1, -1)
        return np.maximum(0, 1 - sign * y).mean(), -sign * (sign * y < 1) / y.size

    assert np.isfinite(fn.Trainer(model, hinge).fit(X, labels, verbose=0).records[0]["loss"])


def grad_of_row(y, t):
    return 0.0, y[0]


def not_a_number(y, t):
    return np.nan, y


def raises(y, t):
    raise ArithmeticError("no")


def spoiled_gradient(y, t):
    gradient = y.copy()
    gradient[3, 1] = np.nan
    return 0.0, gradient


BAD = [
    (lambda y, t: 3.0, DataError, r"<lambda> returned 3\.0; expected a pair \(loss, gradient\)"),
    (
        lambda y, t: (y, y),
        DataError,
        r"returned an array of shape \(8, 2\) for the loss; expected one number",
    ),
    (lambda y, t: (None, y), DataError, "returned None for the loss; expected one number"),
    (grad_of_row, ShapeError, r"grad_of_row returned .* shape \(2,\) .* shape \(8, 2\)"),
    (lambda y, t: (0.0, y * 1j), ShapeError, "dtype complex128; expected numbers"),
    (lambda y, t: ("0.5", y), DataError, "returned '0.5' for the loss; expected one number"),
    (lambda y, t: (1j, y), DataError, "returned 1j for the loss; expected one number"),
    (lambda y, t: (np.ma.masked, y), DataError, "for the loss; expected one number"),
    (lambda y, t: (0.0, np.ma.masked_less(y, 9)), DataError, "gradient that .* is a masked array"),
    (lambda y, t: (0.0, [[1.0], [1.0, 2.0]]), DataError, "gradient that .* not a rectangular"),
    (
        spoiled_gradient,
        fn.DivergenceError,
        "the gradient that spoiled_gradient returned in step 0 is not finite",
    ),
    (not_a_number, fn.DivergenceError, "the loss of step 0 is nan; its update was not applied"),
    (raises, ArithmeticError, "no"),
    (lambda y, t: (0.0, np.add(y, 1, out=y)), ValueError, "read-only"),
]


@pytest.mark.parametrize(("function", "error", "message"), BAD)
def test_what_a_function_does_wrong_changes_nothing(backend, function, error, message):
    model = model_of(backend)
    trainer = fn.Trainer(model, function)
    before = state_of(model)
    with pytest.raises(error, match=message):
        trainer.fit(X, Y, batch_size=8, verbose=0)
    np.testing.assert_array_equal(state_of(model), before)
    assert trainer.step == 0
    with pytest.raises(error):
        model.value_and_grad(function, X[:8], Y[:8])
    np.testing.assert_array_equal(state_of(model), before)


def test_a_norm_that_is_not_finite_ends_the_fit(backend):
    model = model_of(backend)
    trainer = fn.Trainer(model, lambda y, t: (0.0, np.full_like(y, 1e308)), clip_norm=1.0)
    before = state_of(model)
    with pytest.raises(fn.DivergenceError, match="norm of the gradients of step 0 is"):
        trainer.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(state_of(model), before)


@pytest.mark.parametrize("loss", [3, "mse", None, fn.MSELoss, [squared_error]])
def test_what_is_no_loss(loss):
    model = model_of()
    with pytest.raises(HyperparameterError, match=r"loss is .*; expected a loss, such as MSELoss"):
        fn.Trainer(model, loss)
    with pytest.raises(HyperparameterError, match=r"loss is .*; expected a loss, such as MSELoss"):
        model.value_and_grad(loss, X, Y)


@pytest.mark.parametrize("function", [3, None, dict])
def test_what_is_no_function(function):
    with pytest.raises(HyperparameterError, match=r"function is .*; expected a function"):
        fn.FunctionLoss(function)


@pytest.mark.parametrize(
    "targets", [np.array(["a"] * 50), np.full(50, None), np.zeros(50, complex)]
)
def test_targets_that_are_no_numbers(targets):
    with pytest.raises(DataError, match=r"y has dtype .*; expected numbers"):
        fn.Trainer(model_of(), squared_error).fit(X, targets)


def test_copies_and_what_it_looks_like():
    trainer = fn.Trainer(model_of(), squared_error, seed=1)
    trainer.fit(X, Y, verbose=0)
    other = pickle.loads(pickle.dumps(trainer))
    for each in (trainer, other):
        each.fit(X, Y, 2, verbose=0)
    np.testing.assert_array_equal(state_of(other.model), state_of(trainer.model))
    assert repr(other.loss) == "FunctionLoss(squared_error)"
    assert "reduction='sum'" in repr(fn.FunctionLoss(total, "sum"))


def test_alone_it_is_its_function():
    loss = fn.FunctionLoss(squared_error)
    assert loss.forward(Y, Y + 1) == pytest.approx(1.0)
    np.testing.assert_array_equal(loss.backward(), squared_error(Y, Y + 1)[1])
    with pytest.raises(fn.FastnetError, match="forward before it"):
        loss.backward()


def test_two_functions_of_one_model_do_not_meet():
    model = fn.Sequential(fn.Linear(3, 2), dtype="float64", seed=1)
    first = fn.Trainer(model, squared_error, fn.SGD(0.0))
    second = fn.Trainer(model, fn.FunctionLoss(total, "sum"), fn.SGD(0.0))
    for trainer in (first, second, first):
        want = trainer.evaluate(X, Y)["loss"]
        assert trainer.fit(X, Y, 1, 50, verbose=0).records[-1]["loss"] == pytest.approx(want)
