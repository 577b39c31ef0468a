"""Short epochs run as many in one native call as fit: which of three ways they take changes nothing."""

from __future__ import annotations

import gc
import pickle
import weakref

import numpy as np
import pytest
from onecall import Call

import fastnet as fn
from fastnet.backends import registry
from fastnet.errors import HyperparameterError
from fastnet.op import KERNELS
from fastnet.train import scores

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3))
LABELS = RNG.integers(0, 2, size=23)
WEIGHTS = RNG.uniform(0, 2, size=23)
EPOCHS = 40
TIMED = "seconds", "samples_per_second"


class Watching(fn.Callback):
    """Looks at each epoch, and changes the rate at one of them where it is asked to."""

    def __init__(self, changes=None):
        super().__init__(changes=changes)
        self.seen = []

    def on_epoch_end(self, epoch, logs):
        self.seen.append(logs["loss"])
        if self.changes and epoch == 17:
            self.changes(self.trainer)


def net(backend, p=0.3):
    layers = fn.Linear(3, 6), fn.BatchNorm1d(6), fn.Tanh(), fn.Dropout(p), fn.Linear(6, 2)
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=1)


def outcome(trainer):
    records = [{k: v for k, v in r.items() if k not in TIMED} for r in trainer.history.records]
    values = {n: v.tobytes() for n, v in trainer.model.state_dict().items()}
    return records, values, trainer.epoch, trainer.step, trainer.optimizer.state_dict(trainer.model)


def same(one, other):
    assert one[:4] == other[:4]
    np.testing.assert_equal(one[4], other[4])


def counted(monkeypatch, backend):
    """How many steps each native call had."""
    engine, calls = registry.get(backend), []
    train = engine.train

    def counting(args):
        before = int(args["done"][0])
        train(args)
        calls.append(int(args["done"][0]) - before)

    monkeypatch.setattr(engine, "train", counting)
    return calls


FITS = {
    "plain": ({}, {}),
    "full batch": ({}, {"batch_size": 23}),
    "order as it is": ({}, {"shuffle": False}),
    "the last one left out": ({}, {"drop_last": True, "batch_size": 4}),
    "accumulation": ({}, {"accumulation_steps": 3, "batch_size": 3}),
    "a sum": ({"loss": fn.CrossEntropyLoss(reduction="sum")}, {"accumulation_steps": 2}),
    "weights": ({}, {"sample_weight": WEIGHTS}),
    "clipping": ({"clip_value": 0.1, "clip_norm": 0.2}, {}),
    "an average over steps": ({"averaging": fn.EMA(0.9)}, {}),
    "an average over epochs": ({"averaging": fn.SWA(2, 3)}, {}),
    "a schedule": ({"optimizer": fn.SGD(fn.schedules.ExponentialLR(0.1, 0.99), 0.9)}, {}),
    "modes": ({}, {"respect_modes": True}),
}


@pytest.mark.parametrize("case", FITS)
def test_the_three_ways_give_the_same(backend, case, monkeypatch):
    if backend == "cuda":
        pytest.skip("looks at each epoch's parameters on the host")
    options, how = FITS[case]
    options = {"loss": fn.CrossEntropyLoss(), "optimizer": fn.Adam(0.01), **options}

    def fit(seconds, *callbacks):
        monkeypatch.setattr(scores, "CHUNK_SECONDS", seconds)
        given = pickle.loads(pickle.dumps(options))  # each fit has an optimizer of its own
        trainer = fn.Trainer(net(backend), metrics={}, seed=5, **given)
        if case == "modes":
            trainer.model.layers[1][1].eval()
        trainer.fit(X, LABELS, EPOCHS, **{"batch_size": 5, **how}, callbacks=callbacks, verbose=0)
        found = outcome(trainer)
        if trainer._chain.averaging:
            average = trainer.averaged_model(X)
            found[1].update({f"average {n}": v.tobytes() for n, v in average.state_dict().items()})
        return found

    calls = counted(monkeypatch, backend)
    by_steps = fit(0.0)
    assert set(calls) == {1}
    calls.clear()
    at_once = fit(1e9)
    steps = by_steps[3] // EPOCHS
    if case == "an average over epochs":
        assert max(calls) == steps
    else:
        assert max(calls) > 8 * steps  # several epochs in one call
    calls.clear()
    watching = Watching()
    watched = fit(1e9, watching)
    assert max(calls) == steps and len(calls) < EPOCHS + 8  # and one epoch in one
    assert watching.seen == [record["loss"] for record in watched[0]]
    same(at_once, by_steps)
    same(watched, by_steps)


def half(trainer):
    trainer.optimizer.lr = trainer.optimizer.lr / 2


def other(trainer):
    trainer.optimizer = fn.SGD(0.05)


def group(trainer):
    trainer.optimizer.groups = [{"params": "0.*", "lr": 0.3}]


@pytest.mark.parametrize("change", [half, other, group])
def test_what_a_callback_changes_holds_from_the_next_epoch_on(backend, change, monkeypatch):
    found = []
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(scores, "CHUNK_SECONDS", seconds)
        trainer = fn.Trainer(net(backend), fn.CrossEntropyLoss(), fn.SGD(0.1), metrics={}, seed=5)
        trainer.fit(X, LABELS, EPOCHS, 5, callbacks=[Watching(change)], verbose=0)
        found.append(outcome(trainer))
    same(*found)
    plain = fn.Trainer(net(backend), fn.CrossEntropyLoss(), fn.SGD(0.1), metrics={}, seed=5)
    plain.fit(X, LABELS, EPOCHS, 5, verbose=0)
    losses = [[r["loss"] for r in records] for records in (found[0][0], outcome(plain)[0])]
    assert losses[0][:17] == losses[1][:17] and losses[0][17:] != losses[1][17:]


def test_a_callback_ends_the_fit_within_a_call(backend):
    def stop(trainer):
        trainer.stop_training = True

    trainer = fn.Trainer(net(backend), fn.CrossEntropyLoss(), metrics={}, seed=5)
    trainer.fit(X, LABELS, EPOCHS, 5, callbacks=[Watching(stop)], verbose=0)
    assert (trainer.epoch, len(trainer.history), trainer.step) == (17, 17, 17 * 5)
    trainer.fit(X, LABELS, EPOCHS - 17, 5, verbose=0)
    whole = fn.Trainer(net(backend), fn.CrossEntropyLoss(), metrics={}, seed=5)
    whole.fit(X, LABELS, EPOCHS, 5, verbose=0)
    same(outcome(trainer), outcome(whole))


class Ramp(fn.schedules.Schedule):
    """0.2 − t/500, which is no rate from t = 101 on."""

    def __call__(self, step):
        return 0.2 - step / 500


def test_a_schedule_that_fails_leaves_the_epochs_before_it(backend, monkeypatch):
    found = []
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(scores, "CHUNK_SECONDS", seconds)
        metrics = {"self": fn.accuracy}  # a name as good as others
        trainer = fn.Trainer(
            net(backend), fn.CrossEntropyLoss(), fn.SGD(Ramp()), metrics=metrics, seed=5
        )
        with pytest.raises(HyperparameterError, match=r"lr at step 10\d is"):
            trainer.fit(X, LABELS, EPOCHS, 5, verbose=0)
        found.append((outcome(trainer)[0][:20], trainer.epoch))
    assert found[0][0] == found[1][0] and len(found[0][0]) == 20
    assert found[0][1] == found[1][1] == 20
    assert len({record["self"] for record in found[1][0]}) > 3


@pytest.mark.parametrize("where", ["loss", "parameters"])
@pytest.mark.parametrize("watched", [False, True])
def test_a_step_that_fails_leaves_the_epochs_before_it(backend, where, watched, monkeypatch):
    """Steps grow until a loss, or where outputs are bounded a parameter, is not finite."""
    found = []
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(scores, "CHUNK_SECONDS", seconds)
        rates = fn.schedules.ExponentialLR(0.2, 1.1 if where == "loss" else 4.0)
        # tanh of infinity is 1: only the parameters tell.
        layers = [fn.Linear(3, 1), *([fn.Tanh()] if where == "parameters" else [])]
        model = fn.Sequential(*layers, backend=backend, seed=1)
        loss = fn.L1Loss() if where == "parameters" else fn.MSELoss()
        trainer = fn.Trainer(model, loss, fn.SGD(rates), metrics={}, seed=5)
        callbacks = [Watching()] if watched else []
        y = LABELS if where == "loss" else np.full(23, 2.0)
        with pytest.raises(fn.DivergenceError) as caught:
            trainer.fit(X, y, 400, 23, callbacks=callbacks, verbose=0)
        assert ("the parameters are" in str(caught.value)) == (where == "parameters")
        found.append((str(caught.value), *outcome(trainer)[:1], trainer.epoch, trainer.step))
        assert trainer.epoch == len(trainer.history) > 20
    assert found[0] == found[1]


def test_records_are_made_when_they_are_read():
    trainer = fn.Trainer(net("auto"), fn.CrossEntropyLoss(), metrics={}, seed=5)
    history = trainer.fit(X, LABELS, EPOCHS, 5, verbose=0)
    assert history._columns and len(history) == EPOCHS and not history._columns
    assert [r["epoch"] for r in history.records] == list(range(1, EPOCHS + 1))
    assert all(type(v) in (int, float) for r in history.records for v in r.values())
    trainer.fit(X, LABELS, EPOCHS, 5, verbose=0)
    again = pickle.loads(pickle.dumps(trainer)).history
    assert again == history and len(again) == 2 * EPOCHS
    history.records = history.records[:3]
    assert len(trainer.history) == 3


@pytest.mark.parametrize("watched", [False, True])
def test_a_fit_lets_go_of_its_data(backend, watched):
    trainer, rows = fn.Trainer(net(backend), fn.CrossEntropyLoss(), seed=5), X.copy()
    gone = weakref.ref(rows)
    stopping = [Watching(lambda trainer: setattr(trainer, "stop_training", True))]
    trainer.fit(rows, LABELS, EPOCHS, 5, callbacks=stopping if watched else [], verbose=0)
    del rows
    gc.collect()
    assert gone() is None


THREE = RNG.integers(0, 3, size=23)
METRICS = {
    "classes": (fn.CrossEntropyLoss(), LABELS, {"accuracy": fn.accuracy}),
    "ignored": (fn.CrossEntropyLoss(ignore_index=1), THREE, {"accuracy": fn.accuracy}),
    "weights": (fn.CrossEntropyLoss([1, 0, 2]), THREE, {"accuracy": fn.accuracy}),
    "probabilities": (fn.CrossEntropyLoss(), RNG.dirichlet([1, 1], 23), {"accuracy": fn.accuracy}),
    "logits": (fn.BCEWithLogitsLoss(), LABELS[:, None], None),
    "several": (fn.BCEWithLogitsLoss(), RNG.integers(0, 2, (23, 2)), None),
    "two thresholds": (
        fn.BCEWithLogitsLoss(),
        LABELS[:, None],
        {"low": fn.binary_accuracy(-0.5), "high": fn.binary_accuracy(0.5)},
    ),
    "with another": (
        fn.CrossEntropyLoss(),
        LABELS,
        {"largest": lambda y, output: output.max(), "accuracy": fn.accuracy},
    ),
}


@pytest.mark.parametrize("case", METRICS)
def test_accuracy_is_that_of_the_outputs(backend, case, monkeypatch):
    """Whether steps record decisions, or outputs that the metric sees."""
    loss, y, metrics = METRICS[case]
    width = y.shape[1] if y.ndim > 1 else y.max() + 1
    found = []
    for seconds, outputs in ((0.0, False), (1e9, False), (0.0, True)):
        monkeypatch.setattr(scores, "CHUNK_SECONDS", seconds)
        layers = fn.Linear(3, 6), fn.Tanh(), fn.Linear(6, width)
        model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=1)
        trainer = fn.Trainer(model, loss, fn.Adam(0.05), metrics=metrics, seed=5)
        if outputs:  # as functions of somebody else's
            trainer.metrics = {n: lambda y, o, m=m: m(y, o) for n, m in trainer.metrics.items()}
        trainer.fit(X, y, EPOCHS, 23, verbose=0)
        found.append(outcome(trainer)[:2])
    assert found[0] == found[1]
    assert found[0][1] == found[2][1]
    names = list(found[0][0][0])[2:]
    assert names == list(metrics or {"accuracy": 0})
    for name in names:
        one, other = ([record[name] for record in records] for records, _ in (found[0], found[2]))
        np.testing.assert_allclose(one, other, rtol=1e-15)
        assert len(set(one)) > 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_decisions_are_numpys(backend, dtype):
    outputs = np.random.default_rng(1).integers(0, 4, (200, 5)).astype(dtype)
    outputs[::7, 2], outputs[::11, 1:4], outputs[::13] = np.nan, np.nan, -np.inf
    engine, kernel = registry.get(backend), KERNELS["decision_forward"]
    for wide in (outputs, outputs[:, 1:3].copy(), outputs[:, :1].copy()):
        call = Call(kernel, dtype, len(wide), {"N": wide.shape[1]}, {"y": wide})
        call.program["scalar"][0, 0] = 2.0
        expected = wide[:, 0] >= 2 if wide.shape[1] == 1 else np.argmax(wide, axis=1)
        np.testing.assert_array_equal(call.run(engine)["d"], expected)


def test_ctrl_c_before_the_first_step_counts_none(backend, monkeypatch):
    """Also where the call before ended with an epoch whose parameters were not finite."""
    if backend == "cuda":
        pytest.skip("has no native call")
    monkeypatch.setattr(scores, "CHUNK_SECONDS", 1e9)
    model = fn.Sequential(fn.Linear(3, 1), fn.Tanh(), backend=backend, seed=1)
    rates = fn.schedules.ExponentialLR(0.2, 4.0)
    trainer, y = fn.Trainer(model, fn.L1Loss(), fn.SGD(rates), metrics={}, seed=5), np.full(23, 2.0)
    with pytest.raises(fn.DivergenceError, match="the parameters are not finite"):
        trainer.fit(X, y, 400, 23, verbose=0)
    model.reset_parameters()
    steps = trainer.step

    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(registry.get(backend), "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, y, 1, 23, verbose=0)
    assert trainer.step == steps
