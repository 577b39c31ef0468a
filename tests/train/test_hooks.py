"""Hooks of callbacks: when they are called, with what, and that they change nothing by being there."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(25, 3)).astype("f")
Y = RNG.integers(0, 2, 25)


def make(backend="reference", lr=0.01):
    layers = fn.Linear(3, 5), fn.BatchNorm1d(5), fn.ReLU(), fn.Dropout(0.2), fn.Linear(5, 2)
    model = fn.Sequential(*layers, backend=backend, seed=1)
    return fn.Trainer(model, fn.CrossEntropyLoss(), fn.SGD(lr), seed=2)


class All(fn.Callback):
    """Notes every call."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_begin(self):
        self.calls.append("train begin")

    def on_epoch_begin(self, epoch):
        self.calls.append(("epoch begin", epoch))

    def on_train_batch_begin(self, batch):
        self.calls.append(("batch begin", batch))

    def on_train_batch_end(self, batch, logs):
        self.calls.append(("batch end", batch, *logs))

    def on_test_begin(self):
        self.calls.append("test begin")

    def on_test_end(self, logs):
        self.calls.append(("test end", *logs))

    def on_epoch_end(self, epoch, logs):
        self.calls.append(("epoch end", epoch))

    def on_train_end(self):
        self.calls.append("train end")


def test_all_hooks_are_called_in_order(backend):
    noting = All()
    make(backend).fit(X, Y, 2, 10, (X, Y), callbacks=[noting], verbose=0)
    epoch = [
        ("epoch begin", 1),
        *[
            (f"batch {end}", b, *(["loss"] if end == "end" else []))
            for b in (1, 2, 3)
            for end in ("begin", "end")
        ],
        "test begin",
        ("test end", "val_loss", "val_accuracy"),
        ("epoch end", 1),
    ]
    second = [(c[0], 2) if "epoch" in c[0] else c for c in epoch]
    assert noting.calls == ["train begin", *epoch, *second, "train end"]


@pytest.mark.parametrize("batch", [10, 25])
def test_they_change_nothing(backend, batch):
    plain, noted = make(backend), make(backend)
    plain.fit(X, Y, 6, batch, verbose=0)
    noted.fit(X, Y, 6, batch, callbacks=[All()], verbose=0)
    assert plain.model.predict(X).tobytes() == noted.model.predict(X).tobytes()
    assert [r["loss"] for r in plain.history.records] == [r["loss"] for r in noted.history.records]


def test_losses_of_minibatches_make_the_epochs(backend):
    losses = []

    class Losses(fn.Callback):
        def on_train_batch_end(self, batch, logs):
            losses.append(logs.pop("loss"))

    trainer = make(backend)
    trainer.fit(X, Y, 1, 5, callbacks=[Losses()], verbose=0)
    assert np.mean(losses) == pytest.approx(trainer.history.records[0]["loss"], rel=1e-12)


@pytest.mark.parametrize("batch", [5, 25])
def test_a_rate_set_before_an_epoch_acts_in_it(backend, batch):
    by_hand, scheduled = make(backend), make(backend)
    for lr in (0.1, 0.05, 0.0, 0.2):
        by_hand.optimizer.lr = lr
        by_hand.fit(X, Y, 1, batch, verbose=0)
    rates = [0.1, 0.05, 0.0, 0.2]
    schedule = fn.LearningRateScheduler(lambda epoch: rates[epoch])
    scheduled.fit(X, Y, 4, batch, callbacks=[schedule], verbose=0)
    assert by_hand.model.predict(X).tobytes() == scheduled.model.predict(X).tobytes()


def test_a_schedule_that_takes_the_rate():
    trainer = make(lr=0.8)
    schedule = fn.LearningRateScheduler(lambda epoch, lr: lr / 2 if epoch else lr)
    trainer.fit(X, Y, 4, callbacks=[schedule], verbose=0)
    assert trainer.optimizer.lr == 0.1
    for bad in (3, None):
        with pytest.raises(HyperparameterError, match=r"schedule is .*; expected a function"):
            fn.LearningRateScheduler(bad)
    for rate in (-1, "fast", np.nan):
        with pytest.raises(HyperparameterError, match="the rate that schedule returned is"):
            make().fit(X, Y, callbacks=[fn.LearningRateScheduler(lambda _, r=rate: r)], verbose=0)


def test_a_timer_ends_a_fit():
    trainer, timer = make(), fn.Timer(0.05)
    trainer.fit(X, Y, 10**6, callbacks=[timer], verbose=0)
    assert trainer.stop_reason == "Timer" and timer.seconds > 0.05 and trainer.epoch > 1
    unlimited = fn.Timer()
    trainer.fit(X, Y, 2, callbacks=[unlimited], verbose=0)
    assert trainer.stop_reason == "epochs" and 0 < unlimited.seconds < 10


def test_why_a_fit_ended():
    trainer = make()
    assert trainer.stop_reason is None
    trainer.fit(X, Y, 2, verbose=0)
    assert trainer.stop_reason == "epochs"
    stopping = fn.EarlyStopping("loss", patience=1, min_delta=10)
    trainer.fit(X, Y, 9, callbacks=[fn.Timer(), stopping], verbose=0)
    assert trainer.stop_reason == "EarlyStopping"

    class Fails(fn.Callback):
        def on_epoch_begin(self, epoch):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trainer.fit(X, Y, 2, callbacks=[Fails()], verbose=0)
    assert trainer.stop_reason == "ZeroDivisionError"
    trainer.optimizer.lr = 1e30
    with pytest.raises(fn.DivergenceError):
        trainer.fit(X, Y, 9, verbose=0)
    assert trainer.stop_reason == "DivergenceError"


def test_snapshots_make_an_ensemble(backend):
    snapshots, expected = fn.Snapshots(2, keep=2), []

    class Predicts(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            expected.append(self.trainer.model.predict(X))

    make(backend).fit(X, Y, 7, callbacks=[snapshots, Predicts()], verbose=0)
    assert [m.predict(X).tobytes() for m in snapshots.models] == [
        expected[e - 1].tobytes() for e in (4, 6)
    ]
    mean = fn.Ensemble(snapshots.models, "probabilities").predict(X)
    np.testing.assert_allclose(mean.sum(axis=1), 1, rtol=1e-6)
    make(backend).fit(X, Y, 1, callbacks=[snapshots], verbose=0)
    assert snapshots.models == []


def test_an_unknown_hook_is_refused():
    with pytest.raises(
        fn.errors.UsageError, match="on_batch_end is no hook; the hooks are on_train_begin"
    ):

        class Wrong(fn.Callback):
            def on_batch_end(self, batch):
                pass
