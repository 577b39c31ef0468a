"""Minibatches of one to four rows: the backward of a linear layer, and SGD's update beside it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from engines import fma_levels
from onecall import TEAM, calls, compare, same_bits

import fastnet as fn
from fastnet.backends import executor, registry
from fastnet.backends.steps import Steps, Update
from fastnet.data.dataset import Dataset
from fastnet.layers.activations import tanh
from fastnet.layers.linear import linear
from fastnet.op import KERNELS

if reason := fn.backends()["c"].reason:
    pytest.skip(reason, allow_module_level=True)

C: Any = registry.get("c")
LEVELS = fma_levels()
ROWS_OF_DATA = 23
ROWS = (1, 2, 3, 4, 5)  # five take the ways of larger minibatches
# Inputs and outputs: less than a vector, whole lanes and not, one column, half a MiB.
WIDTHS = [(1, 1), (70, 1), (3, 15), (1, 16), (17, 16), (9, 17), (64, 64), (35, 33), (5, 100)]
LARGE = [(300, 450), (2, 70000)]

dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(executor, "WORK_TO_SHARE", 0)
    level = C.level()
    yield
    C.set_level(level)


@dtypes
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("widths", WIDTHS + LARGE, ids=str)
def test_the_backward_is_the_reference_s_and_has_one_set_of_bits(dtype, rows, widths):
    sizes = dict(zip("IO", widths, strict=True))
    for call in calls(KERNELS["linear_vjp"], dtype, rows, sizes):
        results = []
        for level in LEVELS or [C.level()]:
            C.set_level(level)
            results.append(compare(call, C, call.tolerance()))
        for other in results[1:]:
            for name, value in other.items():
                np.testing.assert_array_equal(value, results[0][name], err_msg=name)
        for threads in range(2, TEAM + 1):
            call.context["threads"] = threads
            same_bits(call, C, results[-1])


def layers(widths, **options):
    return [part for i, o in pairwise(widths) for part in (fn.Linear(i, o, **options), fn.Tanh())][
        :-1
    ]


def bits(model, optimizer):
    segments, state = model.bind().segments, model.optimizer_state(optimizer)
    return [segments["params"].tobytes(), segments["grads"].tobytes(), state.rule.segment.tobytes()]


class Twice(fn.Layer):
    """y = w·tanh(w·x + b) + b."""

    def __init__(self, width):
        super().__init__(width=width)
        self._declare("weight", (width, width), init=fn.init.FanInUniform(), fan_in=width)
        self._declare("bias", (width,), init=fn.init.FanInUniform(), fan_in=width)

    def emit(self, g, x):
        w, b = self._parameters["weight"], self._parameters["bias"]
        y = g.apply(tanh, x=g.apply(linear, x=x, w=w, b=b))
        return g.apply(linear, x=y, w=w, b=b)


def tied():
    return [fn.Linear(5, 19), Twice(19), fn.ReLU(), fn.Linear(19, 1)]


def frozen(model, *names):
    model.bind().freeze(p for name, p in model._named().items() if name in names)


FROZEN = {"frozen first": ("0.weight", "0.bias"), "frozen between": ("2.weight", "4.bias")}
MODELS: dict[str, Any] = {
    "housing": lambda: layers((8, 64, 64, 64, 1)),
    "awkward widths": lambda: layers((5, 15, 17, 1, 33, 3)),
    "no bias": lambda: layers((5, 20, 37, 1), bias=False),
    "large": lambda: layers((3, 390, 400, 2)),
    "a weight used twice": tied,
    "frozen first": lambda: layers((7, 33, 18, 2)),
    "frozen between": lambda: layers((7, 33, 18, 2)),
    "with batchnorm": lambda: [fn.Linear(4, 20), fn.BatchNorm1d(20), fn.PReLU(), fn.Linear(20, 16)],
}
OPTIMIZERS: dict[str, Any] = {
    "plain": lambda: fn.SGD(0.01),
    "weight decay": lambda: fn.SGD(0.01, weight_decay=0.1),
    "momentum": lambda: fn.SGD(0.01, momentum=0.9),
    "groups": lambda: fn.SGD(0.01, groups=[{"params": "0.*", "lr": 0.003}]),
    "biases": lambda: fn.SGD(0.01, weight_decay=0.1, decay_biases_and_norms=False),
    "schedule": lambda: fn.SGD(fn.schedules.ExponentialLR(0.01, 0.9)),
    "l1 before it": lambda: fn.SGD(0.01, l1=0.01),
    "adam": lambda: fn.Adam(0.01),
}


def problem(name, dtype, rows=ROWS_OF_DATA):
    model = fn.Sequential(*MODELS[name](), dtype=dtype, backend="c", seed=1)
    frozen(model, *FROZEN.get(name, ()))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, model[0].in_features))
    return model, x, rng.normal(size=model.predict(x).shape)


def fitted(name, make, dtype, batch, **options):
    (model, x, y), optimizer = problem(name, dtype), make()
    trainer = fn.Trainer(model, fn.MSELoss(), optimizer, **options)
    trainer.fit(x, y, epochs=2, batch_size=batch, shuffle=False, verbose=0)
    return bits(model, optimizer)


def apart(name, make, dtype, batch):
    """The same steps, each backward in a call of its own."""
    (model, x, y), optimizer = problem(name, dtype), make()
    for _ in range(2):
        for begin in range(0, len(x), batch):
            part = slice(begin, begin + batch)
            model.value_and_grad(fn.MSELoss(), x[part], y[part])
            optimizer.step(model)
    return bits(model, optimizer)


@dtypes
@pytest.mark.parametrize("batch", ROWS)
@pytest.mark.parametrize("name", MODELS)
def test_the_bits_are_those_of_an_update_after_it(dtype, batch, name):
    """Parameters, and the gradients of the last step."""
    make = OPTIMIZERS["weight decay"]
    if name == "with batchnorm" and (batch == 1 or ROWS_OF_DATA % batch == 1):
        pytest.skip("batchnorm needs two rows")
    found = []
    for level in LEVELS or [C.level()]:
        C.set_level(level)
        found.append(apart(name, make, dtype, batch))
        for threads in (1, 2, 3):
            with fn.threads(threads):
                found.append(fitted(name, make, dtype, batch))
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_whatever_the_rule(name):
    make = OPTIMIZERS[name]
    for batch in (1, 3):
        expected = apart("awkward widths", make, "float32", batch)
        assert fitted("awkward widths", make, "float32", batch) == expected


@pytest.mark.parametrize(
    "options", [{"clip_norm": 0.1}, {"clip_value": 1e-3}, {"averaging": fn.EMA(0.9)}], ids=str
)
def test_whatever_comes_before_and_after_the_rule(options):
    """At all levels, and in steps of one call each, which update afterwards."""
    found = []
    for level in LEVELS or [C.level()]:
        C.set_level(level)
        found.append(fitted("housing", OPTIMIZERS["plain"], "float32", 1, **options))
    (model, x, y), optimizer = problem("housing", "float32"), OPTIMIZERS["plain"]()
    trainer = fn.Trainer(model, fn.MSELoss(), optimizer, **options)
    for _ in range(2):
        for i in range(len(x)):
            trainer.train_on_batch(x[i : i + 1], y[i : i + 1])
    found.append(bits(model, optimizer))
    assert all(one == found[0] for one in found)


def test_a_refused_step_updates_nothing():
    model, x, y = problem("housing", "float32")
    trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(0.01))
    trainer.fit(x[:10], y[:10], epochs=1, batch_size=1, shuffle=False, verbose=0)
    expected = model.state_dict()
    other, _, _ = problem("housing", "float32")
    with np.errstate(over="ignore"):
        y[10] = 1e30
    trainer = fn.Trainer(other, fn.MSELoss(), fn.SGD(0.01))
    with pytest.raises(fn.DivergenceError):
        trainer.fit(x, y, epochs=1, batch_size=1, shuffle=False, verbose=0)
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value, expected[name])


def chunk(model, optimizer, x, y):
    """The steps of one call, of a row each, until one is refused."""
    data = Dataset(x.astype(np.float32), y.astype(np.float32))
    runner = model.training_executor(data, 1, fn.MSELoss())
    state = model.optimizer_state(optimizer)
    update = Update(state.rule.program, state.rule.segment, optimizer.hyper(0, len(x)))
    steps = Steps(np.arange(len(x)), np.arange(len(x) + 1), 0, 0)
    try:
        runner.train(data, steps, update)
    except fn.DivergenceError:
        return runner.steps_done
    return len(x)


def test_an_infinite_weight_becomes_what_the_update_after_it_makes():
    """Not a number, as 0·w is none, although the shorter update without weight decay leaves 0·w out."""
    found = []
    for rows in (1, 2):  # the last step of a call updates afterwards
        layers = fn.Linear(3, 20), fn.Sigmoid(), fn.Linear(20, 18), fn.ReLU(), fn.Linear(18, 1)
        model = fn.Sequential(*layers, backend="c", seed=1)
        with model.edit() as values:
            values["2.weight"][4] = -np.inf
        assert chunk(model, fn.SGD(0.01), np.ones((rows, 3)), np.ones((rows, 1))) == 1
        found.append(model.state_dict())
    assert np.isnan(found[0]["2.weight"][4]).all()
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name], err_msg=name)


def test_all_but_the_last_step_of_a_call_update_without_gradients():
    model, x, y = problem("housing", "float32")
    for rows in (3, 1):
        model.zero_grad()
        assert chunk(model, fn.SGD(0.01), x[:rows], y[:rows]) == rows
        assert all(g.any() for g in model.grads.values())
    model.zero_grad()
    assert chunk(model, fn.SGD(0.01), x[:2], np.array([y[0], [1e30]])) == 1
    assert not any(g.any() for g in model.grads.values())
