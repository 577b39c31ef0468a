"""fit_many: each of many nets has the bits of its own fit; nets that diverge, Ctrl-C, bad arguments."""

from __future__ import annotations

import _thread
import copy
import signal
import threading
import time

import numpy as np
import pytest

import fastnet as fn
from fastnet.backends import registry
from fastnet.errors import DataError, HyperparameterError, UsageError
from fastnet.train import many

RNG = np.random.default_rng(0)
N = 60
X = RNG.normal(size=(N, 3))
Y = RNG.normal(size=(N, 2))
LABELS = RNG.integers(0, 2, N)
WEIGHTS = RNG.uniform(0, 2, N)
FOLDS = [np.flatnonzero(np.arange(N) % 4 != i) for i in range(4)]
TIMED = "seconds", "samples_per_second"


def net(i, backend, dtype="float32", width=4):
    """Nets of unlike widths, activations and layers."""
    kinds = fn.ReLU, fn.Tanh, fn.GELU
    layers = [fn.Linear(3, width + i), kinds[i % 3](), fn.Dropout(0.1 * (i % 3))]
    if i % 2:
        layers.insert(1, fn.BatchNorm1d(width + i))
    if i == 3:
        layers += [fn.Linear(width + i, 5), fn.SiLU(), fn.Linear(5, 2)]
    else:
        layers += [fn.Linear(width + i, 2)]
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=i)


def nets(backend, count=4, **options):
    return [net(i, backend, **options) for i in range(count)]


def bits(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


def records(history):
    return [{k: v for k, v in record.items() if k not in TIMED} for record in history.records]


def part(rows, *arrays):
    return [None if a is None else a if rows is None else a[rows] for a in arrays]


LOSSES = [
    fn.CrossEntropyLoss(),
    fn.CrossEntropyLoss([1.0, 3.0]),
    fn.CrossEntropyLoss(ignore_index=1),
    fn.CrossEntropyLoss(reduction="sum"),
]
OPTIMIZERS = [
    fn.Adam(0.01),
    fn.AdamW(fn.schedules.ExponentialLR(0.05, 0.99), weight_decay=0.1),
    fn.SGD(0.1, 0.9),
    fn.RMSprop(0.01, groups=[{"params": "0.*", "lr": 0.03}]),
]
# What all fits get; "y" and "validate" (rows not trained on) are for the test alone.
CASES = {
    "plain": {},
    "full batch": {"batch_size": N},
    "folds": {"rows": FOLDS},
    "masks and doubles": {"rows": [np.arange(N) < 40, None, [5, 5, 5, 7, 8], range(9, 30)]},
    "validation": {"rows": FOLDS, "validate": "rest"},
    "validation rows": {"rows": FOLDS, "validate": [range(9), None, FOLDS[1], range(9, 20)]},
    "validation data": {"validate": (X[:9], LABELS[:9], WEIGHTS[:9])},
    "weights": {"rows": FOLDS, "sample_weight": WEIGHTS, "validate": "rest"},
    "split": {"validation_split": 0.2, "restore_best": True},
    "split parts": {"rows": FOLDS, "validation_split": 10, "sample_weight": WEIGHTS},
    "class weights": {"rows": FOLDS, "class_weight": "balanced"},
    "all weights": {
        "rows": FOLDS,
        "validation_split": 0.3,
        "class_weight": {0: 3.0, 1: 0.5},
        "sample_weight": WEIGHTS,
    },
    "accumulation": {"rows": FOLDS, "accumulation_steps": 3, "batch_size": 5},
    "order as it is": {"rows": FOLDS, "shuffle": False, "drop_last": True},
    "early stopping": {"rows": FOLDS, "validate": "rest", "stops": True, "restore_best": True},
    "own metric": {"metrics": {"mean": lambda y, output: float(output.mean())}, "rows": FOLDS},
    "own epochs": {"epochs": [3, 9, 20, 1], "batch_size": [7, 60, 2, 5]},
    "real targets": {"y": Y, "losses": fn.MSELoss(), "rows": FOLDS, "sample_weight": WEIGHTS},
    "other data": {"X": (X * 9).astype(np.uint8), "rows": FOLDS},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_each_net_has_the_bits_of_its_own_fit(backend, case, dtype):
    if backend == "cuda":
        pytest.skip("trains one after the other")
    how = dict(CASES[case])
    x, y = how.pop("X", X), how.pop("y", LABELS)
    losses, validate, stops = (
        how.pop("losses", LOSSES),
        how.pop("validate", None),
        how.pop("stops", 0),
    )
    given = {"epochs": 6, "batch_size": 7, **how}
    called = [[fn.EarlyStopping(patience=1 + i)] if stops else [] for i in range(4)]
    together = nets(backend, dtype=dtype)
    histories = fn.fit_many(
        together,
        x,
        y,
        losses=losses,
        optimizers=copy.deepcopy(OPTIMIZERS),
        seeds=range(4),
        validation=validate,
        callbacks=called,
        **given,
    )
    rows = given.pop("rows", [None] * 4)
    metrics, w = given.pop("metrics", None), given.pop("sample_weight", None)
    for i, alone in enumerate(nets(backend, dtype=dtype)):
        own = rows[i] if rows[i] is None else np.arange(N)[rows[i]]
        valid = validate
        if validate == "rest":
            valid = part(np.setdiff1d(np.arange(N), own), x, y)
        elif isinstance(validate, list):
            valid = None if validate[i] is None else part(np.asarray(validate[i]), x, y)
        loss = losses[i] if isinstance(losses, list) else losses
        trainer = fn.Trainer(alone, loss, copy.deepcopy(OPTIMIZERS[i]), metrics, seed=i)
        options = {n: v[i] if isinstance(v, list) else v for n, v in given.items()}
        stopping = [fn.EarlyStopping(patience=1 + i)] if stops else []
        data = part(own, x, y, w)
        trainer.fit(
            *data[:2],
            validation_data=valid,
            sample_weight=data[2],
            callbacks=stopping,
            verbose=0,
            **options,
        )
        assert records(histories[i]) == records(trainer.history)
        assert bits(together[i]) == bits(alone)
        for one, other in zip(stopping, called[i], strict=True):
            assert one.best_epoch == other.best_epoch and one.stopped_epoch == other.stopped_epoch
    if stops:
        assert len({len(history) for history in histories}) > 1  # they drop out at different times


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("seconds", [0.0, 1e-4, 0.1])
def test_neither_threads_nor_pauses_change_a_bit(backend, threads, seconds, monkeypatch):
    if not registry.get(backend).joins:
        pytest.skip("trains one after the other")
    monkeypatch.setattr(many, "SECONDS", seconds)
    monkeypatch.setattr(many, "AT_ONCE", 3)
    found = nets(backend, 7)
    with fn.threads(threads):
        histories = fn.fit_many(
            found, X, LABELS, losses=LOSSES[0], seeds=range(7), epochs=20, batch_size=7
        )
    for i, alone in enumerate(nets(backend, 7)):
        trainer = fn.Trainer(alone, LOSSES[0], seed=i)
        trainer.fit(X, LABELS, 20, 7, verbose=0)
        assert bits(found[i]) == bits(alone) and records(histories[i]) == records(trainer.history)


def test_one_call_walks_all_nets(monkeypatch):
    if "c" not in [name for name, b in fn.backends().items() if not b.reason]:
        pytest.skip("needs the C backend")
    engine, calls = registry.get("c"), []
    together = engine.train_many

    def counting(args, seconds):
        calls.append(len(args))
        return together(args, seconds)

    monkeypatch.setattr(engine, "train_many", counting)
    monkeypatch.setattr(many, "SECONDS", 1e9)
    fn.fit_many(nets("c"), X, LABELS, losses=LOSSES[0], epochs=30, batch_size=7)
    assert calls == [4]
    calls.clear()
    fn.fit_many(nets("c"), X, LABELS, losses=LOSSES[0], epochs=[2, 9, 9, 9], validation=(X, LABELS))
    assert calls[0] == 4 and calls[-1] < 4  # nets that have ended drop out


def test_trainers_continue(backend):
    def trainers():
        return [
            fn.Trainer(one, LOSSES[0], fn.Adam(0.01), seed=i, clip_norm=0.5, averaging=fn.EMA(0.9))
            for i, one in enumerate(nets(backend))
        ]

    found, alone = trainers(), trainers()
    for _ in range(2):
        fn.fit_many(found, X, LABELS, epochs=3)
        for trainer in alone:
            trainer.fit(X, LABELS, 3, verbose=0)
    for one, other in zip(found, alone, strict=True):
        assert bits(one.model) == bits(other.model)
        assert bits(one.averaged_model(X)) == bits(other.averaged_model(X))
        assert (one.epoch, one.step) == (other.epoch, other.step) == (6, 12)


def test_an_optimizer_for_all_is_copied(backend):
    optimizer, plateau = fn.SGD(0.1), fn.ReduceLROnPlateau("loss", patience=0, threshold=0.9)
    fn.fit_many(
        nets(backend),
        X,
        LABELS,
        losses=LOSSES[0],
        optimizers=optimizer,
        epochs=9,
        callbacks=[plateau],
    )
    assert optimizer.lr == 0.1 and plateau.trained_epoch == 0


def test_a_loss_that_is_a_function(backend):
    def loss(output, y):
        return float(np.square(output - y).mean()), 2 * (output - y) / output.size

    found = nets(backend)
    fn.fit_many(
        found, X, Y, losses=[loss, fn.MSELoss(), loss, fn.MSELoss()], seeds=range(4), epochs=3
    )
    for i, alone in enumerate(nets(backend)):
        fn.Trainer(alone, fn.MSELoss() if i % 2 else loss, seed=i).fit(X, Y, 3, verbose=0)
        assert bits(found[i]) == bits(alone)


def plain(backend):
    return [fn.Sequential(fn.Linear(3, 2), backend=backend, seed=i) for i in range(4)]


@pytest.mark.parametrize("errors", ["raise", "return"])
@pytest.mark.parametrize("watched", [False, True])
def test_a_net_that_diverges_does_not_take_the_others_with_it(backend, errors, watched):
    rates = [0.1, 1e30, 0.2, 1e30]
    found, optimizers = plain(backend), [fn.SGD(rate) for rate in rates]
    valid = (X, Y) if watched else None

    def fit():
        return fn.fit_many(
            found,
            X,
            Y,
            losses=fn.MSELoss(),
            optimizers=optimizers,
            seeds=range(4),
            epochs=20,
            validation=valid,
            errors=errors,
        )

    with np.errstate(all="ignore"):
        if errors == "return":
            histories = fit()
        else:
            with pytest.raises(
                fn.DivergenceError, match=r"net 1 diverged; so did 1 others: 3\."
            ) as caught:
                fit()
            histories = caught.value.histories
        for i, alone in enumerate(plain(backend)):
            trainer = fn.Trainer(alone, fn.MSELoss(), fn.SGD(rates[i]), seed=i)
            if i % 2:
                with pytest.raises(fn.DivergenceError) as caught:
                    trainer.fit(X, Y, 20, 32, valid, verbose=0)
                assert str(histories[i].error) == str(caught.value)
            else:
                trainer.fit(X, Y, 20, 32, valid, verbose=0)
                assert histories[i].error is None and len(histories[i]) == 20
            assert bits(found[i]) == bits(alone)
            assert records(histories[i]) == records(trainer.history)
    for model in found:
        with model.edit():
            pass


class Failing(fn.Callback):
    """Fails at the third epoch."""

    def on_epoch_end(self, epoch, logs):
        if epoch == 3:
            raise LookupError("no")

    def on_train_end(self):
        self.ended = True


def test_another_error_ends_all_and_names_the_net(backend):
    found = [fn.Trainer(one, LOSSES[0], fn.SGD(0.01), seed=1) for one in nets(backend)]
    called = [[], [], [Failing()], [fn.EarlyStopping("loss", 99)]]
    with pytest.raises(LookupError) as caught:
        fn.fit_many(found, X, LABELS, epochs=99, callbacks=called)
    assert caught.value.__notes__ == ["This was net 2 of fit_many."]
    assert called[2][0].ended and found[2].epoch == 3
    for trainer in found:
        assert_well(trainer)


def assert_well(trainer):
    """Steps are counted, and the model is free."""
    state = trainer.model.state_dict()
    assert all(np.isfinite(value).all() for value in state.values())
    assert trainer.optimizer.state(trainer.model).steps == trainer.step
    assert state.get("1.num_batches_tracked", trainer.step) == trainer.step
    assert [r["epoch"] for r in trainer.history.records] == list(range(1, trainer.epoch + 1))
    with trainer.model.edit():
        pass


@pytest.mark.usefixtures("heeding_ctrl_c")
@pytest.mark.parametrize("watched", [False, True])
def test_ctrl_c_leaves_all_nets_well(watched):
    backend = "auto"
    found = [fn.Trainer(one, LOSSES[0], fn.SGD(1e-4), seed=1) for one in nets(backend)]
    fn.fit_many(found, X, LABELS, batch_size=5)
    alone = [fn.Trainer(one, LOSSES[0], fn.SGD(1e-4), seed=1) for one in nets(backend)]
    fn.fit_many(alone, X, LABELS, batch_size=5)
    for _ in range(20):
        wait = float(RNG.uniform(0.001, 0.15))
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012  # it may come within `start`
            threading.Timer(wait, _thread.interrupt_main).start()
            fn.fit_many(
                found,
                X,
                LABELS,
                epochs=10**6,
                batch_size=5,
                validation=(X, LABELS) if watched else None,
            )
        for trainer in found:
            assert_well(trainer)
    assert all(trainer.step > 12 for trainer in found)


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_ctrl_c_acts_soon():
    if not hasattr(signal, "setitimer"):
        pytest.skip("needs a timer that sends signals")
    came = []

    def interrupt(*_):
        came.append(time.perf_counter())
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGALRM, interrupt)
    waits = []
    try:
        for _ in range(5):
            found = nets("auto", 30, width=60)
            signal.setitimer(signal.ITIMER_REAL, 0.7)
            with pytest.raises(KeyboardInterrupt):
                fn.fit_many(found, X, LABELS, losses=LOSSES[0], epochs=10**6, batch_size=5)
            waits.append(time.perf_counter() - came[-1])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert sorted(waits)[2] < 1  # 0.1 s on an idle machine


def test_a_model_that_is_trained_elsewhere_is_refused_and_frees_the_others(backend):
    found = nets(backend)
    with found[2].edit(), pytest.raises(UsageError) as caught:
        fn.fit_many(found, X, LABELS, losses=LOSSES[0])
    assert caught.value.__notes__ == ["This was net 2 of fit_many."]
    fn.fit_many(found, X, LABELS, losses=LOSSES[0])


def test_lines(capsys):
    fn.fit_many(nets("auto"), X, LABELS, losses=LOSSES[0], epochs=[1, 2, 3, 4], verbose=1)
    lines = sorted(capsys.readouterr().out.splitlines())
    assert [line[: line.index(" loss")] for line in lines] == [
        f"net {i}  epoch {i + 1}/{i + 1} " for i in range(4)
    ]


SAME = net(0, "auto")
STOPPING = fn.EarlyStopping("loss")
REFUSED = {
    "models": [
        None,
        3,
        [],
        "no",
        [1],
        [fn.Adam()],
        SAME,
        [SAME, fn.Trainer(net(0, "auto"), LOSSES[0])],
    ],
    "losses": [None, 3, [LOSSES[0]], LOSSES[:3], ["no"] * 4],
    "optimizers": [3, [fn.Adam()], [None, 1, 2, 3]],
    "seeds": [3, [1], "abcd", [1, 2, 3, -1], {1: 1, 2: 2, 3: 3, 4: 4}],
    "rows": [
        *(3, [1, 2], "abcd", [[]] * 4, [[N]] * 4, [[-1]] * 4, [[0.5]] * 4, [np.zeros(N, bool)] * 4),
        *([np.ones(N - 1, bool)] * 4, [[[1, 2]]] * 4),
    ],
    "sample_weight": [3, WEIGHTS[:5], -WEIGHTS],
    "validation": [3, "no", "rest", (X,), [1, 2], [[N]] * 4, (X, LABELS[:5])],
    "validation_split": [0, 1.5, "no", N, [0.1] * 4],
    "class_weight": [3, "no", {"no": 1}, {0: -1}, [1, 2]],
    "epochs": [0, "no", [1, 2], [1, 2, 3, 0]],
    "batch_size": [0, None, [1, 2], [1, 2, 3, "no"]],
    "metrics": [3, {"a": 1}],
    "shuffle": [3],
    "restore_best": [3, True],
    "callbacks": [
        3,
        [3],
        [[STOPPING], [], [], [STOPPING]],
        [[1], [], [], []],
        [fn.EarlyStopping()],
    ],
    "errors": ["no", None],
    "verbose": [3, "no"],
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments_are_named_and_change_nothing(name):
    for value in REFUSED[name]:
        found = nets("reference")
        before = [bits(model) for model in found]
        good = {"models": found, "X": X, "y": LABELS, "losses": LOSSES[0]}
        with pytest.raises((HyperparameterError, DataError, fn.errors.ShapeError)) as caught:
            fn.fit_many(**{**good, name: value})
        word = {"losses": "loss", "optimizers": "optimizer", "seeds": "seed", "callbacks": ""}
        assert word.get(name, name) in str(caught.value), f"{name}={value!r}: {caught.value}"
        assert [bits(model) for model in found] == before


def test_models_that_come_twice_are_refused():
    with pytest.raises(HyperparameterError, match="models 0 and 1 are the same object"):
        fn.fit_many([SAME, SAME], X, LABELS, losses=LOSSES[0])
    trainers = [fn.Trainer(one, LOSSES[0]) for one in nets("auto")]
    with pytest.raises(HyperparameterError, match=r"losses is .*models are trainers"):
        fn.fit_many(trainers, X, LABELS, losses=LOSSES[0])


def test_nets_write_no_file_in_common(tmp_path):
    models = [fn.Sequential(fn.Linear(3, 1)) for _ in range(2)]
    x = np.zeros((4, 3))
    given = {"losses": fn.MSELoss(), "epochs": 2}
    with pytest.raises(HyperparameterError, match="each net would write the same file"):
        fn.fit_many(models, x, x[:, :1], callbacks=[fn.CSVLogger(tmp_path / "log")], **given)
    each = [[fn.CSVLogger(tmp_path / f"{i}.csv")] for i in range(2)]
    fn.fit_many(models, x, x[:, :1], callbacks=each, **given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.csv", "1.csv"]


def test_a_split_and_a_validation_are_one_too_many():
    with pytest.raises(
        HyperparameterError, match=r"validation_split is 0\.2 and there is a validation"
    ):
        fn.fit_many(
            nets("auto"), X, LABELS, losses=LOSSES[0], validation="rest", validation_split=0.2,
            rows=FOLDS,
        )  # fmt: skip
    with pytest.raises(
        HyperparameterError, match="class_weight is 'balanced' and y holds no labels"
    ):
        fn.fit_many(nets("auto"), X, Y, losses=fn.MSELoss(), class_weight="balanced")
