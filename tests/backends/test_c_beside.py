"""Updates beside products: training in chunks has the bits of a backward and an update after it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnet as fn
from fastnet.backends import executor, registry
from fastnet.backends.steps import Steps, Update
from fastnet.data.dataset import Dataset

if reason := fn.backends()["c"].reason:
    pytest.skip(reason, allow_module_level=True)

C: Any = registry.get("c")

# Weights of half a MiB and more: rows of whole tiles and not, more columns than rows, a copy of the inputs.
WIDTHS = [(520, 270, 9), (1030, 131, 300), (300, 512, 448), (1000, 520, 1)]
ODD_WIDTHS = [(1, 131072, 1), (2, 70000, 2), (784, 1000, 3)]  # less than a tile; dY is packed
OPTIMIZERS: dict[str, Any] = {
    "plain": lambda: fn.Adam(0.01),
    "decay": lambda: fn.AdamW(0.01, weight_decay=0.1, max_norm=2.0),
    "groups": lambda: fn.Adam(0.01, groups=[{"params": "2.*", "lr": 0.003}]),
    "biases": lambda: fn.Adam(0.01, weight_decay=0.1, decay_biases_and_norms=False),
    "schedule": lambda: fn.Adam(fn.schedules.ExponentialLR(0.01, 0.9)),
    "l1 before it": lambda: fn.Adam(0.01, l1=0.01),
    "another rule": lambda: fn.Adam(0.01, amsgrad=True),
    "and another": lambda: fn.SGD(0.01, momentum=0.9),
    "learned": lambda: fn.LearnedOptimizer(lr=0.01),
    "products": lambda: fn.Muon(0.01, ns_steps=2),
}


def net(widths, dtype):
    i, h, o = widths
    layers = fn.Linear(i, h), fn.ReLU(), fn.Linear(h, o)
    return fn.Sequential(*layers, dtype=dtype, backend="c", seed=1)


def numbers(widths, rows):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, widths[0])), rng.normal(size=(rows, widths[-1]))


def bits(model, optimizer):
    segments, state = model.bind().segments, model.optimizer_state(optimizer)
    return [segments["params"].tobytes(), segments["grads"].tobytes(), state.rule.segment.tobytes()]


def fitted(widths, dtype, optimizer, rows, batch):
    """Three epochs in whole chunks, the last minibatch a part of one."""
    model, (x, y) = net(widths, dtype), numbers(widths, rows)
    trainer = fn.Trainer(model, fn.MSELoss(), optimizer)
    trainer.fit(x, y, epochs=3, batch_size=batch, shuffle=False, verbose=0)
    return bits(model, optimizer)


def apart(widths, dtype, optimizer, rows, batch):
    """The same steps, each backward in a call of its own."""
    model, (x, y) = net(widths, dtype), numbers(widths, rows)
    for _ in range(3):
        for begin in range(0, rows, batch):
            part = slice(begin, begin + batch)
            model.value_and_grad(fn.MSELoss(), x[part], y[part])
            optimizer.step(model)
    return bits(model, optimizer)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("batch", [96, 130, 513])
def test_the_bits_are_those_of_an_update_after_it(monkeypatch, widths, dtype, batch):
    monkeypatch.setattr(executor, "WORK_TO_SHARE", 0)
    rows = 2 * batch + 100
    expected = apart(widths, dtype, fn.Adam(0.01), rows, batch)
    for threads in (1, 2, 3):
        with fn.threads(threads):
            found = fitted(widths, dtype, fn.Adam(0.01), rows, batch)
        assert found == expected, f"on {threads} threads"


@pytest.mark.parametrize("widths", ODD_WIDTHS, ids=str)
def test_few_rows_and_many_columns(monkeypatch, widths):
    monkeypatch.setattr(executor, "WORK_TO_SHARE", 0)
    expected = apart(widths, "float32", fn.Adam(0.01), 120, 96)
    for threads in (1, 2):
        with fn.threads(threads):
            found = fitted(widths, "float32", fn.Adam(0.01), 120, 96)
        assert found == expected, f"on {threads} threads"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_whatever_the_update(monkeypatch, name):
    monkeypatch.setattr(executor, "WORK_TO_SHARE", 0)
    widths, make = (1000, 140, 1000), OPTIMIZERS[name]
    expected = apart(widths, "float32", make(), 300, 100)
    for threads in (1, 2):
        with fn.threads(threads):
            found = fitted(widths, "float32", make(), 300, 100)
        assert found == expected, f"on {threads} threads"


@pytest.mark.skipif("x86-64-v4" not in C.levels(), reason="needs AVX-512")
@pytest.mark.parametrize(
    ("widths", "threads", "expected"),
    [
        ((520, 270, 9), 1, 1),
        ((1030, 131, 300), 2, 1),
        ((300, 512, 448), 1, 2),
        (
            (300, 512, 448),
            2,
            1,
        ),  # parts of a team are rows only where these are more than the columns
        ((1, 131072, 1), 1, 0),
        ((400, 300, 9), 1, 0),  # less than half a MiB
    ],
    ids=str,
)
def test_what_is_updated_beside(monkeypatch, widths, threads, expected):
    monkeypatch.setattr(executor, "WORK_TO_SHARE", 0)
    level = C.level()
    C.set_level(C.levels().index("x86-64-v4"))
    try:
        model, (x, y) = net(widths, "float32"), numbers(widths, 200)
        data, optimizer = Dataset(x.astype(np.float32), y.astype(np.float32)), fn.Adam(0.01)
        runner, state = (
            model.training_executor(data, 100, fn.MSELoss()),
            model.optimizer_state(optimizer),
        )
        update = Update(state.rule.program, state.rule.segment, optimizer.hyper(0, 2))
        with fn.threads(threads):
            runner.train(data, Steps(np.arange(200), np.array([0, 100, 200]), 0, 0), update)
        assert runner._train_args["interleaved"][0] == expected
        runner.train(data, Steps(np.arange(50), np.array([0, 50]), 0, 2), update)  # too few rows
        assert runner._train_args["interleaved"][0] == 0
    finally:
        C.set_level(level)


@pytest.mark.parametrize(
    ("options", "several"),
    [
        ({}, 1),
        ({"clip_norm": 0.1}, 1),
        ({"clip_value": 1e-3}, 1),
        ({"averaging": fn.EMA(0.9)}, 1),
        ({}, 3),
    ],
    ids=str,
)
def test_levels_that_update_after_it_have_the_same_bits(options, several):
    """Also where something must come before the update: levels below AVX-512 always do it afterwards."""
    found, before = set(), C.level()
    try:
        for level, name in enumerate(C.levels()):
            if name != "x86-64":  # has no fused multiply-add
                C.set_level(level)
                model, (x, y) = net((520, 270, 9), "float32"), numbers((520, 270, 9), 300)
                trainer = fn.Trainer(model, fn.MSELoss(), optimizer := fn.Adam(0.01), **options)
                plain = {"epochs": 2, "shuffle": False, "verbose": 0}
                trainer.fit(x, y, batch_size=100, accumulation_steps=several, **plain)
                found.add(tuple(bits(model, optimizer)))
    finally:
        C.set_level(before)
    assert len(found) <= 1
