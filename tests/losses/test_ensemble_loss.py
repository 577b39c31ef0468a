"""The loss of an ensemble: in training the mean of its members' losses, else the average's loss."""

from __future__ import annotations

import gradcheck
import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError

K, ROWS, INPUTS, OUTPUTS = 3, 7, 4, 3
RNG = np.random.default_rng(5)
X = RNG.normal(size=(ROWS, INPUTS))
LABELS = RNG.integers(0, OUTPUTS, ROWS)
REALS = RNG.normal(size=(ROWS, OUTPUTS))
PROBABILITIES = np.abs(REALS) / 4
LABELS_WITH_GAPS = np.where(np.arange(ROWS) % 3, LABELS, -1)
CASES = {
    "classes": (lambda: fn.CrossEntropyLoss(), LABELS),
    "classes with options": (
        lambda: fn.CrossEntropyLoss([1, 2, 0.5], ignore_index=-1, label_smoothing=0.2),
        LABELS_WITH_GAPS,
    ),
    "sum": (lambda: fn.CrossEntropyLoss(reduction="sum"), LABELS),
    "probabilities": (lambda: fn.CrossEntropyLoss(), PROBABILITIES),
    "margins": (lambda: fn.MultiMarginLoss(), LABELS),
    "squares": (lambda: fn.MSELoss(), REALS),
    "squares of rows": (lambda: fn.HalfMSELoss(), REALS),
    "sum of squares": (lambda: fn.MSELoss("sum"), REALS),
    "huber": (lambda: fn.HuberLoss(0.5), REALS),
    "truths": (lambda: fn.BCEWithLogitsLoss([1, 2, 3]), PROBABILITIES),
}


def layers(average):
    return [
        fn.EnsembleView(K),
        fn.LinearBatchEnsemble(INPUTS, 6, K, r_init=fn.init.Normal()),
        fn.Tanh(),
        fn.LinearEnsemble(6, OUTPUTS, K),
        fn.EnsembleMean(K, average),
    ]


def net(backend, average="outputs", seed=3):
    return fn.Sequential(*layers(average), dtype="float64", backend=backend, seed=seed)


def of_members(model, x):
    """The outputs of each member (n, k, outputs)."""
    inner = fn.Sequential(*layers("outputs")[:-1], dtype="float64", backend="reference")
    inner.load_state_dict(model.state_dict())
    return inner.predict(x).reshape(len(x), K, OUTPUTS)


@pytest.mark.parametrize("average", ["outputs", "probabilities"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_training_takes_the_mean_of_the_members_losses(backend, case, average, weighted):
    make, y = CASES[case]
    model, given = net(backend, average), {}
    if weighted:
        given = {"sample_weight": np.linspace(0, 2, ROWS)}
    found = model.value_and_grad(fn.EnsembleLoss(make()), X, y, **given)
    outputs = of_members(model, X)
    each = [make().forward(outputs[:, n], y, *given.values()) for n in range(K)]
    assert found == pytest.approx(np.mean(each), rel=1e-13)
    gradcheck.check_loss_gradient(model, fn.EnsembleLoss(make()), X, y, **given)


@pytest.mark.parametrize("case", CASES)
def test_evaluation_takes_the_loss_of_the_average(backend, case):
    make, y = CASES[case]
    model = net(backend)
    trainer = fn.Trainer(model, fn.EnsembleLoss(make()), metrics=[])
    found = trainer.evaluate(X, y)["loss"]
    average = of_members(model, X).mean(axis=1)
    assert found == pytest.approx(make().forward(average, y), rel=1e-13)


def test_a_fit_minimises_the_mean_and_reports_the_average(backend):
    model = net(backend, "probabilities")
    before, outputs = model.state_dict(), of_members(model, X)
    trainer = fn.Trainer(model, fn.EnsembleLoss(fn.CrossEntropyLoss()), fn.SGD(0.5), seed=1)
    record = trainer.fit(
        X, LABELS, epochs=1, batch_size=ROWS, validation_data=(X, LABELS), verbose=0
    ).records[0]
    each = [fn.CrossEntropyLoss().forward(outputs[:, n], LABELS) for n in range(K)]
    assert record["loss"] == pytest.approx(np.mean(each), rel=1e-13)
    other = net("reference", "probabilities")
    other.load_state_dict(before)
    other.value_and_grad(fn.EnsembleLoss(fn.CrossEntropyLoss()), X, LABELS)
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(value, before[name] - 0.5 * other.grads[name], atol=1e-13)
    e = np.exp(of_members(model, X))
    p = (e / e.sum(axis=2, keepdims=True)).mean(axis=1)
    assert record["val_loss"] == pytest.approx(-np.log(p[range(ROWS), LABELS]).mean(), rel=1e-12)
    assert record["val_accuracy"] == np.mean(p.argmax(axis=1) == LABELS)
    np.testing.assert_allclose(model.predict_proba(X), p, rtol=1e-12)
    np.testing.assert_array_equal(model.predict_classes(X), p.argmax(axis=1))


@pytest.mark.parametrize("metrics", [None, []])
def test_a_fit_with_and_without_accuracy_is_the_same(backend, metrics):
    fitted = []
    for given in ({}, {"metrics": metrics}):
        model = net(backend, "probabilities")
        trainer = fn.Trainer(model, fn.EnsembleLoss(fn.CrossEntropyLoss()), seed=1, **given)
        trainer.fit(X, LABELS, epochs=3, batch_size=3, verbose=0)
        fitted.append(model.state_dict())
    for name, value in fitted[0].items():
        np.testing.assert_array_equal(value, fitted[1][name])


def test_other_models_have_the_loss_itself(backend):
    model = fn.Sequential(fn.Linear(INPUTS, OUTPUTS), dtype="float64", backend=backend, seed=1)
    for loss, y in ((fn.CrossEntropyLoss(), LABELS), (fn.MSELoss(), REALS)):
        want = model.value_and_grad(loss, X, y)
        assert model.value_and_grad(fn.EnsembleLoss(loss), X, y) == pytest.approx(want, rel=1e-14)
    y = RNG.normal(size=(ROWS, OUTPUTS))
    alone, same = fn.EnsembleLoss(fn.HuberLoss()), fn.HuberLoss()
    assert alone.forward(y, REALS) == pytest.approx(same.forward(y, REALS), rel=1e-14)
    np.testing.assert_allclose(alone.backward(), same.backward(), rtol=1e-13)
    single = fn.EnsembleLoss(fn.MSELoss("none"))
    np.testing.assert_array_equal(single.forward(y, REALS), (y - REALS) ** 2)


def test_gradients_of_members_add_up_where_weights_are_shared(backend):
    """fastnet.check.gradients takes the loss that training does."""
    loss = fn.EnsembleLoss(fn.CrossEntropyLoss(label_smoothing=0.1))
    assert fn.check.gradients(net(backend, "probabilities"), loss, X, LABELS)


def test_what_is_no_loss_of_members_is_refused():
    inner = fn.EnsembleLoss(fn.MSELoss())
    for wrong in (fn.MSELoss, "mse", lambda y, t: (0.0, y), inner, fn.FunctionLoss(print)):
        refused(
            lambda w=wrong: fn.EnsembleLoss(w), HyperparameterError, "^loss is .*; expected a loss"
        )
