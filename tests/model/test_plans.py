"""Plans belong to architectures: numbers of losses and layers are given to them."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import fastnet as fn
from fastnet.model import runtime

X = np.random.default_rng(0).normal(size=(12, 5))
Y = np.random.default_rng(1).normal(size=(12, 3))
LABELS = np.arange(12) % 3


def net(backend, p=0.0, slope=0.1):
    layers = fn.Linear(5, 8), fn.LeakyReLU(slope), fn.Dropout(p), fn.Linear(8, 3)
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=2)


def weights(k):
    return np.array([1.0, 2.0, 3.0]) + k


FAMILIES = {
    "delta": (lambda k: fn.HuberLoss(delta=0.1 + k / 100), Y),
    "label_smoothing": (lambda k: fn.CrossEntropyLoss(label_smoothing=(1 + k) / 400), LABELS),
    "class weights": (lambda k: fn.CrossEntropyLoss(weight=weights(k)), LABELS),
    "pos_weight": (lambda k: fn.BCEWithLogitsLoss(pos_weight=1.5 + k), (Y > 0) * 1.0),
    "margin": (lambda k: fn.MultiMarginLoss(margin=1.0 + k / 10), LABELS),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_many_values_of_a_losss_number_have_one_plan(backend, name):
    make, y = FAMILIES[name]
    model, before = net(backend), len(runtime._plans)
    for k in [*range(0, 300, 7 if backend == "reference" else 1), 3, 1, 3]:
        loss = make(k)
        found = model.value_and_grad(loss, X, y)
        if k % 50 < 4:
            output = model.forward(X)
            assert found == pytest.approx(loss.forward(output, y), rel=1e-12), k
            grads = {n: g.copy() for n, g in model.grads.items()}
            model.zero_grad()
            model.backward(loss.backward())
            for n, g in model.grads.items():
                np.testing.assert_allclose(grads[n], g, rtol=1e-9, atol=1e-14, err_msg=n)
    assert len(model._runtime.kept.executors) <= 2  # that of the losses, that of forward
    assert len(model._runtime.kept.described) <= runtime.KEPT
    assert len(runtime._plans) <= min(before + 2, runtime.PLANS)


def test_a_fit_has_its_own_numbers(backend):
    model, twin = net(backend), net(backend)
    trainer = fn.Trainer(model, fn.HuberLoss(delta=0.2), fn.SGD(0.1), seed=0)
    other = fn.Trainer(twin, fn.HuberLoss(delta=0.2), fn.SGD(0.1), seed=0)
    for _ in range(3):
        model.value_and_grad(fn.HuberLoss(delta=3.0), X, Y)
        trainer.evaluate(X, Y), fn.Trainer(model, fn.HuberLoss(delta=4.0)).evaluate(X, Y)
        trainer.fit(X, Y, epochs=1, batch_size=4, validation_data=(X, Y), verbose=0)
        other.fit(X, Y, epochs=1, batch_size=4, validation_data=(X, Y), verbose=0)
    for (name, ours), theirs in zip(
        model.named_parameters().items(), twin.parameters(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    ours, theirs = ([r["val_loss"] for r in t.history.records] for t in (trainer, other))
    assert ours == theirs


def test_models_of_one_architecture_share_their_plans(backend):
    runtime._plans.clear()
    outputs = []
    for p, slope in ((0.2, 0.1), (0.5, 0.3), (0.2, 0.1)):
        model = net(backend, p, slope)
        model.value_and_grad(fn.MSELoss(), X, Y)
        outputs.append(model.predict(X))
        assert len(runtime._plans) == 2  # one that trains, one that predicts
    assert (outputs[0] != outputs[1]).any()
    np.testing.assert_array_equal(outputs[0], outputs[2])


def test_shared_plans_keep_no_model_alive(backend):
    layers = fn.Linear(5, 4), fn.BatchNorm1d(4), fn.Linear(4, 3)
    model = fn.Sequential(*layers, backend=backend)
    model.value_and_grad(fn.CrossEntropyLoss(weight=weights(0)), X, LABELS)
    model.predict(X)
    ended = weakref.ref(model), weakref.ref(model.bind())
    del model, layers
    gc.collect()
    assert ended[0]() is None and ended[1]() is None
