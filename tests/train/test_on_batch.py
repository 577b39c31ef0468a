"""`trainer.train_on_batch`: one step, the same as in fit."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError, ShapeError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3))
LABELS = RNG.integers(0, 2, size=23)


def trainer(backend="auto", **options):
    layers = fn.Linear(3, 6), fn.BatchNorm1d(6), fn.Dropout(0.3), fn.Linear(6, 2)
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=1)
    options = {"loss": fn.CrossEntropyLoss(), "optimizer": fn.Adam(0.01), **options}
    return fn.Trainer(model, seed=5, **options)


def bits(trainer):
    found = {**trainer.model.state_dict(), **trainer.optimizer.state_dict(trainer.model)}
    return {name: np.asarray(value).tobytes() for name, value in found.items()}


def function(output, y):
    return fn.CrossEntropyLoss().forward(output, y), np.zeros_like(output)


OPTIONS = {
    "plain": {},
    "clipping": {"clip_value": 0.1, "clip_norm": 0.2},
    "an average": {"averaging": fn.EMA(0.9)},
    "a sum": {"loss": fn.CrossEntropyLoss(reduction="sum")},
    "a schedule": {"optimizer": fn.SGD(fn.schedules.ExponentialLR(0.1, 0.9), 0.9)},
    "a function": {"loss": function},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_loop_of_it_is_a_fit(backend, case):
    one, two = (trainer(backend, **OPTIONS[case]) for _ in range(2))
    history = one.fit(X, LABELS, 3, 5, verbose=0)
    losses = []
    for epoch in range(3):
        for xb, yb in fn.batches(X, LABELS, batch_size=5, seed=5, epoch=epoch):
            losses.append(two.train_on_batch(xb, yb))
    assert bits(one) == bits(two)
    assert (two.step, two.epoch, len(two.history)) == (one.step, 0, 0)
    assert all(type(loss) is float for loss in losses) and len(losses) == one.step
    last = np.average(losses[-5:], weights=[5, 5, 5, 5, 3])
    if case != "a sum":
        np.testing.assert_allclose(history.records[-1]["loss"], last, rtol=1e-12)


def test_weights_are_those_of_the_minibatch(backend):
    one, two = trainer(backend), trainer(backend)
    one.train_on_batch(X, LABELS, sample_weight=np.full(23, 3.0))
    two.train_on_batch(X, LABELS)
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_modes_are_respected_where_that_is_asked(backend):
    t = trainer(backend)
    t.model.eval()
    before = t.model.state_dict()["1.running_mean"]
    t.train_on_batch(X, LABELS, respect_modes=True)
    np.testing.assert_array_equal(t.model.state_dict()["1.running_mean"], before)
    t.train_on_batch(X, LABELS)
    assert (t.model.state_dict()["1.running_mean"] != before).all()


def test_what_it_refuses_changes_nothing(backend):
    t = trainer(backend)
    before = bits(t)
    for error, given, words in [
        (ShapeError, (X[:, :2], LABELS), "X"),
        (ShapeError, (X[:1], LABELS[:1]), "at least 2 rows"),
        (DataError, (X * np.nan, LABELS), "X"),
        (DataError, (X, np.arange(len(LABELS))), "y"),
    ]:
        with pytest.raises(error, match=words):
            t.train_on_batch(*given)
    with pytest.raises(HyperparameterError, match="respect_modes is 'no'"):
        t.train_on_batch(X, LABELS, respect_modes="no")
    assert bits(t) == before and t.step == 0
    broken = fn.Trainer(
        fn.Sequential(fn.Linear(3, 1), backend=backend, seed=0), fn.MSELoss(), fn.SGD(0.1)
    )
    kept = broken.model.state_dict()
    with pytest.raises(fn.DivergenceError):
        broken.train_on_batch(np.full((4, 3), 1e30), np.zeros((4, 1)))
    for name, value in broken.model.state_dict().items():
        np.testing.assert_array_equal(value, kept[name])
