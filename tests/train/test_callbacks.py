"""Callbacks: when the hooks are called, early stopping, plateaus, errors in hooks."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, UsageError, shown

S = fn.schedules
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3))
Y = RNG.integers(0, 2, size=12)


class Scores:
    """A metric with prescribed values, one for each epoch."""

    def __init__(self, *values):
        self.values, self.calls = values, 0

    def __call__(self, y, output):
        self.calls += 1
        return self.values[(self.calls - 1) % len(self.values)]


def trainer(scores=(1.0,), *, backend="auto", optimizer=None, **metrics):
    model = fn.Sequential(
        fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Linear(4, 2), seed=1, backend=backend
    )
    metrics = {"score": Scores(*scores), **metrics}
    return fn.Trainer(model, fn.CrossEntropyLoss(), optimizer, metrics, seed=2)


def fit(trainer, epochs=1, *callbacks, **options):
    return trainer.fit(X, Y, epochs, 4, callbacks=callbacks, verbose=0, **options)


def bits(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


class Log(fn.Callback):
    def __init__(self, name="", seen=None):
        self.name, self.seen = name, [] if seen is None else seen

    def on_train_begin(self):
        self.seen.append((self.name, "begin", self.trainer.epoch))

    def on_epoch_end(self, epoch, logs):
        self.seen.append((self.name, epoch, logs))

    def on_train_end(self):
        self.seen.append((self.name, "end", self.trainer.epoch))


def test_hooks_are_called_in_order_with_the_records(backend):
    seen, t = [], trainer((3.0, 2.0), backend=backend)
    fit(t, 2, Log("a", seen), Log("b", seen), validation_data=(X, Y))
    records = t.history.records
    assert [word[:2] for word in seen] == [
        ("a", "begin"),
        ("b", "begin"),
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("b", 2),
        ("b", "end"),
        ("a", "end"),
    ]
    assert [word[2] for word in seen] == [0, 0, *[records[i] for i in (0, 0, 1, 1)], 2, 2]
    assert set(records[0]) >= {"loss", "score", "val_loss", "val_score", "epoch"}


def test_logs_are_a_copy():
    class Spoil(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            logs.clear()

    seen, t = [], trainer()
    fit(t, 1, Spoil(), Log("", seen))
    assert seen[1][2] == t.history.records[0] and "loss" in t.history.records[0]


def test_epochs_are_counted_on(backend):
    log, t = Log(), trainer(backend=backend)
    fit(t, 2, log)
    fit(t, 1, log)
    assert [word[1] for word in log.seen] == ["begin", 1, 2, "end", "begin", 3, "end"]


def test_a_callback_that_does_nothing_changes_nothing(backend):
    one, two = trainer(backend=backend), trainer(backend=backend)
    fit(one, 3)
    fit(two, 3, fn.Callback())
    assert bits(one.model) == bits(two.model)


def test_a_callback_may_stop_predict_and_assign(backend):
    class Mine(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            self.trainer.model.predict(X)
            self.trainer.evaluate(X, Y)
            self.trainer.optimizer.lr = 0.0
            self.values = bits(self.trainer.model)
            self.trainer.stop_training = epoch == 3

    t, mine = trainer(backend=backend, optimizer=fn.SGD(0.1)), Mine()
    fit(t, 9, mine)
    assert t.epoch == 3 and len(t.history) == 3
    fit(t, 2)  # goes on
    assert t.epoch == 5
    after = {name: v for name, v in bits(t.model).items() if name.endswith(("weight", "bias"))}
    assert after.items() <= mine.values.items()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.model.edit().__enter__(),
        lambda t: t.model.load_state_dict(t.model.state_dict()),
        lambda t: fit(t),
        lambda t: t.reset(),
    ],
    ids=["edit", "load", "fit", "reset"],
)
def test_values_are_the_fits(backend, change):
    class Mine(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            change(self.trainer)

    t = trainer(backend=backend)
    with pytest.raises(UsageError, match="being trained or edited"):
        fit(t, 3, Mine())
    assert_well(t, 1)


def assert_well(t, epochs):
    """The trainer is where the error left it, goes on, and starts over."""
    assert t.epoch == len(t.history) == epochs
    assert t.step == t.optimizer.state(t.model).steps == 3 * epochs
    with t.model.edit():
        pass
    twin = trainer(backend=t.model.backend, optimizer=copy.deepcopy(t.optimizer))
    fit(twin, epochs)
    assert bits(twin.model) == bits(t.model)
    fit(t)
    assert t.epoch == epochs + 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, LookupError])
@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_end"])
def test_an_error_in_a_hook_leaves_the_model_well(backend, error, hook):
    class Bad(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            if epoch == 2 and hook == "on_epoch_end":
                raise error

        def on_train_end(self):
            if hook == "on_train_end":
                raise error

    log, t = Log(), trainer(backend=backend)
    with pytest.raises(error):
        fit(t, 2, log, Bad(), log)
    assert log.seen[-1][1] == "end"  # the others' ends come all the same
    assert_well(t, 2)


def test_an_error_at_the_beginning_changes_nothing():
    class Bad(fn.Callback):
        def on_train_begin(self):
            raise LookupError

        def on_train_end(self):
            raise AssertionError

    log, t = Log(), trainer()
    before = bits(t.model)
    with pytest.raises(LookupError):
        fit(t, 2, log, Bad())
    assert bits(t.model) == before and t.epoch == 0
    assert [word[1] for word in log.seen] == ["begin", "end"]
    fit(t)


# Early stopping.


@pytest.mark.parametrize(
    ("options", "scores", "epochs"),
    [  # how many epochs are done
        ({"patience": 2}, [5, 4, 4, 4, 1, 1], 4),
        ({"patience": 2}, [5, 4, 4.5, 3, 3.5, 3.2, 0], 6),
        ({"patience": 0}, [5, 4, 4, 1], 3),
        ({"patience": 1}, [5, 4, 4, 1], 3),
        ({"patience": 2, "min_delta": 1}, [5, 4.5, 4, 3, 1], 3),
        ({"patience": 3, "min_delta": 1}, [5, 4.5, 4, 3.9, 1, 1, 1, 1], 8),
        ({"patience": 2, "mode": "max"}, [5, 6, 6, 6, 9], 4),
        ({"patience": 2}, [math.nan, math.nan, 1], 2),
        ({"patience": 2}, [5, math.nan, 4, math.nan, 6, 1], 5),
        ({"patience": 2, "ties": "last"}, [5, 4, 4, 4, 5, 4, 5, 6, 1], 8),
        ({"patience": 2, "ties": "last", "min_delta": 1}, [5, 4.5, 5, 4.5, 4.5, 1], 5),
        ({"patience": 2, "ties": "last"}, [math.nan, math.nan, 1], 2),
    ],
)
def test_early_stopping_ends_with_the_epoch_that_exhausts_patience(options, scores, epochs):
    t, stop = trainer(scores), fn.EarlyStopping("score", **{"mode": "min", **options})
    fit(t, len(scores), stop)
    assert t.epoch == epochs
    assert stop.stopped_epoch == epochs


def test_a_fit_that_is_not_stopped():
    stop = fn.EarlyStopping("score", 5, mode="min")
    fit(trainer([5, 4, 4]), 3, stop)
    assert (stop.stopped_epoch, stop.best, stop.best_epoch, stop.wait) == (None, 4, 2, 1)


@pytest.mark.parametrize(("ties", "best"), [("first", 2), ("last", 3)])
@pytest.mark.parametrize("restore", [True, False])
def test_the_best_weights_come_back(backend, restore, ties, best):
    values = {}

    class Keep(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            values[epoch] = bits(self.trainer.model)

    stop = fn.EarlyStopping("score", 2, mode="min", restore_best_weights=restore, ties=ties)
    t = trainer([5, 3, 3, 4, 4, 1], backend=backend)
    fit(t, 9, Keep(), stop)
    end = best + 2
    assert (stop.best, stop.best_epoch, stop.stopped_epoch, t.epoch) == (3, best, end, end)
    assert bits(t.model) == values[best if restore else end]
    assert len(set(map(str, values.values()))) == end


@pytest.mark.parametrize("end", ["epochs", "error"])
def test_the_best_weights_come_back_however_the_fit_ends(end):
    class Keep(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            if epoch == 1:
                self.values = bits(self.trainer.model)
            if epoch == 2 and end == "error":
                raise KeyboardInterrupt

    keep, stop = Keep(), fn.EarlyStopping("score", 9, mode="min", restore_best_weights=True)
    t = trainer([3, 4, 4])
    try:
        fit(t, 3, keep, stop)
    except KeyboardInterrupt:
        assert end == "error"
    assert bits(t.model) == keep.values


def test_predictions_are_those_of_the_best_weights(backend):
    class Predict(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            self.trainer.model.predict(X)  # with weights that batchnorm is folded into

    t = trainer([3, 4, 4], backend=backend)
    stop = fn.EarlyStopping("score", 2, mode="min", restore_best_weights=True)
    fit(t, 3, stop, Predict())
    np.testing.assert_array_equal(t.model.predict(X), copy.deepcopy(t.model).predict(X))


def test_restore_best_has_seen_the_epoch_in_which_a_callback_fails():
    class Bad(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            self.values = bits(self.trainer.model)
            if epoch == 3:
                raise LookupError

    t, bad = trainer(optimizer=fn.SGD(0.1)), Bad()
    with pytest.raises(LookupError):
        fit(t, 9, bad, validation_data=(X, Y), restore_best=True)
    losses = t.history.history["val_loss"]
    assert losses[2] == min(losses) and bits(t.model) == bad.values


def test_each_fit_begins_anew():
    t, stop = trainer([5, 6, 7, 8, 9, 10]), fn.EarlyStopping("score", 2, mode="min")
    for epochs in (3, 6):
        fit(t, 9, stop)
        assert t.epoch == epochs and stop.stopped_epoch == epochs


def test_auto_is_min_for_losses_and_max_for_accuracies():
    for kind in (fn.EarlyStopping, fn.ReduceLROnPlateau):
        found = [kind(m).mode for m in ("loss", "val_loss", "accuracy", "val_accuracy")]
        assert found == ["min", "min", "max", "max"]
    assert fn.EarlyStopping().monitor == fn.ReduceLROnPlateau().monitor == "val_loss"


# Plateaus; the rule itself is compared in tests/peers.


def reduced(optimizer, scores=(1.0,), epochs=4, **options):
    """The optimizer after a fit, with rates that are reduced at the ends of epochs 3 and 4 at first."""
    t = trainer(scores, optimizer=optimizer)
    plateau = fn.ReduceLROnPlateau(
        "score", **{"mode": "min", "patience": 1, "factor": 0.5} | options
    )
    fit(t, epochs, plateau)
    return t, plateau


def test_a_rate_is_reduced_on_a_plateau():
    rates = []

    class Rate(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            rates.append(self.trainer.optimizer.lr)

    plateau = fn.ReduceLROnPlateau("score", 0.5, 1, mode="min")
    fit(trainer([5, 4, 4, 4, 4, 4, 3, 3, 3], optimizer=fn.SGD(0.8)), 9, Rate(), plateau)
    assert rates == [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.2]


def test_a_schedule_is_reduced_as_a_whole():
    schedule = S.LinearLR(0.8, 1.0, 0.1, 100)
    t, _ = reduced(fn.Adam(schedule), epochs=3)
    assert t.optimizer.lr == 0.5 * schedule
    fit(t)
    t, _ = reduced(fn.Adam(schedule), epochs=5)
    assert t.optimizer.lr == 0.25 * schedule
    t, _ = reduced(fn.Adam(schedule), epochs=3, min_lr=0.6)
    assert t.optimizer.lr(9) == pytest.approx(0.6, rel=1e-15)  # the next step's


def test_the_rates_of_groups_are_reduced_too():
    groups = [{"params": "0.*", "lr": 0.2}, {"params": "1.*", "weight_decay": 0.1}]
    groups += [{"params": "2.*", "lr": S.ConstantLR(0.4, 1.0, 0)}]
    t, _ = reduced(fn.AdamW(0.8, groups=groups), epochs=3)
    assert t.optimizer.lr == 0.4
    assert [g.get("lr") for g in t.optimizer.groups] == [0.1, None, 0.5 * groups[2]["lr"]]
    assert t.optimizer.state(t.model).steps == 9  # with what it remembers
    t, _ = reduced(fn.SGD(0.8, groups=groups), epochs=5, min_lr=0.15)
    assert t.optimizer.lr == 0.2 and t.optimizer.groups[0]["lr"] == 0.15


def test_a_further_fit_goes_on_and_another_trainer_begins_anew():
    t, plateau = reduced(fn.SGD(0.8), epochs=1)
    fit(t, 1, plateau)
    assert t.optimizer.lr == 0.8
    fit(t, 1, plateau)
    assert t.optimizer.lr == 0.4
    other = trainer(optimizer=fn.SGD(0.8))
    fit(other, 5)
    fit(other, 2, plateau)
    assert other.optimizer.lr == 0.8
    other.reset()
    fit(other, 2, plateau)
    assert other.optimizer.lr == 0.8
    fit(other, 1, plateau)
    assert other.optimizer.lr == 0.4


def test_a_reduced_rate_acts_at_the_next_step(backend):
    one = trainer(optimizer=fn.SGD(0.8, 0.9), backend=backend)
    two = trainer(optimizer=fn.SGD(0.8, 0.9), backend=backend)
    fit(one, 4, fn.ReduceLROnPlateau("score", 0.5, 1, mode="min"))
    fit(two, 3)
    two.optimizer.lr = 0.4
    fit(two, 1)
    assert bits(one.model) == bits(two.model)


@pytest.mark.parametrize("make", [fn.EarlyStopping, fn.ReduceLROnPlateau])
def test_callbacks_copy_and_pickle(make):
    callback = make("score", mode="min")
    fit(trainer(), 3, callback)
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert twin.trainer is None
        fit(trainer(), 3, twin)
        assert twin.best == callback.best


# What is refused.

STOP, PLATEAU = fn.EarlyStopping, fn.ReduceLROnPlateau


@pytest.mark.parametrize(
    ("kind", "name", "wanted", "bad"),
    [
        (PLATEAU, "threshold_mode", "one of 'rel', 'abs'", ["x", None, 3]),
        (STOP, "mode", "one of 'auto', 'min', 'max'", ["x", None, 3]),
        (PLATEAU, "mode", "one of 'auto', 'min', 'max'", ["x", None, 3]),
    ],
)
def test_bad_arguments(kind, name, wanted, bad):
    for value in bad:
        with pytest.raises(HyperparameterError) as caught:
            kind(**{name: value})
        assert str(caught.value) == f"{name} is {shown(value)}; expected {wanted}"


def test_bad_callbacks_are_refused_before_anything_changes():
    t = trainer()
    before = bits(t.model)
    refused(lambda: STOP("score"), HyperparameterError, "^mode is 'auto' with monitor='score'")
    for callbacks, message in [
        (3, "^callbacks is 3; expected a list of callbacks"),
        ([fn.Callback(), print], r"^callbacks\[1\] is <built.*expected a Callback"),
        ([fn.Callback], r"^callbacks\[0\] is the class Callback"),
        ([STOP()], "^EarlyStopping: monitor is 'val_loss'; this fit records loss, score"),
        ([PLATEAU("lost", mode="min")], "^ReduceLROnPlateau: monitor is 'lost'"),
    ]:
        refused(
            lambda c=callbacks: t.fit(X, Y, callbacks=c, verbose=0), HyperparameterError, message
        )
    assert bits(t.model) == before and t.epoch == 0


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("level", [-1.0, -100.0, 0.0, 1.0])
def test_a_relative_threshold_works_at_any_sign(mode, level):
    """A constant score is no better, nor one that slowly worsens; one that improves by more is."""
    sign = 1.0 if mode == "max" else -1.0
    for change, better in [(0.0, False), (-1e-5, False), (1e-5, False), (1e-2, True)]:
        plateau = fn.ReduceLROnPlateau("score", patience=2, mode=mode)
        plateau.trainer = t = trainer()
        plateau.on_train_begin()
        scores = [level + sign * number * change * max(abs(level), 1e-3) for number in range(4)]
        if level == 0.0 and change == 1e-5:
            continue  # above nothing every gain is a large one
        for epoch, score in enumerate(scores, 1):
            plateau.on_epoch_end(epoch, {"score": score})
        assert t.optimizer.lr == pytest.approx(1e-3 if better else 1e-4), (change, scores)


def test_restore_best_follows_early_stopping():
    """Its score decides; the first of several; without one the validation loss."""
    scores = {"a": [1.0, 3.0, 2.0], "b": [5.0, 1.0, 9.0]}

    def kept(*callbacks):
        t = trainer()
        seen, counts = [], {"a": 0, "b": 0}

        def metric(name):
            def score(y, output):
                if len(y) != 3:
                    return 0.0
                if name == "a":
                    seen.append(bits(t.model))
                counts[name] += 1
                return scores[name][counts[name] - 1]

            return score

        t.metrics = {name: metric(name) for name in scores}
        t.fit(*(X, Y, 3, 4, (X[:3], Y[:3])), restore_best=True, callbacks=callbacks, verbose=0)
        losses = t.history.history["val_loss"]
        return seen.index(bits(t.model)), int(np.argmin(losses))

    a = fn.EarlyStopping("val_a", 9, mode="max")
    b = fn.EarlyStopping("val_b", 9, mode="max")
    assert kept(a)[0] == 1 and kept(b)[0] == 2 and kept(b, a)[0] == 2
    assert kept(fn.EarlyStopping("val_b", 9, mode="min"))[0] == 1
    assert trainer((1.0, 3.0, 2.0)).fit(  # a training score needs no validation data
        *(X, Y, 3, 4), restore_best=True, callbacks=[STOP("score", 9, mode="max")], verbose=0
    )
    found, lowest = kept()
    assert found == lowest == 0
