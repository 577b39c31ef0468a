"""Losses and metrics of an epoch, in blocks of outputs where these are many."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.backends.executor import Executor
from fastnet.train import scores

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(23, 3)).astype("float32"), RNG.integers(0, 2, 23)


def fit(metrics=None, **options):
    model = fn.Sequential(fn.Linear(3, 2), seed=0)
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), metrics=metrics, seed=1)
    return trainer.fit(X, Y, 2, batch_size=5, verbose=0, **options).records


@pytest.mark.parametrize("rows", [1, 5, 10, 22, 1000])
def test_blocks_cut_nothing_off(monkeypatch, rows):
    seen = []

    def metric(y, output):
        seen.append(len(y))
        return float(np.mean(np.argmax(output, axis=1) == y))

    whole = fit()
    monkeypatch.setattr(scores, "BLOCK_BYTES", rows * 2 * 4)
    parts = fit({"accuracy": metric})
    assert sum(seen) == 2 * 23
    assert max(seen) == min(23, max(5, rows // 5 * 5))
    for a, b in zip(whole, parts, strict=True):
        assert a["loss"] == b["loss"]
        assert a["accuracy"] == pytest.approx(b["accuracy"], rel=1e-15)


def test_a_metric_that_returns_no_number_is_named():
    with pytest.raises(fn.errors.DataError, match=r"metrics\['nothing'\] returned None"):
        fit({"nothing": lambda y, output: None})


def test_names_of_metrics_leave_those_of_validation_alone():
    with pytest.raises(fn.errors.HyperparameterError, match=r"metrics\['val_loss'\]"):
        fit({"val_loss": lambda y, output: 0.0})


def test_evaluate_leaves_a_pending_backward_of_the_loss_alone():
    loss, logits = fn.CrossEntropyLoss(), RNG.normal(size=(23, 2))
    trainer = fn.Trainer(fn.Sequential(fn.Linear(3, 2), seed=0), loss, seed=1)
    loss.forward(logits, Y)
    expected = loss.backward()
    loss.forward(logits, Y)
    trainer.evaluate(X, Y)
    np.testing.assert_array_equal(loss.backward(), expected)


IGNORED = np.where(np.arange(23) < 12, -100, Y)  # so many that some blocks have none that count
COUNTING = {
    "ignored": (fn.CrossEntropyLoss(), IGNORED),
    "another label": (fn.CrossEntropyLoss(ignore_index=0), Y),
    "classes": (fn.NLLLoss(weight=[0.0, 2.0]), Y),
    "none": (fn.CrossEntropyLoss(), np.full(23, -100)),
    "probabilities": (fn.CrossEntropyLoss(), np.eye(2)[Y]),
}


@pytest.mark.parametrize("case", COUNTING)
@pytest.mark.parametrize("rows", [1, 10])
def test_blocks_weigh_as_many_rows_as_count_in_them(monkeypatch, case, rows):
    loss, y = COUNTING[case]

    def accuracy():
        layers = fn.Linear(3, 2), *([fn.LogSoftmax()] if isinstance(loss, fn.NLLLoss) else [])
        trainer = fn.Trainer(fn.Sequential(*layers, seed=0), loss, fn.SGD(0.0), seed=1)
        records = trainer.fit(X, y, 2, batch_size=5, shuffle=False, verbose=0).records
        return [record["accuracy"] for record in records]

    whole = accuracy()
    monkeypatch.setattr(scores, "BLOCK_BYTES", rows * 2 * 4)
    assert accuracy() == pytest.approx(whole, rel=1e-15)


@pytest.mark.parametrize("metrics", [None, {}])
@pytest.mark.parametrize("rows", [1, 2, None])
def test_a_validation_goes_by_short_calls_which_change_nothing(monkeypatch, metrics, rows):
    model = fn.Sequential(fn.Linear(3, 2), fn.BatchNorm1d(2), seed=0)
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), metrics=metrics, seed=1)
    weights, whole, calls, train = RNG.random(23), [], [], Executor.train

    def counted(self, data, steps, update):
        calls.append(len(steps.offsets) - 1)
        return train(self, data, steps, update)

    monkeypatch.setattr(Executor, "train", counted)
    for first, seconds in (1000, 1e9), (1, 0.0):  # one call, or a call a minibatch
        monkeypatch.setattr(scores, "FIRST_CHUNK", first)
        monkeypatch.setattr(scores, "CHUNK_SECONDS", seconds)
        calls.clear()
        whole.append(trainer.evaluate(X, Y, rows, sample_weight=weights))
    assert whole[0] == whole[1]
    assert calls == [1] * -(-23 // (rows or 23))
