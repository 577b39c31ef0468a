"""Fits on minibatches as they come: from iterables, functions, iterators and data sets of samples."""

from __future__ import annotations

import itertools
import signal
from functools import partial

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError, ShapeError, UsageError
from fastnet.train.streams import StreamRun

RNG = np.random.default_rng(0)
X = RNG.normal(size=(203, 6)).astype("f")
LABELS = RNG.integers(0, 3, 203)
REALS = RNG.normal(size=(203, 3)).astype("f")
BATCH = 16


def net(backend, seed=1, **options):
    layers = fn.Linear(6, 12), fn.BatchNorm1d(12), fn.ReLU(), fn.Dropout(0.2), fn.Linear(12, 3)
    return fn.Sequential(*layers, backend=backend, seed=seed, **options)


def trainer(backend="c", loss=None, **options):
    loss = fn.CrossEntropyLoss() if loss is None else loss
    return fn.Trainer(net(backend), loss, fn.Adam(0.01), seed=2, **options)


def in_order(x=X, y=LABELS, size=BATCH):
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


class Anew:
    """An iterable that begins anew."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


class Samples:
    """A data set by `__len__` and `__getitem__` alone."""

    def __init__(self, *parts):
        self.parts = parts

    def __len__(self):
        return len(self.parts[0])

    def __getitem__(self, i):
        assert type(i) is int
        return tuple(part[i] for part in self.parts)


def recorded(one):
    """A trainer's records but for its times."""
    times = "seconds", "samples_per_second"
    return [{n: v for n, v in record.items() if n not in times} for record in one.history.records]


def assert_equal(one, other, exactly=True):
    """Both trainers have the same values and history."""
    a, b = one.model.state_dict(), other.model.state_dict()
    assert one.step == other.step and one.epoch == other.epoch
    if exactly:
        assert all(a[name].tobytes() == b[name].tobytes() for name in a)
        assert recorded(one) == recorded(other)
    for name, value in a.items():
        np.testing.assert_allclose(value, b[name], rtol=1e-3, atol=1e-5)
    for first, second in zip(recorded(one), recorded(other), strict=True):
        assert first == pytest.approx(second, rel=1e-4)


FORMS = {
    "a list": in_order,
    "a tuple of lists": lambda: tuple([x, y] for x, y in in_order()),
    "an iterable": lambda: Anew(in_order()),
    "a function": lambda: lambda: iter(in_order()),
    "a function of the epoch": lambda: lambda epoch: in_order(),
    "a function with other arguments": lambda: lambda size=BATCH: in_order(size=size),
    "a part of fn.batches": lambda: partial(fn.batches, X, LABELS, batch_size=BATCH, shuffle=False),
    "a built-in function": lambda: Anew(in_order()).__iter__,
    "lists of numbers": lambda: [(x.tolist(), y.tolist()) for x, y in in_order()],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_fit_is_that_on_arrays(backend, form):
    x = X.astype("d") if form == "lists of numbers" else X
    one, other = trainer(backend), trainer(backend)
    one.fit(x, LABELS, epochs=3, batch_size=BATCH, shuffle=False, verbose=0)
    other.fit(FORMS[form](), epochs=3, verbose=0)
    assert_equal(one, other, backend in ("c", "reference"))


def test_a_generator_is_one_epoch(backend):
    one, other = trainer(backend), trainer(backend)
    one.fit(X, LABELS, epochs=2, batch_size=BATCH, shuffle=False, verbose=0)
    for _ in range(2):
        other.fit((pair for pair in in_order()), verbose=0)
    assert_equal(one, other, backend in ("c", "reference"))


MORE = {
    "accumulation": ({}, {"accumulation_steps": 3}),
    "clipping": ({"clip_norm": 0.1, "clip_value": 0.05}, {}),
    "averages": ({"averaging": fn.EMA(0.9)}, {}),
    "averages of epochs": ({"averaging": fn.SWA(2)}, {}),
    "averages that are evaluated": (
        {"averaging": fn.EMA(0.9, evaluate=True)},
        {"validation_data": (X, LABELS)},
    ),
    "validation": ({}, {"validation_data": (X, LABELS), "restore_best": True}),
    "metrics of outputs": ({"metrics": {"far": lambda y, o: float(o.max() - y.mean())}}, {}),
    "both kinds of metrics": (
        {"metrics": {"a": fn.accuracy, "far": lambda y, o: float(o.max() - y.mean())}},
        {"accumulation_steps": 2},
    ),
    "a sum": ({"loss": fn.CrossEntropyLoss(reduction="sum")}, {"accumulation_steps": 2}),
    "ignored rows": ({"loss": fn.MultiMarginLoss()}, {}),
    "modes": ({}, {"respect_modes": True}),
    "no metrics": ({"metrics": {}}, {}),
}


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("case", MORE)
def test_all_that_a_fit_can_do_works(case, shuffled, monkeypatch):
    options, given = MORE[case]
    monkeypatch.setattr("fastnet.train.streams.BLOCK_BYTES", 1000)  # a metric sees several blocks
    monkeypatch.setattr("fastnet.train.scores.BLOCK_BYTES", 1000)
    one, two, three = (trainer(**options) for _ in range(3))
    one.fit(X, LABELS, 3, BATCH, shuffle=shuffled, verbose=0, **given)
    division = {"batch_size": BATCH, "shuffle": shuffled}
    two.fit(partial(fn.batches, X, LABELS, seed=2, **division), epochs=3, verbose=0, **given)
    three.fit(Samples(X, LABELS), epochs=3, batch_size=BATCH, shuffle=shuffled, verbose=0, **given)
    assert_equal(one, two)
    assert_equal(one, three)


@pytest.mark.parametrize("dtype", ["uint8", "float64", "int16", "float16"])
@pytest.mark.parametrize(
    "loss", [fn.MSELoss(), fn.FunctionLoss(lambda o, y: (((o - y) ** 2).mean(), (o - y)))]
)
def test_inputs_and_losses_of_any_kind(dtype, loss):
    x = (20 * X).astype(dtype)
    one, two = trainer(loss=loss), trainer(loss=loss)
    one.fit(x, REALS, 2, BATCH, shuffle=False, verbose=0)
    two.fit(in_order(x, REALS), epochs=2, verbose=0)
    assert_equal(one, two)


def test_sizes_dtypes_and_weights_may_differ():
    cuts = itertools.pairwise([0, 3, 4, 90, 120, 121, 122, 203])
    items = [(X[a:b], LABELS[a:b]) for a, b in cuts]
    items[2] = items[2][0].astype("d"), items[2][1].astype("i1")
    items[3] = (*items[3], np.arange(30.0))
    one, two, three = (
        fn.Trainer(fn.Sequential(fn.Linear(6, 3), seed=1), fn.CrossEntropyLoss(), seed=2)
        for _ in range(3)
    )
    for x, y, *w in items:
        one.train_on_batch(x, y, sample_weight=w[0] if w else None)
    two.fit(items, verbose=0)
    three.fit(iter(items), verbose=0)
    for other in two, three:
        assert one.step == other.step == 7
        a, b = one.model.state_dict(), other.model.state_dict()
        assert all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_weights_of_samples_are_those_of_their_minibatch():
    weight = RNG.uniform(size=203).astype("f")
    one, two = trainer(), trainer()
    for xb, yb, rows in zip(
        *(fn.batches(v, batch_size=32, seed=2) for v in (X, LABELS, weight)), strict=True
    ):
        one.train_on_batch(xb, yb, sample_weight=rows)
    two.fit(Samples(X, LABELS, weight), verbose=0)
    a, b = one.model.state_dict(), two.model.state_dict()
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_the_loss_of_an_epoch_is_the_mean_over_its_samples():
    one = fn.Trainer(fn.Sequential(fn.Linear(6, 3), seed=1), fn.MSELoss(), fn.SGD(0.0), seed=2)
    record = one.fit([(X[:10], REALS[:10]), (X[10:], REALS[10:])], verbose=0).records[0]
    assert record["loss"] == pytest.approx(one.evaluate(X, REALS)["loss"], rel=1e-6)


# When minibatches are asked for.


def test_an_iterable_is_asked_for_the_next_when_the_step_is_done():
    one, seen = trainer(), []

    def watched():
        for pair in in_order():
            seen.append((one.step, one.model.predict(X[:1]).tobytes()))
            yield pair

    one.fit(watched, epochs=2, verbose=0)
    assert [step for step, _ in seen] == list(range(26))
    assert len({bits for _, bits in seen}) == 26


def test_accumulation_looks_one_ahead_and_copies():
    one, two = trainer(), trainer()

    def reused():
        x, y = np.empty((BATCH, 6), "f"), np.empty(BATCH, int)
        for xb, yb in in_order():
            x[: len(xb)], y[: len(yb)] = xb, yb
            yield x[: len(xb)], y[: len(yb)]

    one.fit(in_order(), epochs=2, accumulation_steps=3, verbose=0)
    two.fit(reused, epochs=2, accumulation_steps=3, verbose=0)
    assert_equal(one, two)


def test_the_small_minibatches_of_a_list_share_native_calls(monkeypatch):
    loads, load = [], StreamRun.load
    monkeypatch.setattr(StreamRun, "load", lambda *a, **k: loads.append(1) or load(*a, **k))
    trainer().fit(in_order(size=2)[:100] * 20, verbose=0)
    assert len(loads) < 500


def test_a_metric_sees_the_targets_as_they_were():
    y = np.empty((BATCH, 3), "f")

    def reused():
        for xb, yb in in_order(X, REALS)[:-1]:
            y[:] = yb
            yield xb, y

    metrics = {"mean": lambda y, o: float(y.mean())}
    record = trainer(loss=fn.MSELoss(), metrics=metrics).fit(reused, verbose=0).records[0]
    assert record["mean"] == pytest.approx(REALS[: 12 * BATCH].mean(), abs=1e-6)


def test_a_generator_that_is_left_is_closed():
    closed = []

    def made():
        try:
            yield from in_order()
            yield X, "no"
        finally:
            closed.append(True)

    with pytest.raises(ShapeError):
        trainer().fit(made, verbose=0)
    assert closed == [True]


# Ends.


def test_what_is_refused_leaves_the_steps_before_it():
    items = in_order()
    items[3] = items[3][0] * np.nan, items[3][1]
    for stream in items, iter(items), lambda: items:
        one, two = trainer(), trainer()
        message = r"^minibatch 3 of epoch 1: X holds 96 values that are NaN"
        refused(lambda: one.fit(stream, verbose=0), DataError, message)  # noqa: B023
        two.fit(in_order()[:3], verbose=0)
        assert one.step == 3 and one.epoch == 0
        a, b = one.model.state_dict(), two.model.state_dict()
        assert all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_a_step_that_diverges_ends_the_fit():
    one = trainer(loss=fn.MSELoss())
    items = in_order(X, REALS)
    items[2] = items[2][0], np.full((BATCH, 3), 3e38, "f")
    with pytest.raises(fn.DivergenceError, match="step 2 "):
        one.fit(items, verbose=0)
    assert one.step == 2 and one.stop_reason == "DivergenceError"


def test_a_callback_ends_the_fit():
    class Stops(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            self.trainer.stop_training = epoch == 2

    one = trainer()
    assert len(one.fit(in_order(), epochs=5, callbacks=[Stops()], verbose=0)) == 2


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_ctrl_c_while_a_minibatch_is_made():
    one = trainer()

    def interrupted():
        yield from in_order()[:4]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.fit(interrupted, epochs=3, verbose=0)
    assert one.step == 4 and one.stop_reason == "KeyboardInterrupt"
    one.fit(in_order(), verbose=0)
    assert one.step == 17 and one.epoch == 1


def test_errors_of_the_users_code_come_as_they_are():
    def wrong():
        yield from in_order()[:2]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk") as caught:
        trainer().fit(wrong, verbose=0)
    assert caught.value.__notes__ == ["in minibatch 2 of epoch 1"]


def test_the_last_minibatch_may_be_too_small_for_batchnorm():
    items = [*in_order()[:2], (X[:1], LABELS[:1])]
    one, two = trainer(), trainer()
    with pytest.warns(UserWarning, match="has 1 row, too few for batchnorm"):
        one.fit(items, epochs=2, verbose=0)
    two.fit(items[:2], epochs=2, verbose=0)
    assert_equal(one, two)
    message = (
        "^minibatch 1 of epoch 3: X has 1 row; this model has batchnorm and needs .* at least 2"
    )
    refused(lambda: one.fit([items[0], items[2], items[1]], verbose=0), ShapeError, message)
    message = "^minibatch 0 of epoch 1: X has 1 row"
    refused(lambda: trainer().fit([items[2]], verbose=0), ShapeError, message)


# What is refused.


def one_pair():
    return X[:4], LABELS[:4]


class Batches(Samples):
    def __getitem__(self, i):
        return X[i : i + 4], LABELS[i : i + 4]


PAIR = r"expected a pair \(x, y\), or \(x, y, weight\)$"
FIRST = "^minibatch 0 of epoch 1: "
WRONG = {
    "y is forgotten": (X, DataError, r"^y is missing: X is an array of shape \(203, 6\)"),
    "arrays in a tuple": ((X, LABELS), DataError, FIRST + "X gave an array of shape .*" + PAIR),
    "a number": (3, DataError, "^X is 3 and y is missing; expected"),
    "nothing": (None, DataError, "^X is None and y is missing"),
    "text": ("abc", DataError, "^X is 'abc' and y is missing"),
    "a dict": ({"x": X}, DataError, "^X is .* and y is missing"),
    "a class": (Anew, DataError, "^X is the class Anew and y is missing"),
    "no minibatches": ([], DataError, "^X gave no minibatch in epoch 1; expected at least one$"),
    "an empty iterator": (
        iter([]),
        DataError,
        "in epoch 1; .*; X is a list_iterator, which can be",
    ),
    "no samples": (Samples([], []), DataError, "^X is .*Samples.* without samples"),
    "one array each": ([X[:4]], DataError, FIRST + "X gave an array of shape .*" + PAIR),
    "four": ([(1, 2, 3, 4)], DataError, FIRST + "X gave a tuple of 4; " + PAIR),
    "dicts": ([{"x": X}], DataError, FIRST + "X gave .*" + PAIR),
    "single samples": (
        [(X[0], LABELS[0])],
        ShapeError,
        FIRST + r"X has shape \(6,\), expected \(n, 6\); for a single row pass X\[None\]$",
    ),
    "another width": ([(X[:4, :5], LABELS[:4])], ShapeError, FIRST + r"X has shape \(4, 5\)"),
    "labels out of range": ([(X[:4], LABELS[:4] + 7)], DataError, FIRST + "y holds labels"),
    "fewer labels": ([(X[:4], LABELS[:3])], ShapeError, FIRST + "X has 4 rows and y has 3"),
    "no rows": ([(X[:0], LABELS[:0])], DataError, FIRST + "X and y are empty"),
    "weights below 0": ([(*one_pair(), -np.ones(4))], DataError, FIRST + "sample_weight holds -1"),
    "text for X": ([(np.array([["a"] * 6]), LABELS[:1])], DataError, FIRST + "X has dtype"),
    "a function without a result": (lambda: None, DataError, "returned None; expected an iterator"),
    "samples of minibatches": (Batches(X), ShapeError, FIRST + r"X has shape \(32, 4, 6\)"),
    "unequal samples": (
        Samples([[1.0], [1.0, 2.0]] * 9, [0] * 18),
        ShapeError,
        FIRST + r"x of sample \d+ has shape \(\d,\) and that of sample \d+ \(\d,\); expected equal",
    ),
    "samples that are no pairs": (
        Samples(X),
        DataError,
        FIRST + r"sample \d+: X gave a tuple of 1;",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_stream_is_refused(case):
    stream, kind, message = WRONG[case]
    one = trainer()
    before = one.model.state_dict()
    refused(lambda: one.fit(stream, verbose=0), kind, message)
    after = one.model.state_dict()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert one.step == one.epoch == 0 and not one.history.records


@pytest.mark.parametrize(
    ("argument", "value"),
    [("batch_size", 32), ("shuffle", True), ("drop_last", True), ("sample_weight", np.ones(203))],
)
def test_arguments_that_say_nothing_are_refused(argument, value):
    message = rf"^{argument} is .* and X gives minibatches; expected "
    refused(lambda: trainer().fit(in_order(), **{argument: value}), HyperparameterError, message)


def test_epochs_are_given_by_name():
    message = r"^y is 3 and X is .*; for minibatches .* by name: fit\(batches, epochs=3\)$"
    refused(lambda: trainer().fit(in_order(), 3), DataError, message)


def test_arguments_that_say_the_same_are_taken():
    trainer().fit(in_order(), shuffle=False, drop_last=False, sample_weight=None, verbose=0)


def test_samples_take_the_division_of_arrays():
    one, two = trainer(), trainer()
    division = {"batch_size": 20, "drop_last": True, "shuffle": False}
    one.fit(X, LABELS, verbose=0, **division)
    two.fit(Samples(X, LABELS), verbose=0, **division)
    assert_equal(one, two)
    message = "^sample_weight is an array .* weights come with them"
    one = trainer()
    refused(
        lambda: one.fit(Samples(X, LABELS), sample_weight=X[:, 0]), HyperparameterError, message
    )


def test_an_iterator_is_no_two_epochs():
    message = (
        r"^epochs is 2; X is a generator, which can be gone through once: for further epochs pass"
    )
    stream = (pair for pair in in_order())
    refused(lambda: trainer().fit(stream, epochs=2), HyperparameterError, message)
    one = trainer()
    one.fit(stream, verbose=0)
    message = "^X gave no minibatch in epoch 2; expected at least one; X is a generator"
    refused(lambda: one.fit(stream, verbose=0), DataError, message)


def test_names_of_metrics_are_checked_at_the_first_minibatch():
    one = fn.Trainer(
        fn.Sequential(fn.Linear(6, 1), seed=1), fn.MSELoss(), metrics={"a": fn.accuracy}
    )
    with pytest.raises(HyperparameterError, match="accuracy got outputs of shape"):
        one.fit([(X, REALS[:, :1])], verbose=0)


# PyTorch's.


def test_loaders_of_torch():
    torch = pytest.importorskip("torch")
    data = torch.utils.data
    tensors = data.TensorDataset(torch.from_numpy(X), torch.from_numpy(LABELS))
    one, two, three = (trainer() for _ in range(3))
    one.fit(X, LABELS, 2, BATCH, shuffle=False, verbose=0)
    two.fit(data.DataLoader(tensors, batch_size=BATCH), epochs=2, verbose=0)
    assert_equal(one, two)
    three.fit(tensors, epochs=2, batch_size=BATCH, shuffle=False, verbose=0)
    assert_equal(one, three)


def test_parts_of_torchs_data_sets_are_samples():
    torch = pytest.importorskip("torch")
    data = torch.utils.data
    tensors = data.TensorDataset(torch.from_numpy(X), torch.from_numpy(LABELS))
    one, two = trainer(), trainer()
    one.fit(X[50:150], LABELS[50:150], 2, verbose=0)
    two.fit(data.Subset(tensors, range(50, 150)), epochs=2, verbose=0)
    assert_equal(one, two)


def test_torchs_single_samples_are_refused():
    torch = pytest.importorskip("torch")

    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            return zip(torch.from_numpy(X), torch.from_numpy(LABELS), strict=True)

    refused(lambda: trainer().fit(Endless(), verbose=0), ShapeError, FIRST + r"X has shape \(6,\)")
    one = trainer()
    one.fit(torch.utils.data.DataLoader(Endless(), batch_size=BATCH), verbose=0)
    assert one.step == 13


def test_a_tensor_that_wants_a_gradient_is_refused():
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X[:4]).requires_grad_()
    message = FIRST + "X cannot be read as an array: .*requires grad"
    refused(lambda: trainer().fit([(x, LABELS[:4])], verbose=0), DataError, message)
    half = torch.from_numpy(X[:4]).bfloat16()
    message = FIRST + "X cannot be read as an array: .*BFloat16"
    refused(lambda: trainer().fit([(half, LABELS[:4])], verbose=0), DataError, message)


# Checkpoints.


SOURCES = {
    "a function": lambda: partial(fn.batches, X, LABELS, batch_size=BATCH, seed=2),
    "a list": in_order,
    "samples": lambda: Samples(X, LABELS),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("evaluate", [False, True])
def test_a_checkpoint_goes_on_with_the_next_epoch(tmp_path, source, evaluate):
    options = {"averaging": fn.EMA(0.9, evaluate=evaluate)}
    given = {"validation_data": (X, LABELS), "verbose": 0, "epochs": 4}
    straight, first, second = (trainer(**options) for _ in range(3))
    straight.fit(SOURCES[source](), **given)
    kept = {"checkpoint": tmp_path / "run.safetensors", "checkpoint_every": "1 epoch"}

    class Fails(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            if self.trainer is first and epoch == 3:
                raise OSError("out of power")

    with pytest.raises(OSError, match="power"):
        first.fit(SOURCES[source](), callbacks=[Fails()], **given, **kept)
    second.fit(SOURCES[source](), callbacks=[Fails()], **given, **kept)
    assert_equal(straight, second)


def test_a_loaded_trainer_resumes_on_minibatches(tmp_path):
    path, one, straight = tmp_path / "run.safetensors", trainer(), trainer()
    straight.fit(in_order(), epochs=3, verbose=0)

    class Stops(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            if epoch == 2:
                raise OSError("out of power")

    with pytest.raises(OSError, match="power"):
        one.fit(
            in_order(),
            epochs=3,
            callbacks=[Stops()],
            verbose=0,
            checkpoint=path,
            checkpoint_every="1 epoch",
        )
    again = fn.Trainer.load(path, callbacks=[type("Stops", (fn.Callback,), {})()])
    message = "^resume: X is an array .*, and the file's fit was on minibatches"
    refused(lambda: again.resume(X, LABELS), UsageError, message)
    again.resume(in_order(), verbose=0)
    assert_equal(straight, again)


def test_steps_and_other_kinds_of_data_are_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    message = r'^checkpoint_every is "20 steps" and X gives minibatches'
    call = partial(trainer().fit, in_order(), checkpoint=path, checkpoint_every="20 steps")
    refused(call, HyperparameterError, message)
    trainer().fit(in_order(), checkpoint=path, verbose=0)
    message = "fit.batch_size is 32 here and None in the file"
    refused(lambda: trainer().fit(X, LABELS, checkpoint=path), HyperparameterError, message)


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_a_signal_within_an_epoch_leaves_the_file_of_the_last(tmp_path):
    path, one, two, three = tmp_path / "run.safetensors", trainer(), trainer(), trainer()

    def made(epoch):
        for number, pair in enumerate(in_order()):
            if epoch == 2 and number == 5:
                signal.raise_signal(signal.SIGINT)
            yield pair

    kept = {"checkpoint": path, "checkpoint_every": "1 epoch", "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        one.fit(made, epochs=4, **kept)
    assert one.step == 2 * 13 + 6  # the minibatch that was made is trained on
    two.fit(in_order, epochs=4, **kept)
    three.fit(in_order, epochs=4, verbose=0)
    assert_equal(two, three)


def test_minibatches_may_be_sparse(backend):
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    x = np.where(rng.random((30, 5)) < 0.2, rng.normal(size=(30, 5)), 0).astype("f")
    y = rng.normal(size=(30, 1)).astype("f")
    found = []
    for kind in (np.asarray, sparse.csr_array):
        model = fn.Sequential(fn.Linear(5, 3), fn.Tanh(), fn.Linear(3, 1), backend=backend, seed=1)
        trainer = fn.Trainer(model, fn.MSELoss(), seed=2)
        batches = [(kind(x[i : i + 10]), y[i : i + 10]) for i in (0, 10, 20)]
        trainer.fit(batches, epochs=3, verbose=0)
        trainer.fit(lambda given=batches: iter(given), epochs=2, verbose=0)
        found.append(model.predict(x))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
