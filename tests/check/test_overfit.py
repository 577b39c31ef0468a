"""fn.check.overfit: whether a net learns a few rows by heart."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import CheckFailed, HyperparameterError

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(100, 5)).astype("f")
LABELS = RANDOM.integers(0, 3, 100)
REALS = RANDOM.normal(size=(100, 3))


def net(*layers, **options):
    return fn.Sequential(fn.Linear(5, 40), *layers, fn.Linear(40, 3), seed=1, **options)


CASES = {
    "labels": (fn.CrossEntropyLoss(), LABELS),
    "smoothed and weighted": (fn.CrossEntropyLoss([1, 2, 3], label_smoothing=0.2), LABELS),
    "probabilities": (
        fn.CrossEntropyLoss(),
        np.full((100, 3), 1 / 3) * 0.5 + 0.5 * np.eye(3)[LABELS],
    ),
    "reals": (fn.MSELoss(), REALS),
    "soft binary": (fn.BCEWithLogitsLoss([2.0]), 1 / (1 + np.exp(-REALS))),
    "counts": (fn.PoissonNLLLoss(), np.abs(REALS).round() * 3),
}


@pytest.mark.parametrize("case", CASES)
def test_a_net_that_is_large_enough_learns(case):
    loss, y = CASES[case]
    report = fn.check.overfit(net(fn.Tanh()), loss, X, y)
    assert report.ok and report, report
    assert report.rows == 16 and len(report.losses) == 1000
    assert report.least <= report.last + 1e-6 and report.first > report.least + 0.1
    assert repr(report).startswith("overfit: ok, 16 rows, loss ") and repr(report).isascii()


def test_the_lowest_loss_is_0_or_that_of_the_targets():
    assert fn.check.overfit(net(fn.Tanh()), *on("labels"), steps=1).least == pytest.approx(0)
    assert fn.check.overfit(net(fn.Tanh()), *on("reals"), steps=1).least == 0
    p = CASES["probabilities"][1][np.linspace(0, 99, 16).astype(int)]
    found = fn.check.overfit(net(fn.Tanh()), *on("probabilities"), steps=1).least
    assert found == pytest.approx(-(p * np.log(p)).sum(axis=1).mean())


def on(case):
    loss, y = CASES[case]
    return loss, X, y


def test_dropout_drops_nothing_and_batchnorm_trains(backend):
    model = net(fn.BatchNorm1d(40), fn.ReLU(), fn.Dropout(0.9), backend=backend)
    report = fn.check.overfit(model, *on("labels"), steps=300)
    assert report.ok, report
    assert fn.check.overfit(model, *on("labels"), rows=1, steps=300).ok


def test_a_net_that_cannot_learn_is_told():
    dead = fn.Sequential(fn.Linear(5, 4), fn.ReLU(), fn.Linear(4, 3), seed=1)
    with dead.edit() as p:
        p["0.bias"][:] = -100
    report = fn.check.overfit(dead, *on("reals"), steps=300)
    assert not report.ok and not report and "overfit: NOT LEARNED" in repr(report)
    assert "the loss has stopped falling" in repr(report)


def test_a_rate_that_is_too_low_is_told():
    report = fn.check.overfit(net(fn.Tanh()), *on("reals"), fn.SGD(0.02), steps=20)
    assert not report.ok and "the loss still falls: more steps or a higher rate" in repr(report)


def test_divergence_is_a_report():
    report = fn.check.overfit(net(), *on("reals"), fn.SGD(1e30))
    assert not report.ok and report.last == np.inf and "it diverged: " in repr(report)
    assert len(report.losses) < 1000


def test_contradictions_are_told():
    x = X.copy()
    x[6] = x[13]  # among the rows that are taken
    report = fn.check.overfit(net(fn.Tanh()), fn.MSELoss(), x, REALS, rows=16)
    assert "rows 1 and 2 of these have equal inputs and different targets" in repr(report)


def test_the_optimizer_keeps_its_steps_and_the_rows_are_spread():
    optimizer = fn.Adam(fn.schedules.StepLR(0.01, 10**6))
    model = net(fn.Tanh())
    before = repr(optimizer)
    report = fn.check.overfit(model, *on("reals"), optimizer, rows=10, steps=3)
    assert repr(optimizer) == before and optimizer.state(model).steps == 0
    index = np.linspace(0, 99, 10).astype(int)
    expected = model.value_and_grad(fn.MSELoss(), X[index], REALS[index])
    assert report.first == pytest.approx(expected, rel=1e-6) and len(report.losses) == 3
    again = fn.check.overfit(model, *on("reals"), optimizer, rows=10, steps=3)
    assert [*again.losses, again.last] == [*report.losses, report.last]


def test_it_raises_on_request():
    with pytest.raises(CheckFailed, match=r"^overfit: NOT LEARNED") as caught:
        fn.check.overfit(net(), *on("reals"), steps=1, raise_on_failure=True)
    assert isinstance(caught.value.report, fn.check.OverfitReport)


def test_what_is_refused():
    refused(
        lambda: fn.check.overfit(net(), *on("reals"), fn.Adam),
        HyperparameterError,
        "^optimizer is the class Adam; expected an Optimizer",
    )
    refused(
        lambda: fn.check.overfit(net(), *on("reals"), steps=0),
        HyperparameterError,
        "^steps is 0; expected an integer ≥ 1",
    )
    refused(
        lambda: fn.check.overfit(net(), *on("reals"), tolerance=1.5),
        HyperparameterError,
        r"^tolerance is 1.5; expected a finite number in \[0, 1\]",
    )
