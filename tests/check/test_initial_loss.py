"""fn.check.initial_loss: the loss before training against that of a net that knows nothing."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import CheckFailed

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(400, 5)).astype("f")
LABELS = RANDOM.integers(0, 7, 400)
REALS = RANDOM.normal(size=(400, 2)) * 0.8
COUNTS = RANDOM.poisson(4.0, size=(400, 2)).astype(float)


def net(width, *last, scale=1.0, **options):
    layers = fn.Linear(5, 30), fn.Tanh(), fn.Linear(30, width)
    model = fn.Sequential(*layers, *last, seed=1, **options)
    with model.edit() as p:
        p["2.weight"][:] *= scale
        p["2.bias"][:] *= scale
    return model


EXPECTED = {
    "cross-entropy": (fn.CrossEntropyLoss(), LABELS, 7, [], math.log(7)),
    "weights and smoothing": (
        fn.CrossEntropyLoss(np.arange(1.0, 8), label_smoothing=0.0),
        LABELS,
        7,
        [],
        math.log(7),
    ),
    "probabilities": (fn.CrossEntropyLoss(), np.eye(7)[LABELS], 7, [], math.log(7)),
    "log-probabilities": (fn.NLLLoss(), LABELS, 7, [fn.LogSoftmax()], math.log(7)),
    "binary": (fn.BCEWithLogitsLoss(), (REALS > 0) * 1.0, 2, [], math.log(2)),
    "binary probabilities": (fn.BCELoss(), (REALS > 0) * 1.0, 2, [fn.Sigmoid()], math.log(2)),
    "variance": (fn.MSELoss(), REALS, 2, [], REALS.var(axis=0).mean()),
    "half the variance": (fn.HalfMSELoss(), REALS, 2, [], None),
    "median": (fn.L1Loss(), REALS, 2, [], np.abs(REALS - np.median(REALS, axis=0)).mean()),
    "huber": (fn.HuberLoss(), REALS, 2, [], None),
    "pinball": (fn.PinballLoss(0.3), REALS, 2, [], None),
    "summed": (fn.MSELoss("sum"), REALS, 2, [], 800 * REALS.var(axis=0).mean()),
    "hinge": (fn.MultiMarginLoss(), LABELS, 7, [], 6 / 7),
}


@pytest.mark.parametrize("case", EXPECTED)
def test_a_fresh_net_has_the_expected_loss(backend, case):
    loss, y, width, last, expected = EXPECTED[case]
    model = net(width, *last, scale=0.3, backend=backend)
    report = fn.check.initial_loss(model, loss, X, y)
    assert report.ok and report, report
    if expected is not None:
        assert report.expected == pytest.approx(expected, rel=1e-6)
    assert report.loss == pytest.approx(model.value_and_grad(loss, X, y), rel=1e-5)
    assert repr(report).startswith("initial loss: ok, ") and repr(report).isascii()


def test_poisson_of_the_mean():
    mean = COUNTS.mean(axis=0)
    report = fn.check.initial_loss(net(2), fn.PoissonNLLLoss(), X, COUNTS, tolerance=9.0)
    assert report.expected == pytest.approx((mean - COUNTS * np.log(mean)).mean())


def test_outputs_that_are_too_large_are_told():
    report = fn.check.initial_loss(net(7, scale=50.0), fn.CrossEntropyLoss(), X, LABELS)
    assert not report.ok and report.loss > 1.5 * report.expected
    assert "initial loss: UNEXPECTED" in repr(report)
    assert "the loss is high: a last layer with smaller weights" in repr(report)


def test_targets_of_another_scale_are_told():
    report = fn.check.initial_loss(net(2), fn.MSELoss(), X, REALS + 9.0)
    assert not report.ok and re.search(r"targets: mean (8\.9|9)", repr(report))
    assert report.expected == pytest.approx(REALS.var(axis=0).mean())


def test_a_model_that_has_trained_already_is_told():
    model = net(2)
    y = X[:, :2].astype("d")
    fn.Trainer(model, fn.MSELoss(), fn.Adam(0.01)).fit(X, y, 100, verbose=0)
    report = fn.check.initial_loss(model, fn.MSELoss(), X, y)
    assert not report.ok and "has the model trained already?" in repr(report)


def test_equal_targets_are_told():
    report = fn.check.initial_loss(net(2), fn.MSELoss(), X, np.ones((400, 2)))
    assert not report.ok and report.expected == 0 and "all targets are equal" in repr(report)


def test_of_a_function_nothing_is_expected():
    def squared(y, t):
        return float(np.mean((y - t) ** 2)), 2 * (y - t) / y.size

    report = fn.check.initial_loss(net(2), squared, X, REALS)
    assert report.ok and report.expected is None and "nothing is expected" in repr(report)

    def infinite(y, t):
        return np.inf, y

    report = fn.check.initial_loss(net(2), infinite, X, REALS)
    assert not report.ok and "the loss is not finite" in repr(report)


def test_batchnorm_has_the_rows_statistics_and_dropout_drops_nothing():
    model = fn.Sequential(fn.BatchNorm1d(5), fn.Dropout(0.9), fn.Linear(5, 7), seed=1)
    report = fn.check.initial_loss(model, fn.CrossEntropyLoss(), 1000 * X + 9e3, LABELS)
    normal = (X - X.mean(axis=0)) / X.std(axis=0)
    z = normal @ model[2].weight.T + model[2].bias
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    assert report.loss == pytest.approx(-log_p[np.arange(400), LABELS].mean(), rel=1e-3)
    assert fn.check.initial_loss(model, fn.CrossEntropyLoss(), X[:1], LABELS[:1], rows=1).loss


def test_at_most_so_many_rows():
    report = fn.check.initial_loss(net(2), fn.MSELoss(), X, REALS, rows=10)
    index = np.linspace(0, 399, 10).astype(int)
    assert report.expected == pytest.approx(REALS[index].var(axis=0).mean())


def test_it_raises_on_request():
    with pytest.raises(CheckFailed, match=r"^initial loss: UNEXPECTED") as caught:
        fn.check.initial_loss(net(2), fn.MSELoss(), X, REALS + 9, raise_on_failure=True)
    assert isinstance(caught.value.report, fn.check.InitialLossReport)
    exact = {"tolerance": 0, "raise_on_failure": True}
    with pytest.raises(CheckFailed):
        fn.check.initial_loss(net(2), fn.MSELoss(), X, REALS, **exact)
