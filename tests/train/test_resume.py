"""A fit that is stopped and goes on from its file ends as one that was never stopped, to the bit."""

from __future__ import annotations

import hashlib
import random
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import FileError, HyperparameterError, StateDictError, UsageError
from fastnet.train import checkpoint

TIMED = ("seconds", "samples_per_second")
S = fn.schedules
CASES = 72
OPTIMIZERS = [
    lambda: fn.SGD(S.CosineAnnealingLR(0.05, 500), momentum=0.9, nesterov=True),
    lambda: fn.SGD(0.05, form="textbook", momentum=0.5, l1=1e-3),
    lambda: fn.Adam(0.01, groups=[{"params": "*.bias", "lr": 0.02}], amsgrad=True),
    lambda: fn.AdamW(S.OneCycleLR(0.02, total_steps=2000), weight_decay=0.1),
    lambda: fn.Adamax(0.01),
    lambda: fn.NAdam(0.01),
    lambda: fn.RAdam(0.01),
    lambda: fn.Adagrad(0.05),
    lambda: fn.Adadelta(0.5),
    lambda: fn.RMSprop(0.01, momentum=0.5, centered=True),
    lambda: fn.Lion(0.002),
    lambda: fn.Rprop(0.01),
    lambda: fn.Muon(0.01),
    lambda: fn.LearnedOptimizer(lr=0.01),
    lambda: fn.ScheduleFreeSGD(0.1, warmup_steps=7),
    lambda: fn.ScheduleFreeAdamW(0.01),
    lambda: fn.YellowFin(groups=[{"params": "*.bias", "weight_decay": 0.1}]),
    lambda: fn.YellowFin(closed_loop=True),
    lambda: fn.SGDHD(0.1, 0.9, hypergrad_lr=0.02, multiplicative=True),
    lambda: fn.AdamHD(0.01, hypergrad_lr=1e-4),
]
AVERAGES = [
    lambda: None,
    lambda: fn.EMA(0.9),
    lambda: fn.EMA(0.9, evaluate=True),
    lambda: fn.SWA(2, 2),
]


def mean_output(y, output):
    """A metric that needs the outputs of the whole epoch."""
    return float(output.mean())


@dataclass
class Case:
    """A fit drawn at random, and where it is stopped."""

    number: int
    backend: str
    fit: dict[str, Any] = field(init=False)

    def __post_init__(self):
        draw = random.Random(self.number)
        self.optimizer = OPTIMIZERS[self.number % len(OPTIMIZERS)]
        free = self.optimizer().points
        self.average = AVERAGES[0] if free else draw.choice(AVERAGES)
        self.dtype = draw.choice(["float32", "float64"])
        self.classes = draw.random() < 0.6
        self.rows = draw.choice([23, 64, 151])
        self.norm, self.dropout = draw.random() < 0.6, draw.random() < 0.6
        self.watched, self.clipped = draw.random() < 0.6, draw.random() < 0.3
        self.measured, self.weighted = draw.random() < 0.4, draw.random() < 0.3
        self.every = draw.choice(["1 steps", "3 steps", "7 steps", "1 epoch", "2 epochs"])
        self.stops = [draw.randint(1, 4) for _ in range(draw.randint(1, 3))]
        self.fit = {
            "epochs": 6,
            "batch_size": draw.choice([4, 8, 17, 200]),
            "shuffle": draw.random() < 0.8,
            "drop_last": draw.random() < 0.3,
            "accumulation_steps": draw.choice([1, 1, 2, 3]),
            "verbose": 0,
        }
        if self.fit["batch_size"] > self.rows:
            self.fit["drop_last"] = False
        rng = np.random.default_rng(self.number)
        x = rng.normal(size=(self.rows + 20, 4))
        y = rng.integers(0, 3, len(x)) if self.classes else rng.normal(size=(len(x), 3))
        self.x, self.y = x[: self.rows], y[: self.rows]
        self.held_out = x[self.rows :], y[self.rows :]
        if self.weighted:
            self.fit["sample_weight"] = rng.uniform(0.5, 2, self.rows)

    def trainer(self, seed=7):
        layers = [fn.Linear(4, 6), fn.Tanh(), fn.Linear(6, 3)]
        if self.norm:
            layers[1:1] = [fn.BatchNorm1d(6)]
        if self.dropout:
            layers[-1:-1] = [fn.Dropout(0.3)]
        model = fn.Sequential(*layers, dtype=self.dtype, backend=self.backend, seed=5)
        loss = fn.CrossEntropyLoss(label_smoothing=0.1) if self.classes else fn.HuberLoss()
        metrics = {"mean": mean_output} if self.measured else None
        limits = {"clip_value": 0.5, "clip_norm": 1.0} if self.clipped else {}
        return fn.Trainer(
            model, loss, self.optimizer(), metrics, seed, averaging=self.average(), **limits
        )

    def arguments(self):
        given = dict(self.fit)
        if self.watched:
            given |= {
                "validation_data": self.held_out,
                "callbacks": [
                    fn.EarlyStopping(patience=3, restore_best_weights=True),
                    fn.ReduceLROnPlateau(patience=0, threshold=0.05, factor=0.5, cooldown=1),
                ],
                "restore_best": self.number % 2 == 0,
            }
        return given


class Stopped(BaseException):
    """In place of a signal."""


def stop_at(monkeypatch, pause):
    """Save and stop at the so-manieth pause of the next fit."""
    real, count = checkpoint.Checkpoint.pause, 0

    def counted(self):
        nonlocal count
        count += 1
        if count == pause:
            self.save()
            raise Stopped
        real(self)

    monkeypatch.setattr(checkpoint.Checkpoint, "pause", counted)


def outcome(trainer):
    """What must be equal: digests of all arrays, records without times, and all numbers."""
    found = hashlib.sha256()
    model, optimizer = trainer.model, trainer.optimizer
    state = trainer.state_dict()
    for part in (model.state_dict(), state["optimizer"], state["averages"]):
        for name in sorted(part):
            found.update(name.encode() + np.asarray(part[name]).tobytes())
    records = [{n: v for n, v in r.items() if n not in TIMED} for r in trainer.history.records]
    counts = trainer.epoch, trainer.step, trainer.stop_reason, model._draws
    return found.hexdigest(), records, repr(optimizer), counts


@pytest.mark.parametrize("number", range(CASES))
def test_stops_change_nothing(backend, number, tmp_path, monkeypatch):
    case = Case(number, backend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a minibatch of one row that is left out
        straight = case.trainer()
        straight.fit(case.x, case.y, **case.arguments())
        path = tmp_path / "run.safetensors"
        kept = {"checkpoint": path, "checkpoint_every": case.every}
        stopped = 0
        for pause in case.stops:
            with monkeypatch.context() as patched:
                stop_at(patched, pause)
                try:
                    case.trainer().fit(case.x, case.y, **case.arguments(), **kept)
                except Stopped:
                    stopped += 1
        last = case.trainer()
        last.fit(case.x, case.y, **case.arguments(), **kept)
    assert stopped or path.exists()
    assert outcome(last) == outcome(straight)
    again = case.trainer()
    again.fit(case.x, case.y, **case.arguments(), **kept)  # it is over already
    assert outcome(again) == outcome(straight)


def test_the_cases_reach_what_they_are_for():
    """Every optimizer and average, stops within epochs and within accumulated updates."""
    cases = [Case(n, "reference") for n in range(CASES)]
    assert CASES >= 60
    for what in ("norm", "dropout", "watched", "clipped", "measured", "weighted", "classes"):
        assert 10 < sum(getattr(c, what) for c in cases) < CASES - 10, what
    assert {type(c.optimizer()).__name__ for c in cases} == {type(o()).__name__ for o in OPTIMIZERS}
    assert {repr(c.average()) for c in cases} == {repr(a()) for a in AVERAGES}
    assert sum(c.fit["accumulation_steps"] > 1 for c in cases) > 15
    assert sum(len(c.stops) == 3 for c in cases) > 10
    assert sum("steps" in c.every for c in cases) > 30


# What is saved and loaded by hand.


def data(n=50):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 4)).astype("f"), rng.integers(0, 3, n)


def make(backend="reference", **changed):
    given = {"loss": fn.CrossEntropyLoss(), "optimizer": fn.Adam(0.01), "seed": 3, **changed}
    layers = fn.Linear(4, 6), fn.ReLU(), fn.Dropout(0.2), fn.Linear(6, 3)
    return fn.Trainer(fn.Sequential(*layers, backend=backend, seed=1), **given)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def test_a_trainer_comes_back(backend, path):
    x, y = data()
    straight, trainer = make(backend), make(backend)
    straight.fit(x, y, epochs=5, verbose=0)
    trainer.fit(x, y, epochs=2, verbose=0)
    trainer.model[2].eval()
    trainer.save(path)
    found = fn.Trainer.load(path)
    assert [la.training for _, la in found.model.layers] == [True, True, False, True]
    found.model.to(backend)
    assert outcome(found)[:3] == outcome(trainer)[:3]
    assert found.history.records == trainer.history.records and found.key == trainer.key
    found.fit(x, y, epochs=3, verbose=0)
    assert outcome(found)[:3] == outcome(straight)[:3]
    model = fn.load(path)
    assert all(
        np.array_equal(v, trainer.model.state_dict()[n]) for n, v in model.state_dict().items()
    )


def test_averages_that_are_evaluated_are_the_model_of_the_file(path):
    x, y = data()
    trainer = make(averaging=fn.EMA(0.5, evaluate=True))
    trainer.fit(x, y, epochs=2, verbose=0)
    trainer.save(path)
    assert fn.load(path).predict(x).tobytes() == trainer.model.predict(x).tobytes()
    found = fn.Trainer.load(path)
    for one in (found, trainer):
        one.model.to("reference")
        one.fit(x, y, verbose=0)
    assert outcome(found)[:3] == outcome(trainer)[:3]


def half_mean_square(y, t):
    return float(((y - t) ** 2).mean() / 2), (y - t) / y.size


class Mine(fn.Callback):
    """A callback of one's own."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def on_epoch_end(self, epoch, logs):
        self.seen += 1

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def test_what_has_no_name_is_given_again(path, monkeypatch):
    x, y = data()
    y = np.eye(3, dtype="f")[y]
    given = {"loss": half_mean_square, "metrics": {"mean": mean_output}}
    straight, mine = make(**given), Mine()
    straight.fit(x, y, epochs=4, verbose=0, callbacks=[mine])
    with monkeypatch.context() as patched:
        stop_at(patched, 5)
        with pytest.raises(Stopped):
            make(**given).fit(
                x,
                y,
                epochs=4,
                verbose=0,
                callbacks=[Mine()],
                checkpoint=path,
                checkpoint_every="1 steps",
            )
    with pytest.raises(
        HyperparameterError, match=r"callbacks\[0\] is a Mine, which no file makes; give"
    ):
        fn.Trainer.load(path, **given)
    with pytest.raises(
        HyperparameterError, match=r"loss is missing: the loss in .*; give it by Trainer\.load"
    ):
        fn.Trainer.load(path, callbacks=[Mine()])
    with pytest.raises(HyperparameterError, match="metrics lacks 'mean': a file keeps the names"):
        fn.Trainer.load(path, loss=half_mean_square, callbacks=[Mine()])
    with pytest.raises(
        HyperparameterError, match=r"callbacks has EarlyStopping.*has none of this kind"
    ):
        fn.Trainer.load(path, **given, callbacks=[Mine(), fn.EarlyStopping()])
    again = Mine()
    found = fn.Trainer.load(path, **given, callbacks=[again])
    found.model.to("reference")
    found.resume(x, y, verbose=0)
    assert outcome(found)[:2] == outcome(straight)[:2] and again.seen == mine.seen == 4
    with pytest.raises(UsageError, match="resume: this trainer has no fit to go on with"):
        found.resume(x, y)


def test_the_total_of_epochs_may_grow(path):
    x, y = data()
    straight = make()
    straight.fit(x, y, epochs=6, verbose=0)
    for epochs, expected in ((2, 2), (2, 2), (6, 6), (4, 6)):
        trainer = make()
        history = trainer.fit(x, y, epochs=epochs, verbose=0, checkpoint=path)
        assert trainer.epoch == len(history) == expected
    assert outcome(trainer)[0] == outcome(straight)[0]


def test_another_configuration_is_an_error_that_lists_what_differs(path):
    x, y = data()
    make().fit(x, y, epochs=2, verbose=0, checkpoint=path)
    before = path.read_bytes()
    others = [
        (make(optimizer=fn.Adam(0.02)), {}, r"optimizer.lr is 0.02 here and 0.01 in the file"),
        (
            make(optimizer=fn.AdamW(0.01)),
            {},
            r"optimizer.type is 'AdamW' here and 'Adam' in the file",
        ),
        (make(seed=4), {}, "seed is 4 here and 3 in the file"),
        (make(clip_norm=1), {}, "clip_norm is 1.0 here and None in the file"),
        (make(averaging=fn.EMA()), {}, "averaging is .* here and None in the file"),
        (
            make(loss=fn.CrossEntropyLoss(label_smoothing=0.1)),
            {},
            "loss.label_smoothing is 0.1 here",
        ),
        (make(), {"batch_size": 8}, "fit.batch_size is 8 here and 32 in the file"),
        (make(), {"shuffle": False}, "fit.shuffle is False here"),
        (make(), {"callbacks": [Mine()]}, r"callbacks is \[.*\] here and \[\] in the file"),
    ]
    for trainer, given, match in others:
        state = outcome(trainer)
        with pytest.raises(HyperparameterError, match=match):
            trainer.fit(x, y, epochs=4, verbose=0, checkpoint=path, **given)
        assert outcome(trainer) == state and path.read_bytes() == before


def test_other_data_are_a_warning(path):
    x, y = data()
    make().fit(x, y, epochs=2, verbose=0, checkpoint=path)
    with pytest.warns(UserWarning, match="data.rows is 49 here and 50 in the file") as told:
        make().fit(x[1:], y[1:], epochs=3, verbose=0, checkpoint=path)
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match="data.dtype is 'float64' here and 'float32' in the file"):
        make().fit(x.astype("d"), y, epochs=3, verbose=0, checkpoint=path)
    with pytest.warns(UserWarning, match="data.hash of 64 rows is"):
        make().fit(x + 1, y, epochs=3, verbose=0, checkpoint=path)


def test_files_of_another_kind_are_refused(path):
    x, y = data()
    trainer = make()
    trainer.model.save(path)
    with pytest.raises(FileError, match="holds a model; expected a trainer"):
        trainer.fit(x, y, checkpoint=path, verbose=0)
    with pytest.raises(FileError, match="holds a model; expected a trainer"):
        fn.Trainer.load(path)
    trainer.save(path)
    with pytest.raises(HyperparameterError, match="holds a trainer outside a fit; load it by"):
        trainer.fit(x, y, checkpoint=path, verbose=0)
    path.write_bytes(b"")
    with pytest.raises(FileError, match="it has 0 bytes"):
        trainer.fit(x, y, checkpoint=path, verbose=0)
    assert trainer.step == 0


@pytest.mark.parametrize(
    "every", ["", "5", "5 weeks", "0s", "-1 s", "1.5 epochs", "0 steps", 5, "s"]
)
def test_how_often_is_checked(path, every):
    with pytest.raises(HyperparameterError, match="checkpoint_every is"):
        make().fit(*data(), checkpoint=path, checkpoint_every=every, verbose=0)


def test_how_often_alone_is_refused():
    with pytest.raises(
        HyperparameterError, match="checkpoint_every is '5 epochs' without a checkpoint"
    ):
        make().fit(*data(), checkpoint_every="5 epochs", verbose=0)


def test_a_trainer_that_was_trained_since_does_not_resume(path, monkeypatch):
    x, y = data()
    with monkeypatch.context() as patched:
        stop_at(patched, 3)
        with pytest.raises(Stopped):
            make().fit(x, y, epochs=4, verbose=0, checkpoint=path, checkpoint_every="1 steps")
    found = fn.Trainer.load(path)
    found.train_on_batch(x[:3], y[:3])
    with pytest.raises(UsageError, match=r"saved at step \d and the trainer is at step"):
        found.resume(x, y)


@pytest.mark.parametrize(
    "every", ["1s", "0.5 s", "5min", "1 h", "1 epoch", "5 epochs", "1 step", "2000 steps"]
)
def test_ways_to_say_how_often(path, every):
    make().fit(*data(), checkpoint=path, checkpoint_every=every, verbose=0)
    assert path.exists()


def test_within_a_fit_a_trainer_is_saved_by_what_waits_for_all_callbacks(path):
    class Saves(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            self.trainer.save(path)

    with pytest.raises(UsageError, match="within a fit, ModelCheckpoint"):
        make().fit(*data(), callbacks=[Saves()], verbose=0)
    assert not path.exists()


def test_a_state_that_does_not_fit_changes_nothing(path):
    x, y = data()
    trainer = make()
    trainer.fit(x, y, epochs=2, verbose=0)
    state, before = trainer.state_dict(), outcome(trainer)
    del state["optimizer"]["m/0.weight"]
    with pytest.raises(StateDictError, match="missing"):
        trainer.load_state_dict(state)
    assert outcome(trainer) == before


def test_the_golden_trainer_loads_for_ever():
    trainer = fn.Trainer.load(Path(__file__).parents[1] / "model" / "golden-1.safetensors")
    assert (trainer.step, trainer.epoch, len(trainer.history)) == (6, 2, 2)
    assert repr(trainer.optimizer).startswith("AdamW(lr=StepLR(0.01, 5)")
    assert trainer.averaged_model().predict(np.zeros((1, 4), "f")).shape == (1, 2)
