"""Validation and the best epoch within the native call of whole epochs: the bits of Python's own way."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import fastnet as fn
from fastnet.backends import registry
from fastnet.losses.base import summed, summed_rows
from fastnet.train import many, scores, validating
from fastnet.train.callbacks.monitors import KeepBest
from fastnet.train.checkpoint import Checkpoint

RNG = np.random.default_rng(0)
ROWS = 47
X = RNG.normal(size=(ROWS, 3))
Y = RNG.normal(size=(ROWS, 2))
LABELS = RNG.integers(0, 3, size=ROWS)
TOLD = (X[:, :2] > 0).sum(axis=1)  # labels that the inputs tell
BITS = RNG.integers(0, 2, size=(ROWS, 2))
WEIGHTS = RNG.uniform(0, 2, size=ROWS) * (RNG.random(ROWS) < 0.8)
V = RNG.normal(size=(400, 3))  # more rows than one step of an evaluation has
TIMED = "seconds", "samples_per_second"

# A loss, its targets, and the targets of the validation.
LOSSES = {
    "classes": (fn.CrossEntropyLoss(), LABELS, RNG.integers(0, 3, 400)),
    "ignored": (fn.CrossEntropyLoss(ignore_index=1), LABELS, RNG.integers(0, 3, 400)),
    "weighted": (fn.CrossEntropyLoss([1, 0, 2]), LABELS, RNG.integers(0, 3, 400)),
    "smooth": (fn.CrossEntropyLoss(label_smoothing=0.1), LABELS, RNG.integers(0, 3, 400)),
    "sum": (fn.MSELoss(reduction="sum"), Y, RNG.normal(size=(400, 2))),
    "squares": (fn.MSELoss(), Y, RNG.normal(size=(400, 2))),
    "huber": (fn.HuberLoss(0.3), Y, RNG.normal(size=(400, 2))),
    "one logit": (fn.BCEWithLogitsLoss(), BITS[:, :1], RNG.integers(0, 2, (400, 1))),
    "logits": (fn.BCEWithLogitsLoss(), BITS, RNG.integers(0, 2, (400, 2))),
}
METRICS = {
    "own": None,
    "none": {},
    "twice": {"a": "accuracy", "b": "accuracy"},
    "function": {"mean": lambda y, output: float(output.mean())},
}
LAYERS = {
    "plain": lambda: [fn.Linear(3, 5), fn.Tanh()],
    "dropout": lambda: [fn.Linear(3, 5), fn.ReLU(), fn.Dropout(0.3)],
    "batchnorm": lambda: [fn.Linear(3, 5), fn.BatchNorm1d(5), fn.Tanh()],
    "batchnorm that is not folded": lambda: [fn.Linear(3, 5), fn.Tanh(), fn.BatchNorm1d(5)],
    "noise": lambda: [fn.Linear(3, 5), fn.NoisyReLU(), fn.Linear(5, 5), fn.PReLU()],
}
TRAINERS = {
    "adam": lambda: {"optimizer": fn.Adam(0.03)},
    "momentum": lambda: {"optimizer": fn.SGD(0.05, 0.9), "clip_norm": 1.0},
    "schedule": lambda: {"optimizer": fn.SGD(fn.schedules.ExponentialLR(0.2, 0.99))},
    "schedule-free": lambda: {"optimizer": fn.ScheduleFreeSGD(0.1)},
    "average": lambda: {"averaging": fn.EMA(0.9)},
    "evaluated average": lambda: {"averaging": fn.EMA(0.9, evaluate=True)},
    "average of epochs": lambda: {"averaging": fn.SWA(2, 3)},
}


class Nothing(fn.Callback):
    """Does nothing, after each epoch, which lets Python look at each."""

    def on_epoch_end(self, epoch, logs):
        pass


def outcome(trainer):
    records = [{k: v for k, v in r.items() if k not in TIMED} for r in trainer.history.records]
    assert all(list(r)[-2:] == list(TIMED) for r in trainer.history.records)
    values = {n: v.tobytes() for n, v in trainer.model.state_dict().items()}
    state = trainer.optimizer.state_dict(trainer.model)
    state = {n: v.tobytes() if isinstance(v, np.ndarray) else v for n, v in state.items()}
    return repr(records), values, trainer.epoch, trainer.step, state


@pytest.fixture
def bests(monkeypatch):
    """What each KeepBest has found when its fit ended."""
    found, end = [], KeepBest.on_train_end

    def noting(self):
        kept = {name: value.tobytes() for name, value in self._kept.items()}
        found.append((self.best, self.best_epoch, self.wait, kept))
        end(self)

    monkeypatch.setattr(KeepBest, "on_train_end", noting)
    return found


def counted(monkeypatch, backend):
    """How many epochs each native call has evaluated."""
    engine, calls = registry.get(backend), []
    train = engine.train_epochs

    def counting(args, *rest):
        before = int(args["evaluated"][0])
        train(args, *rest)
        calls.append(int(args["evaluated"][0]) - before)

    monkeypatch.setattr(engine, "train_epochs", counting)
    return calls


CHOICES = {
    "loss": list(LOSSES),
    "metrics": ["own", "own", "own", *METRICS],
    "layers": ["plain", "noise", *LAYERS],
    "trainer": ["adam", "momentum", "average", *TRAINERS],
    "dtype": ["float32", "float64"],
    "validation": ["few", "many", "weights", "split", "split", None],
    "restore": [False, True],
    "batch": [5, 16, 46, 47, 100],
    "epochs": [(30,), (17,), (12, 13), (1, 25)],
    "fit": [
        {},
        {"shuffle": False},
        {"drop_last": True},
        {"accumulation_steps": 2},
        {"sample_weight": WEIGHTS},
    ],
    "seconds": [0.05, 1e9, 1e9],
    "seed": [0, 1],
}


def fitted(case, backend, callbacks):
    """What a case's fits have made."""
    loss, y, v = LOSSES[case["loss"]]
    width = 3 if y.ndim == 1 else y.shape[1]
    layers = [*LAYERS[case["layers"]](), fn.Linear(5, width)]
    model = fn.Sequential(*layers, dtype=case["dtype"], backend=backend, seed=case["seed"])
    options = TRAINERS[case["trainer"]]()
    metrics = METRICS[case["metrics"]]
    if metrics and "a" in metrics and case["loss"] in ("sum", "squares", "huber"):
        metrics = {}
    trainer = fn.Trainer(model, loss, metrics=metrics, seed=case["seed"] + 7, **options)
    how = dict(case["fit"])
    if case["validation"] == "split":
        how["validation_split"] = 0.2
    elif case["validation"] is not None:
        count = 30 if case["validation"] == "few" else 400
        weights = [np.resize(WEIGHTS, count)] if case["validation"] == "weights" else []
        how["validation_data"] = (V[:count], v[:count], *weights)
    if case["validation"] is not None:
        how["restore_best"] = case["restore"]
    how["batch_size"] = min(case["batch"], 30) if "drop_last" in how else case["batch"]
    for epochs in case["epochs"]:
        try:
            trainer.fit(X, y, epochs, callbacks=callbacks, verbose=0, **how)
        except fn.DivergenceError as error:
            return str(error), *outcome(trainer)
    return outcome(trainer)


@pytest.mark.filterwarnings("ignore:the last minibatch of each epoch has 1 row")
def test_a_fit_is_that_which_python_looks_at(backend, bests, monkeypatch):
    calls = counted(monkeypatch, backend)

    within, rng = [], np.random.default_rng(5)
    for _ in range(120 if backend == "c" else 25):
        case = {name: values[rng.integers(len(values))] for name, values in CHOICES.items()}
        monkeypatch.setattr(scores, "CHUNK_SECONDS", case["seconds"])
        found = []
        for callbacks in ([], [Nothing()]):
            bests.clear()
            there = len(calls)
            found.append((fitted(case, backend, callbacks), list(bests)))
            within.append(len(calls) > there)
        assert not within[-1] and found[0] == found[1], case
        assert bool(bests) == (case["restore"] and case["validation"] is not None)
    if backend != "cuda":
        assert sum(within) > len(within) / 8


def iris(backend, **how):
    layers = fn.Linear(3, 16), fn.Tanh(), fn.BatchNorm1d(16), fn.Linear(16, 3)
    model = fn.Sequential(*layers, backend=backend, seed=1)
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(0.01), seed=2)
    trainer.fit(X, TOLD, batch_size=11, verbose=0, validation_split=0.3, **how)
    return trainer


@pytest.mark.parametrize("restore", [False, True])
def test_many_epochs_are_one_call(backend, restore, monkeypatch):
    if backend == "cuda":
        pytest.skip("looks at each epoch's parameters on the host")
    monkeypatch.setattr(scores, "CHUNK_SECONDS", 1e9)
    calls = counted(monkeypatch, backend)
    trainer = iris(backend, epochs=400, restore_best=restore)
    assert calls == [8, 64, 400 - 73]
    values = [r["val_loss"] for r in trainer.history.records]
    best = int(np.argmin(values)) + 1 if restore else 400
    shorter = iris(backend, epochs=best)
    assert best > 9 and len(set(values)) > 390
    for name, value in trainer.model.state_dict().items():
        assert value.tobytes() == shorter.model.state_dict()[name].tobytes()


@pytest.mark.parametrize("ties", ["first", "last"])
def test_the_first_or_the_last_of_equal_epochs_is_restored(backend, ties, monkeypatch):
    monkeypatch.setattr(scores, "CHUNK_SECONDS", 1e9)
    stop = fn.EarlyStopping("val_accuracy", 10**6, ties=ties)
    trainer = iris(backend, epochs=110, restore_best=True, callbacks=[stop])
    values = np.array(trainer.history.history["val_accuracy"])
    best = np.flatnonzero(values == values.max()) + 1
    assert len(best) > 1 and best[-1] < 110
    shorter = iris(backend, epochs=int(best[0 if ties == "first" else -1]))
    for name, value in trainer.model.state_dict().items():
        assert value.tobytes() == shorter.model.state_dict()[name].tobytes()


def test_epochs_that_take_long_are_evaluated_one_by_one(backend, monkeypatch):
    monkeypatch.setattr(scores, "CHUNK_SECONDS", 1e-9)
    calls = counted(monkeypatch, backend)
    assert len(iris(backend, epochs=5).history) == 5
    assert not calls


def test_a_model_that_is_long_to_copy_is_copied_where_it_is_better(backend, monkeypatch):
    monkeypatch.setattr(scores, "CHUNK_SECONDS", 1e9)
    within = outcome(iris(backend, epochs=20, restore_best=True))
    monkeypatch.setattr(validating, "MOST_BYTES", 1000)
    calls = counted(monkeypatch, backend)
    assert outcome(iris(backend, epochs=20, restore_best=True)) == within
    assert not calls


def test_few_epochs_at_once_where_their_values_fill_the_memory(backend, monkeypatch):
    if backend == "cuda":
        pytest.skip("looks at each epoch's parameters on the host")
    monkeypatch.setattr(scores, "CHUNK_SECONDS", 1e9)
    within = outcome(iris(backend, epochs=40, restore_best=True))
    monkeypatch.setattr(validating, "MOST_BYTES", 6000)
    calls = counted(monkeypatch, backend)
    assert outcome(iris(backend, epochs=40, restore_best=True)) == within
    assert max(calls) < 8


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200, 1000])
def test_sums_of_many_evaluations_are_those_of_each(count):
    for scale in (1.0, 1e300, 1e-300):
        values = RNG.normal(size=(50, count)) * 10.0 ** RNG.integers(-9, 7, (50, count)) * scale
        values[3, 0], values[7, -1], values[9, 0] = np.nan, np.inf, -np.inf
        values[11, [0, -1]] = np.inf, -np.inf
        values[13] = 0.9 * np.finfo(float).max
        with np.errstate(all="ignore"):
            expected = [summed(row) for row in values]
            np.testing.assert_array_equal(summed_rows(values), expected)


def test_validation_labels_that_change_meanwhile_are_found(backend, monkeypatch):
    """Also where epochs are evaluated in one native call."""
    if backend == "cuda":
        pytest.skip("copies the data set at first")
    monkeypatch.setattr(scores, "CHUNK_SECONDS", 1e9)
    engine, train = registry.get(backend), registry.get(backend).train_epochs
    labels, found = np.resize(LABELS, 30).copy(), []

    def spoiling(args, *rest):
        labels[7] = 5
        train(args, *rest)

    monkeypatch.setattr(engine, "train_epochs", spoiling)
    for callbacks in ([], [Nothing()]):
        labels[7] = 0
        trainer = fn.Trainer(
            fn.Sequential(fn.Linear(3, 3), backend=backend, seed=1), fn.CrossEntropyLoss(), seed=2
        )
        if callbacks:

            class Spoiling(fn.Callback):
                def on_epoch_begin(self, epoch):
                    labels[7] = 5 if epoch == 2 else 0

            callbacks = [Spoiling()]
        with pytest.raises(fn.errors.DataError, match=r"outside \[0, 3\) at row 7") as caught:
            trainer.fit(X, LABELS, 50, 16, (V[:30], labels), callbacks=callbacks, verbose=0)
        found.append((str(caught.value), outcome(trainer)))
        assert (trainer.epoch, trainer.step) == (1, 6)
    assert found[0] == found[1]


@pytest.mark.parametrize("where", ["loss", "parameters"])
def test_an_epoch_that_diverges_ends_the_fit_and_the_best_is_restored(backend, where, monkeypatch):
    monkeypatch.setattr(scores, "CHUNK_SECONDS", 1e9)
    found = []
    for callbacks in ([], [Nothing()]):
        rates = fn.schedules.ExponentialLR(0.2, 1.1 if where == "loss" else 4.0)
        layers = [fn.Linear(3, 1), *([fn.Tanh()] if where == "parameters" else [])]
        model = fn.Sequential(*layers, backend=backend, seed=1)
        loss = fn.L1Loss() if where == "parameters" else fn.MSELoss()
        trainer = fn.Trainer(model, loss, fn.SGD(rates), metrics={}, seed=5)
        y = LABELS if where == "loss" else np.full(ROWS, 2.0)
        with pytest.raises(fn.DivergenceError) as caught:
            trainer.fit(X, y, 400, 47, (X, y), restore_best=True, callbacks=callbacks, verbose=0)
        found.append((str(caught.value), outcome(trainer)))
    assert found[0] == found[1] and trainer.epoch > 10


def test_ctrl_c_after_a_call_leaves_its_epochs_recorded_and_the_best(backend, bests, monkeypatch):
    if backend == "cuda":
        pytest.skip("has no native call")
    monkeypatch.setattr(scores, "CHUNK_SECONDS", 1e9)
    engine, train = registry.get(backend), registry.get(backend).train_epochs

    def interrupted(args, *rest):
        train(args, *rest)
        if args["evaluated"][0] == 64:
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "train_epochs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        iris(backend, epochs=400, restore_best=True)
    best = bests[0][1]
    monkeypatch.undo()
    assert bests[0][2] + best == 73
    trainer = iris(backend, epochs=73, restore_best=True)
    values = {name: value.tobytes() for name, value in trainer.model.state_dict().items()}
    assert bests[0][3] == values


@pytest.mark.parametrize("restore", [False, True])
def test_nets_that_are_trained_together_have_the_bits_of_their_own_fits(
    backend, restore, monkeypatch
):
    """However calls end: within epochs, evaluations, and between them."""
    if backend != "c":
        pytest.skip("trains one net after the other")

    def trainers():
        made = []
        for i in range(6):
            width = 4 + 3 * i
            layers = fn.Linear(3, width), fn.Tanh(), fn.Linear(width, 3)
            model = fn.Sequential(*layers, backend=backend, seed=i)
            made.append(fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(0.02), seed=i))
        return made

    rows = [RNG.choice(ROWS, 20 + 3 * i, replace=False) for i in range(6)]
    alone = trainers()
    for trainer, part in zip(alone, rows, strict=True):
        rest = np.setdiff1d(np.arange(ROWS), part)
        trainer.fit(
            X[part], LABELS[part], 60, 7, (X[rest], LABELS[rest]), restore_best=restore, verbose=0
        )
    for seconds in (0.1, 1e-5, 0.0):
        monkeypatch.setattr(many, "SECONDS", seconds)
        together = trainers()
        fn.fit_many(
            together, X, LABELS, rows=rows, validation="rest", epochs=60, batch_size=7,
            restore_best=restore,
        )  # fmt: skip
        for one, other in zip(alone, together, strict=True):
            assert outcome(one) == outcome(other)


@pytest.mark.parametrize("restore", [False, True])
def test_a_fit_goes_on_from_its_checkpoint(restore, tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    how = {"restore_best": restore, "checkpoint_every": "7 epochs"}
    whole = iris("auto", epochs=50, checkpoint=paths[0], **how)

    class Stop(Exception):
        pass

    saves, pause = [], Checkpoint.pause

    def stopping(self):
        pause(self)
        saves.append(self.fit.run.trainer.epoch)
        if saves[-1] == 28:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "pause", stopping)
        with pytest.raises(Stop):
            iris("auto", epochs=50, checkpoint=paths[1], **how)
    again = iris("auto", epochs=50, checkpoint=paths[1], **how)
    assert outcome(again) == outcome(whole)


def test_copies_of_a_trainer_continue(backend):
    one = iris(backend, epochs=30, restore_best=True)
    other = pickle.loads(pickle.dumps(one))
    for trainer in (one, other):
        trainer.fit(X, LABELS, 30, 16, (V[:30], LOSSES["classes"][2][:30]), verbose=0)
    assert outcome(one) == outcome(other)
