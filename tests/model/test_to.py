"""model.to: another backend for a model, which goes on where it is."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import fastnet as fn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3))
Y = RNG.integers(0, 2, size=20)


def net(backend):
    layers = fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Dropout(0.2), fn.Linear(4, 2)
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=1)


def trainer(model):
    options = {"clip_norm": 0.1, "averaging": fn.EMA(0.9), "seed": 2}
    return fn.Trainer(model, fn.CrossEntropyLoss(), fn.SGD(0.1, 0.9), **options)


@pytest.mark.contract
def test_a_fit_goes_on_elsewhere_and_comes_back(backend):
    """Momentum, running statistics, clipping, averages and the counter of dropout all go along."""
    moved, stays = trainer(net("reference")), trainer(net("reference"))
    for name in ("reference", backend, "reference"):
        assert moved.model.to(name) is moved.model
        assert moved.model.backend == name
        for each in (moved, stays):
            each.fit(X, Y, batch_size=10, verbose=0)
            each.model.value_and_grad(fn.CrossEntropyLoss(), X[:10], Y[:10])
            fn.clip_grad_norm_(each.model, 0.05)
            each.optimizer.step(each.model)
        np.testing.assert_allclose(moved.model.predict(X), stays.model.predict(X), rtol=1e-9)
    for one, other in ((moved, stays), (moved.averaged_model(X), stays.averaged_model(X))):
        a, b = (getattr(each, "model", each).state_dict() for each in (one, other))
        for key, value in a.items():
            np.testing.assert_allclose(value, b[key], rtol=1e-9, atol=1e-12)


def test_a_backward_is_not_taken_along():
    model = net("numba" if fn.backends()["numba"].available else "c")
    model.forward(X)
    model.to("reference")
    with pytest.raises(fn.errors.UsageError, match="backward needs a forward"):
        model.backward(np.ones((20, 2)))


def test_the_same_backend_changes_nothing():
    model = net("reference")
    model.forward(X)
    model.to("reference").backward(np.ones((20, 2)))


def test_before_the_first_use_and_in_copies():
    model = net("auto").to("reference")
    assert "backend='reference'" in repr(model)
    assert pickle.loads(pickle.dumps(model)).backend == "reference"


def test_what_it_refuses():
    model = net("reference")
    for name in ("cpu", 7):
        with pytest.raises(fn.BackendUnavailable, match=r"unknown; expected one of 'auto', 'c'"):
            model.to(name)
    with pytest.raises(fn.errors.UsageError, match="trained or edited elsewhere"), model.edit():
        model.to("auto")
    inner = net("auto")
    outer = fn.Sequential(inner, fn.Linear(2, 2))  # noqa: F841  # which a part does not keep alive
    with pytest.raises(fn.errors.UsageError, match="part of another model: call its to"):
        inner.to("reference")
    assert model.backend == "reference"
