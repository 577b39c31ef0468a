"""Full-batch fits: against SciPy on an independent net, closed forms, and what must hold on the way."""

from __future__ import annotations

import re
import sys
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from refusals import NOT_FINITE, NOT_INTEGERS, NOT_NUMBERS, arguments, refused

import fastnet as fn
from fastnet.errors import DivergenceError, HyperparameterError, MissingExtra, UsageError, shown
from fastnet.train import full_batch
from fastnet.train.full_batch import METHODS

pytest.importorskip("scipy.optimize")
import scipy.optimize

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = np.tanh(X @ RNG.normal(size=(3, 2))) + 0.1 * RNG.normal(size=(60, 2))
LABELS = (X[:, 0] + 0.5 * RNG.normal(size=60) > 0).astype(int)
WITH_HESSIAN = ("Newton-CG", "trust-ncg", "trust-krylov")
OF_SCIPY = ("L-BFGS-B", "BFGS", "CG", *WITH_HESSIAN)
OF_ANY_LOSS = [name for name in METHODS if name != "levenberg-marquardt"]
SECOND_ORDER = ("levenberg-marquardt", "hessian-free", "saddle-free-newton", "newton")
# Those that try points which they do not take, and accept all layers.
WITH_TRIALS = ("CG", "Newton-CG", "hessian-free", "saddle-free-newton", "gradient-descent")


def net(backend="auto", dtype="float64", seed=3):
    layers = fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 2)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=seed)


def linear(*, classes=0, dtype="float64", seed=3):
    return fn.Sequential(fn.Linear(3, classes or 2), dtype=dtype, seed=seed)


def fit(model, method="L-BFGS-B", *, loss=None, y=Y, **options):
    return fn.Trainer(model, loss or fn.MSELoss(), seed=0).fit_full_batch(X, y, method, **options)


def bits(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


class Independent:
    """The same net in plain NumPy, on a vector of w1 (3, 5), b1, w2 (5, 2), b2."""

    shapes = ((3, 5), (5,), (5, 2), (2,))

    def __init__(self, decay=0.0):
        self.decay = decay

    def start(self):
        state = net().state_dict()
        names = "0.weight", "0.bias", "2.weight", "2.bias"
        return np.concatenate([state[name].T.ravel() for name in names])

    def __call__(self, x):
        ends = np.cumsum([np.prod(shape) for shape in self.shapes])
        parts = np.split(x, ends[:-1])
        w1, b1, w2, b2 = (p.reshape(s) for p, s in zip(parts, self.shapes, strict=True))
        hidden = np.tanh(X @ w1 + b1)
        error = hidden @ w2 + b2 - Y
        back = 2 * error / error.size
        inner = back @ w2.T * (1 - hidden**2)
        grads = X.T @ inner, inner.sum(0), hidden.T @ back, back.sum(0)
        gradient = np.concatenate([g.ravel() for g in grads]) + self.decay * x
        return np.mean(error**2) + 0.5 * self.decay * (x @ x), gradient


OPTIONS = {"L-BFGS-B": {"gtol": 1e-8, "ftol": 0}, "Newton-CG": {"xtol": 1e-16}}


@pytest.mark.parametrize("method", OF_SCIPY)
def test_the_iterates_are_those_of_scipy_on_an_independent_net(backend, method):
    function, values = Independent(decay=1e-3), []
    hessian = {}
    if method in WITH_HESSIAN:  # exact, by a complex step
        hessian["hessp"] = lambda x, v: function(x + 1e-30j * v)[1].imag / 1e-30
    scipy.optimize.minimize(
        function,
        function.start(),
        jac=True,
        method=method,
        callback=lambda intermediate_result: values.append(intermediate_result.fun),
        options={"maxiter": 12, **OPTIONS.get(method, {"gtol": 1e-8})},
        **hessian,
    )
    history = fit(net(backend), method, max_iter=12, tol=1e-8, weight_decay=1e-3)
    losses = history.history["loss"]
    assert len(values) == 12
    start = function(function.start())[0]
    values = [
        b for a, b in pairwise([start, *values]) if a != b
    ]  # a trust region may keep its place
    assert losses[0] == pytest.approx(start, 1e-13)
    if method == "trust-krylov":  # where it ends its inner iteration, digits of products decide
        np.testing.assert_allclose(losses[1:6], values[:5], rtol=2e-3)
    elif hessian:
        assert len(losses) == 1 + len(values)
        np.testing.assert_allclose(losses[1:8], values[:7], rtol=1e-5)
    else:
        np.testing.assert_allclose(losses[1:], values, rtol=1e-9)


def test_a_batch_size_that_does_not_divide_the_rows_gives_the_same_objective(backend):
    whole = fit(net(backend), max_iter=5).history["loss"]
    parts = fit(net(backend), max_iter=5, batch_size=17).history["loss"]
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        fn.CrossEntropyLoss(weight=[0.3, 2.0], label_smoothing=0.1),
        fn.CrossEntropyLoss(ignore_index=1),
        fn.CrossEntropyLoss(reduction="sum"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("weighted", [False, True])
def test_blocks_count_as_the_loss_counts_their_rows(loss, weighted):
    weights = np.linspace(0, 2, 60) if weighted else None
    options = {"loss": loss, "y": LABELS, "max_iter": 4, "sample_weight": weights}
    whole = fit(net(), **options).history
    parts = fit(net(), batch_size=17, **options).history
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_linear_regression_ends_in_the_closed_form(method):
    model = linear()
    history = fit(model, method, max_iter=500, tol=1e-7, weight_decay=0.1)
    ones = np.column_stack([X, np.ones(len(X))])
    # 2/(n·outputs)·Aᵀ(A w − y) + decay·w = 0
    scale = 2 / Y.size
    normal = scale * ones.T @ ones + 0.1 * np.eye(4)
    best = np.linalg.solve(normal, scale * ones.T @ Y)
    assert history.result.success and history.records[-1]["grad_norm"] <= 1e-7
    state = model.state_dict()
    np.testing.assert_allclose(state["0.weight"].T, best[:3], atol=1e-6)
    np.testing.assert_allclose(state["0.bias"], best[3], atol=1e-6)


@pytest.mark.parametrize("method", OF_ANY_LOSS)
def test_logistic_regression_without_decay_of_biases_ends_where_its_gradient_is_zero(method):
    model = linear(classes=2)
    options = {"weight_decay": 0.01, "decay_biases_and_norms": False, "tol": 1e-8}
    fit(model, method, loss=fn.CrossEntropyLoss(), y=LABELS, max_iter=1000, **options)
    w, b = model.state_dict()["0.weight"], model.state_dict()["0.bias"]
    z = X @ w.T + b
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    error = (p - np.eye(2)[LABELS]) / len(X)
    assert np.abs(error.T @ X + 0.01 * w).max() < 2e-8
    assert np.abs(error.sum(0)).max() < 2e-8


@pytest.mark.parametrize("method", METHODS)
def test_float32_comes_near(method):
    model = linear(dtype="float32")
    fit(model, method, max_iter=500, weight_decay=0.1)
    exact = linear()
    fit(exact, "BFGS", max_iter=500, weight_decay=0.1, tol=1e-9)
    np.testing.assert_allclose(
        model.state_dict()["0.weight"], exact.state_dict()["0.weight"], atol=2e-3
    )


def test_gradient_descent_keeps_to_armijo():
    function, points = Independent(), []
    model = net()
    places = model.bind().trainable_places()
    start = model.bind().flat("params")[places].copy()
    c1 = 0.3

    def keep(record):
        points.append(model.bind().flat("params")[places].copy())

    options = {"step": 40.0, "c1": c1}
    history = fit(model, "gradient-descent", max_iter=30, options=options, callback=keep)
    np.testing.assert_array_equal(points[0], start)
    halvings = 0
    for x, nearer in pairwise(points):
        value, gradient = function(x)
        step = (x - nearer) @ gradient / (gradient @ gradient)
        np.testing.assert_allclose(nearer, x - step * gradient, atol=1e-12)
        assert function(nearer)[0] <= value - c1 * step * (gradient @ gradient) + 1e-14
        # The step before it was too long: 2α fails the condition wherever α is no first trial.
        too_long = (
            function(x - 2 * step * gradient)[0] > value - 2 * c1 * step * gradient @ gradient
        )
        halvings += too_long
    assert len(points) == 31 and halvings > 5
    assert history.records[-1]["evaluations"] > 31


def test_the_record_of_the_iterations():
    seen = []
    model = net()
    history = fit(model, max_iter=7, callback=seen.append)
    records = history.records
    assert seen == records and [r["iteration"] for r in records] == list(range(8))
    assert list(records[0]) == ["iteration", "loss", "grad_norm", "evaluations", "seconds"]
    losses, counts = history.history["loss"], history.history["evaluations"]
    assert losses == sorted(losses, reverse=True) and counts == sorted(counts) and counts[0] == 1
    assert history.result.nit == 7 and history.result.nfev == counts[-1]
    loss = model.value_and_grad(fn.MSELoss(), X, Y)
    assert loss == pytest.approx(losses[-1], 1e-13)
    largest = max(np.abs(g).max() for g in model.grads.values())
    assert largest == pytest.approx(records[-1]["grad_norm"], 1e-10)
    np.testing.assert_array_equal(
        history.result.x, model.bind().flat("params")[model.bind().trainable_places()]
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_fit_that_starts_at_the_minimum_takes_no_step(method):
    model = linear()
    fit(model, "BFGS", max_iter=500, tol=1e-10)
    before = bits(model)
    history = fit(model, method, tol=1e-6)
    assert history.result.success and len(history) == 1 and bits(model) == before


# How it ends.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_exception_leaves_the_last_iterate(method, error):
    def stop(record):
        if record["iteration"] == 3:
            raise error

    def end(record):
        if record["iteration"] == 3:
            raise StopIteration

    whole, model = net(), net()
    assert len(fit(whole, method, callback=end)) == 4
    with pytest.raises(error):
        fit(model, method, callback=stop)
    assert bits(model) == bits(whole)
    model.zero_grad()  # the lock is free


@pytest.mark.parametrize("method", METHODS)
def test_an_exception_in_an_evaluation_leaves_the_last_iterate(method, monkeypatch):
    iterates, model = [], net()
    places = model.bind().trainable_places()
    evaluate, count = full_batch.Objective.evaluate, 0

    def failing(self, x):
        nonlocal count
        count += 1
        point = evaluate(self, x)
        if count == 9:
            raise KeyboardInterrupt  # parameters are those of a trial now
        return point

    monkeypatch.setattr(full_batch.Objective, "evaluate", failing)

    def keep(record):
        iterates.append(model.bind().flat("params")[places].copy())

    with pytest.raises(KeyboardInterrupt):
        fit(model, method, callback=keep)
    np.testing.assert_array_equal(model.bind().flat("params")[places], iterates[-1])


@pytest.mark.parametrize("method", METHODS)
def test_stop_iteration_in_the_callback_ends_the_fit(method):
    def stop(record):
        if record["iteration"] == 2:
            raise StopIteration

    whole, model = net(), net()
    fit(whole, method, max_iter=2)
    history = fit(model, method, callback=stop)
    assert len(history) == 3 and not history.result.success and bits(model) == bits(whole)


def test_the_model_is_locked_meanwhile():
    model = net()

    def train(record):
        model.value_and_grad(fn.MSELoss(), X, Y)

    with pytest.raises(UsageError, match="being trained"):
        fit(model, callback=train)


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_whose_loss_is_not_finite_is_not_accepted(method, monkeypatch):
    """From 0.3 beside the minimum, with no finite loss farther than 0.5 from it."""
    evaluate, beyond = full_batch.Objective.evaluate, 0
    model = linear()
    run = partial(fn.Trainer(model, fn.MSELoss()).fit_full_batch, 4 * X, Y, max_iter=500)
    run("BFGS", tol=1e-10)
    flat = model.bind().flat("params")
    places = model.bind().trainable_places()
    best = flat[places].copy()
    flat[places] = best + 0.3 * np.sin(np.arange(len(best))) / np.sqrt(len(best) / 2)

    def walled(self, x):
        nonlocal beyond
        point = evaluate(self, x)
        if np.linalg.norm(x - best) <= 0.5:
            return point
        beyond += 1
        return full_batch.Point(x, np.inf, np.zeros_like(x), point.buffers)

    monkeypatch.setattr(full_batch.Objective, "evaluate", walled)
    scale = {"step": 1e3} if method == "gradient-descent" else {}
    history = run(method, tol=1e-7, options=scale)
    # Newton's steps end in the minimum at once, and iRprop's begin small.
    assert beyond or method in (*WITH_HESSIAN, *SECOND_ORDER, "irprop-")
    assert history.result.success and np.isfinite(history.history["loss"]).all()
    np.testing.assert_allclose(flat[places], best, atol=1e-6)


def test_a_start_that_is_not_finite_is_refused_and_left_alone():
    model = linear()
    with model.edit() as values:
        values["0.weight"][0, 0] = 1e200
    before = bits(model)
    with pytest.raises(DivergenceError, match="not finite at the start"):
        fit(model)
    assert bits(model) == before


# Dropout and batchnorm.


def noisy(p=0.3):
    layers = fn.Linear(3, 6), fn.BatchNorm1d(6), fn.Tanh(), fn.Dropout(p), fn.Linear(6, 2)
    return fn.Sequential(*layers, dtype="float64", seed=1)


@pytest.mark.parametrize("method", WITH_TRIALS)
def test_running_statistics_move_once_for_each_iteration(method):
    model = noisy()
    history = fit(model, method, max_iter=25)
    assert len(history) == 26 and history.result.nfev > 27
    assert model.state_dict()["1.num_batches_tracked"] == 25


def test_running_statistics_are_those_of_the_iterates():
    model, means = noisy(0.0), [np.zeros(6)]

    def keep(record):
        if record["iteration"]:
            state = model.state_dict()
            batch = (X @ state["0.weight"].T + state["0.bias"]).mean(0)
            means.append(0.9 * means[-1] + 0.1 * batch)

    fit(model, "gradient-descent", max_iter=5, callback=keep)
    np.testing.assert_allclose(model.state_dict()["1.running_mean"], means[-1], atol=1e-12)


def test_the_objective_with_dropout_is_one_function_and_the_next_fit_has_another():
    trainer = fn.Trainer(noisy(), fn.MSELoss(), seed=4)
    options = {"max_iter": 1, "options": {"step": 1e-12}}
    losses = [
        trainer.fit_full_batch(X, Y, "gradient-descent", **options).history["loss"]
        for _ in range(2)
    ]
    for start, end in losses:
        assert start == pytest.approx(end, 1e-9)
    assert abs(losses[0][0] - losses[1][0]) > 1e-4
    assert trainer.step == 2


def test_blocks_draw_masks_of_their_own_and_count_as_steps():
    def start(rows):
        """The loss of equal rows in blocks of 20, each of a net that drops half of its inputs."""
        model = fn.Sequential(fn.Dropout(0.5), fn.Linear(3, 2), dtype="float64", seed=0)
        trainer = fn.Trainer(model, fn.MSELoss(), seed=1)
        history = trainer.fit_full_batch(
            np.ones((rows, 3)), np.ones((rows, 2)), max_iter=1, batch_size=20
        )
        return trainer.step, history.records[0]["loss"]

    (one, first), (two, both) = start(20), start(40)
    assert (one, two) == (1, 2) and first != pytest.approx(both, 1e-9)


def test_a_block_of_one_row_is_refused_with_batchnorm():
    with pytest.raises(fn.errors.ShapeError, match="blocks of at least 2 rows"):
        fit(noisy(), batch_size=59)


# Bad arguments.

BAD = [
    ("method", "SGD", "method is 'SGD'; expected one of 'L-BFGS-B'"),
    ("method", None, "method is None"),
    ("options", 3, "options is 3"),
    ("callback", 3, "callback is 3"),
]
BAD_DESCENT = [
    ({"stepp": 1}, "options has 'stepp'; method 'gradient-descent' has step, shrink, grow, c1"),
    ({"step": 0}, r"options\['step'\] is 0"),
    ({"shrink": 1}, r"options\['shrink'\] is 1"),
    ({"grow": 0.9}, r"options\['grow'\] is 0.9"),
    ({"c1": np.nan}, r"options\['c1'\] is nan"),
]


NUMBERS = {
    "max_iter": ("an integer ≥ 1", [*NOT_INTEGERS, 0, -1]),
    "batch_size": ("an integer ≥ 1", [*NOT_INTEGERS, 0, -1]),
    "tol": ("a finite number in [0, inf)", [*NOT_NUMBERS, *NOT_FINITE, -1e-9]),
    "weight_decay": ("a finite number in [0, inf)", [*NOT_NUMBERS, *NOT_FINITE, -1]),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_bad_numbers_change_nothing(name):
    model = net()
    before, trainer = bits(model), fn.Trainer(model, fn.MSELoss())
    wanted, values = NUMBERS[name]
    for bad in (v for v in values if v is not None or name != "batch_size"):
        message = re.escape(f"{name} is {shown(bad)}; expected {wanted}")
        refused(
            lambda v=bad: trainer.fit_full_batch(X, Y, **{name: v}),
            HyperparameterError,
            f"^{message}$",
        )
    assert bits(model) == before and trainer.step == 0


def test_every_number_is_in_the_table():
    assert arguments(fn.Trainer.fit_full_batch, "int", "float") == NUMBERS.keys()


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_bad_arguments_change_nothing(name, value, message):
    model = net()
    before, trainer = bits(model), fn.Trainer(model, fn.MSELoss())
    with pytest.raises(HyperparameterError, match=message):
        trainer.fit_full_batch(X, Y, **{name: value})
    assert bits(model) == before and trainer.step == 0


@pytest.mark.parametrize(("options", "message"), BAD_DESCENT)
def test_bad_options_of_gradient_descent(options, message):
    with pytest.raises(HyperparameterError, match=message):
        fit(net(), "gradient-descent", options=options)


def test_bad_data_changes_nothing():
    model = net()
    before = bits(model)
    for x, y in ((X[:5], Y), (X * np.nan, Y), (X, Y[:, :1])):
        with pytest.raises(fn.FastnetError):
            fn.Trainer(model, fn.MSELoss()).fit_full_batch(x, y)
    assert bits(model) == before


def test_nothing_to_fit_is_refused():
    model = fn.Sequential(fn.Tanh(), dtype="float64")
    with pytest.raises(UsageError, match="no trainable parameters"):
        fn.Trainer(model, fn.MSELoss()).fit_full_batch(X, X)


def test_without_scipy_the_extra_is_named_and_gradient_descent_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    model = net()
    trainer, before = fn.Trainer(model, fn.MSELoss()), bits(model)
    with pytest.raises(MissingExtra, match=r'pip install "fastnet-engine\[scipy\]"'):
        trainer.fit_full_batch(X, Y)
    assert bits(model) == before and trainer.step == 0
    assert trainer.fit_full_batch(X, Y, "gradient-descent", max_iter=2).result.nit == 2
