"""Fitting: which rows, what is recorded, going on and starting over, evaluation, the best epoch."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest

import fastnet as fn
from fastnet.train import scores

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3))
LABELS = RNG.integers(0, 2, size=23)
ROWS = np.arange(23.0)[:, None]


def net(backend="auto", *, seed=1, dtype="float64", p=0.3):
    layers = fn.Linear(3, 6), fn.BatchNorm1d(6), fn.Tanh(), fn.Dropout(p), fn.Linear(6, 2)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=seed)


def trainer(model, *, seed=5, **options):
    return fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(0.01), seed=seed, **options)


def bits(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


def untimed(history):
    timed = "seconds", "samples_per_second"
    return [{k: v for k, v in r.items() if k not in timed} for r in history.records]


# What a fit sees: a net that hands its input through, trained at a rate of 0.


def echo(backend, dtype="float64", *extra):
    model = fn.Sequential(fn.Linear(1, 1, bias=False), *extra, dtype=dtype, backend=backend)
    model.load_state_dict({"0.weight": [[1.0]]}, strict=False)
    return model


class Seen:
    """A metric that keeps the rows that the model has seen, and checks the targets that came along."""

    def __init__(self):
        self.rows = []

    def __call__(self, y, output):
        np.testing.assert_array_equal(y, output)
        self.rows += output[:, 0].astype(int).tolist()
        return 0.0


def watch(backend, X=ROWS, dtype="float64", *, seed=7, epochs=1, **options):
    seen = Seen()
    fit = fn.Trainer(
        echo(backend, dtype), fn.MSELoss(), fn.SGD(0.0), metrics={"seen": seen}, seed=seed
    ).fit
    history = fit(X, ROWS, epochs, verbose=0, **options)
    assert history.history["loss"] == [0.0] * epochs  # native code has seen the same targets
    return seen.rows


@pytest.mark.parametrize("batch_size", [1, 4, 23, 100])
def test_an_epoch_takes_the_rows_in_the_order_of_batches(backend, batch_size):
    found = watch(backend, epochs=3, batch_size=batch_size)
    expected = [
        int(row)
        for epoch in range(3)
        for rows in fn.batches(ROWS, batch_size=batch_size, seed=7, epoch=epoch)
        for row in rows[:, 0]
    ]
    assert found == expected
    assert sorted(found) == sorted(list(range(23)) * 3)


def test_a_batch_size_of_a_narrow_integer_type(backend):
    """120 + 50 is more than an int8 holds."""
    rows, size = np.resize(X, (120, 3)), np.int8(50)
    one, two = net(backend), net(backend)
    trainer(one).fit(rows, np.resize(LABELS, 120), np.int8(2), batch_size=size, verbose=0)
    trainer(two).fit(rows, np.resize(LABELS, 120), 2, batch_size=50, verbose=0)
    assert bits(one) == bits(two)


def test_drop_last_and_no_shuffling(backend):
    everything = watch(backend, batch_size=5)
    assert watch(backend, batch_size=5, drop_last=True) == everything[:20]
    assert watch(backend, batch_size=5, shuffle=False) == list(range(23))
    assert watch(backend, batch_size=5, seed=8) != everything


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("source", ["u1", "i2", "f4", "f8", ">f4", ">i8", "e", "?"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_inputs_are_converted_while_they_are_gathered(backend, dtype, source, shuffle):
    given = (ROWS % 2 if source == "?" else ROWS).astype(source)
    before = given.copy()
    outputs = []
    metrics = {"kept": lambda y, output: outputs.extend(output[:, 0].tolist()) or 0.0}
    model = echo(backend, dtype)
    fit = fn.Trainer(model, fn.MSELoss(), fn.SGD(0.0), metrics, seed=7).fit
    fit(given, ROWS, batch_size=5, shuffle=shuffle, verbose=0)
    order = np.concatenate(list(fn.batches(given, batch_size=5, seed=7, shuffle=shuffle)))
    assert outputs == order[:, 0].astype(float).tolist()
    np.testing.assert_array_equal(given, before)
    assert given.dtype == before.dtype


@pytest.mark.parametrize("dtype", [np.dtype(kind) for kind in "bBhHiIqQ"] + [np.dtype(">i4")])
def test_labels_of_every_integer_dtype(backend, dtype):
    one, two = net(backend), net(backend)
    given = LABELS.astype(dtype)
    trainer(one).fit(X, given, batch_size=5, verbose=0)
    trainer(two).fit(X, LABELS.tolist(), batch_size=5, verbose=0)
    assert bits(one) == bits(two)
    assert given.dtype == dtype
    np.testing.assert_array_equal(given, LABELS)
    assert trainer(one).evaluate(X, given) == trainer(one).evaluate(X, LABELS)


# A last minibatch of one row.


@pytest.mark.parametrize("training", [True, False])
def test_one_row_that_meets_batchnorm_is_left_out_with_one_warning(backend, training):
    seen = []
    model = echo(backend, "float64", fn.BatchNorm1d(1)).train(training)
    metrics = {"seen": lambda y, output: seen.extend(y[:, 0].tolist()) or 0.0}
    fit = fn.Trainer(model, fn.MSELoss(), fn.SGD(0.0), metrics, seed=7).fit
    with pytest.warns(UserWarning, match="has 1 row, too few for batchnorm") as caught:
        fit(ROWS[:9], ROWS[:9], epochs=3, batch_size=4, verbose=0)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert len(seen) == 3 * 8
    assert model.state_dict()["1.num_batches_tracked"] == 6


def test_one_row_is_used_where_there_is_no_batchnorm(backend):
    rows = ROWS[:9]
    seen = Seen()
    trained = fn.Trainer(echo(backend), fn.MSELoss(), fn.SGD(0.0), {"seen": seen}, seed=7)
    trained.fit(rows, rows, batch_size=4, verbose=0)
    assert sorted(seen.rows) == list(range(9))
    assert trained.step == 3


@pytest.mark.parametrize(
    ("rows", "options"),
    [(9, {"batch_size": 4, "drop_last": True}), (8, {"batch_size": 4}), (6, {"batch_size": 4})],
)
def test_nothing_is_warned_of_where_no_single_row_is_left(rows, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer(net()).fit(X[:rows], LABELS[:rows], verbose=0, **options)


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 4), (9, 1)])
def test_a_fit_of_single_rows_with_batchnorm_is_refused(rows, batch_size):
    model = net()
    before = bits(model)
    with pytest.raises(fn.errors.ShapeError, match="needs minibatches of at least 2 rows"):
        trainer(model).fit(X[:rows], LABELS[:rows], batch_size=batch_size, verbose=0)
    assert bits(model) == before


# What is recorded.


def test_the_loss_of_an_epoch_is_the_mean_over_its_samples(backend):
    weight, target = RNG.normal(size=(1, 3)), RNG.normal(size=(23, 1))
    model = fn.Sequential(fn.Linear(3, 1, bias=False), dtype="float64", backend=backend)
    model.load_state_dict({"0.weight": weight})
    metrics = {"target": lambda y, output: float(y.mean())}
    fit = fn.Trainer(model, fn.MSELoss(), fn.SGD(0.0), metrics, seed=0).fit
    [record] = fit(X, target, batch_size=5, verbose=0).records
    assert record["loss"] == pytest.approx(np.mean((X @ weight.T - target) ** 2), rel=1e-12)
    assert record["target"] == pytest.approx(target.mean(), rel=1e-12)


def test_accuracy_is_the_share_of_the_samples(backend):
    model = fn.Sequential(fn.Linear(3, 2, bias=False), dtype="float64", backend=backend)
    model.load_state_dict({"0.weight": [[0, 0, 0], [1, 0, 0]]})
    trained = fn.Trainer(model, fn.CrossEntropyLoss(), fn.SGD(0.0), seed=0)
    [record] = trained.fit(X, LABELS, batch_size=5, verbose=0).records
    share = np.mean((X[:, 0] > 0) == LABELS)
    assert record["accuracy"] == pytest.approx(share, rel=1e-12)
    assert trained.evaluate(X, LABELS)["accuracy"] == pytest.approx(share, rel=1e-12)


def test_history(backend):
    trained = trainer(net(backend))
    history = trained.fit(X, LABELS, 2, 5, validation_data=[X[:7], LABELS[:7]], verbose=0)
    assert history is trained.history and len(history) == trained.epoch == 2 and trained.step == 10
    first, last = history.records
    values = "loss", "accuracy", "val_loss", "val_accuracy"
    assert list(first) == ["epoch", *values, "seconds", "samples_per_second"]
    assert (first["epoch"], last["epoch"]) == (1, 2)
    scores = trained.evaluate(X[:7], LABELS[:7])
    assert {f"val_{name}": score for name, score in scores.items()}.items() <= last.items()
    assert first["seconds"] > 0 and first["samples_per_second"] >= 23 / first["seconds"]
    assert history.history["loss"] == [first["loss"], last["loss"]]
    assert repr(history) == f"<History of 2 epochs, last {last}>"
    trained.fit(X, LABELS, verbose=0)
    assert history.history["val_loss"] == [first["val_loss"], last["val_loss"], None]
    assert repr(fn.History()) == "<History of 0 epochs>" and fn.History().history == {}


@pytest.mark.parametrize(
    ("loss", "metrics", "names"),
    [
        (fn.CrossEntropyLoss(), None, {"loss", "accuracy"}),
        (fn.CrossEntropyLoss(), {}, {"loss"}),
        (fn.CrossEntropyLoss(), {"rows": lambda y, output: len(y)}, {"loss", "rows"}),
        (fn.MSELoss(), None, {"loss"}),
    ],
)
def test_metrics(loss, metrics, names):
    y = X[:, :2] if isinstance(loss, fn.MSELoss) else LABELS
    trained = fn.Trainer(net(), loss, metrics=metrics)
    [record] = trained.fit(X, y, validation_data=(X, y), verbose=0).records
    assert record.keys() - {"epoch", "seconds", "samples_per_second"} == names | {
        f"val_{name}" for name in names
    }
    scores = trained.evaluate(X, y)
    assert scores.keys() == names
    assert all(type(score) is float for score in scores.values())


# Evaluation.


def test_evaluation_is_in_evaluation_mode(backend):
    model = net(backend)
    trained = trainer(model)
    trained.fit(X, LABELS, batch_size=5, verbose=0)
    before = bits(model)
    scores = trained.evaluate(X, LABELS)
    assert trained.evaluate(X, LABELS, batch_size=4) == pytest.approx(scores, rel=1e-12)
    assert bits(model) == before and model.training
    output = model.eval().forward(X)
    assert scores["loss"] == pytest.approx(fn.CrossEntropyLoss().forward(output, LABELS), rel=1e-12)
    assert scores["accuracy"] == np.mean(output.argmax(1) == LABELS)


def test_a_fit_trains_every_layer_and_leaves_the_modes(backend):
    one, two = net(backend), net(backend)
    two.eval()
    two[3].train()
    for model in (one, two):
        trainer(model).fit(X, LABELS, batch_size=5, verbose=0)
    assert bits(one) == bits(two)
    assert [layer.training for _, layer in two.layers] == [False, False, False, True, False]


# Reproducible, going on, starting over.


def test_the_same_seeds_give_the_same_bits(backend):
    def outcome(model_seed=1, trainer_seed=5):
        model = net(backend, seed=model_seed)
        history = trainer(model, seed=trainer_seed).fit(X, LABELS, 2, 5, verbose=0)
        return bits(model), untimed(history)

    assert outcome() == outcome()
    assert outcome(model_seed=2)[0] != outcome()[0] != outcome(trainer_seed=6)[0]


def test_a_trainers_seed_drives_dropout(backend):
    one, two = (net(backend, seed=1) for _ in range(2))
    for model, seed in ((one, 5), (two, 6)):
        fit = trainer(model, seed=seed).fit
        fit(X, LABELS, batch_size=23, shuffle=False, verbose=0)
    assert bits(one) != bits(two)
    assert trainer(one, seed=None).seed != trainer(one, seed=None).seed


def test_how_steps_are_chunked_changes_nothing(backend, monkeypatch):
    outcomes = []
    for seconds in (0.0, 1e-4, 1e9):
        monkeypatch.setattr(scores, "CHUNK_SECONDS", seconds)
        model = net(backend)
        metrics = {"accuracy": fn.accuracy, "largest": lambda y, output: output.max()}
        history = trainer(model, metrics=metrics).fit(X, LABELS, 3, 2, drop_last=True, verbose=0)
        outcomes.append((bits(model), untimed(history)))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@pytest.mark.parametrize("optimizer", [fn.Adam(0.01), fn.SGD(0.1, 0.9, dampening=0.5)], ids=repr)
def test_two_fits_are_one(backend, optimizer):
    one, two = net(backend), net(backend)
    whole, parts = (
        fn.Trainer(m, fn.CrossEntropyLoss(), copy.copy(optimizer), seed=5) for m in (one, two)
    )
    expected = whole.fit(X, LABELS, 5, 5, verbose=0)
    parts.fit(X, LABELS, 2, 5, verbose=0)
    parts.evaluate(X, LABELS)
    two.predict(X)
    two.eval()
    found = parts.fit(X, LABELS, 3, 5, verbose=0)
    assert bits(one) == bits(two)
    assert untimed(found) == untimed(expected)
    assert [record["epoch"] for record in found.records] == [1, 2, 3, 4, 5]
    assert (parts.epoch, parts.step) == (whole.epoch, whole.step) == (5, 25)


def test_reset_starts_over(backend):
    one, two = net(backend), net(backend)
    fresh, used = trainer(one), trainer(two)
    history = used.fit(X, LABELS, 3, 5, verbose=0)
    used.reset()
    assert bits(two) == bits(net(backend))
    assert (used.epoch, used.step, len(used.history)) == (0, 0, 0)
    assert len(history) == 3  # what was handed out stays
    for each in (fresh, used):
        each.fit(X, LABELS, 2, 5, verbose=0)
    assert bits(one) == bits(two)
    assert untimed(fresh.history) == untimed(used.history)


def test_a_new_rate_acts_at_the_next_fit(backend):
    model = net(backend)
    trained = trainer(model)
    trained.fit(X, LABELS, verbose=0)
    before = [p.copy() for p in model.parameters()]
    trained.optimizer.lr = 0.0
    trained.fit(X, LABELS, verbose=0)
    for a, b in zip(before, model.parameters(), strict=True):
        np.testing.assert_array_equal(a, b)


# The best epoch.


class Validation:
    """A metric that scores the epochs as it is told and keeps the model's values at each."""

    def __init__(self, model, scores):
        self.model, self.scores, self.values = model, list(scores), []

    def __call__(self, y, output):
        if len(y) != 7:  # training
            return 0.0
        self.values.append(bits(self.model))
        return self.scores[len(self.values) - 1]


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.1, 0.9, 0.5], 1),
        ([0.5, 0.5, 0.5], 0),
        ([0.1, 0.2, 0.3], 2),
        ([0.9, 0.1, 0.9], 0),
        ([0.9, np.nan, 0.1], 0),
        ([np.nan, 0.9, 0.1], 1),
    ],
)
def test_restore_best_ends_with_the_best_accuracy(backend, scores, best):
    model = net(backend)
    validation = Validation(model, scores)
    trained = trainer(model, metrics={"accuracy": validation})
    data = X[:7], LABELS[:7]
    callbacks = [fn.EarlyStopping("val_accuracy", 9)]
    trained.fit(
        X, LABELS, 3, 5, validation_data=data, restore_best=True, callbacks=callbacks, verbose=0
    )
    assert len(set(map(str, validation.values))) == 3
    assert bits(model) == validation.values[best]
    assert len(trained.history) == 3
    np.testing.assert_array_equal(trained.history.history["val_accuracy"], scores)


def test_restore_best_takes_effect_however_the_fit_ends(backend):
    model = net(backend)
    validation = Validation(model, [0.5, 0.1])  # and no third score
    trained = trainer(model, metrics={"accuracy": validation})
    callbacks = [fn.EarlyStopping("val_accuracy", 9)]
    options = {"restore_best": True, "callbacks": callbacks, "verbose": 0}
    with pytest.raises(IndexError):
        trained.fit(X, LABELS, 3, 5, validation_data=(X[:7], LABELS[:7]), **options)
    assert bits(model) == validation.values[0]


def test_without_restore_best_the_last_epoch_stays(backend):
    model = net(backend)
    validation = Validation(model, [0.9, 0.1])
    trained = trainer(model, metrics={"accuracy": validation})
    trained.fit(X, LABELS, 2, 5, validation_data=(X[:7], LABELS[:7]), verbose=0)
    assert bits(model) == validation.values[1]


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("epochs", [0, 3])
def test_a_copy_of_a_trainer_goes_on_as_the_original(how, epochs, backend):
    first = trainer(net(backend))
    for _ in range(epochs):
        first.fit(X, LABELS, batch_size=5, verbose=0)
    second = COPIES[how](first)
    assert second.model is not first.model and second.optimizer is not first.optimizer
    histories = [t.fit(X, LABELS, epochs=2, batch_size=5, verbose=0) for t in (first, second)]
    assert bits(first.model) == bits(second.model)
    assert untimed(histories[0]) == untimed(histories[1])


def test_metrics_cannot_write_to_what_they_see(backend):
    def meddler(y, output):
        for array in (y, output):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0
        return 1.0

    targets = ROWS.copy()
    one = fn.Trainer(
        fn.Sequential(fn.Linear(3, 1), backend=backend), fn.MSELoss(), metrics={"m": meddler}
    )
    assert one.fit(X, targets, verbose=0).history["m"] == [1.0]
    assert one.evaluate(X, targets)["m"] == 1.0
    targets[0] = 5  # the caller's array stays writable


def test_gradients_are_not_set_to_zero_while_a_fit_runs(backend):
    def meddler(y, output):
        with pytest.raises(fn.errors.UsageError, match="being trained"):
            one.model.zero_grad()
        return 1.0

    one = trainer(net(backend), metrics={"m": meddler})
    one.fit(X, LABELS, verbose=0)
