"""Callbacks that write files: logs that fit the training however often it was stopped, and checkpoints."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError, StateDictError
from fastnet.train import checkpoint

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype("f")
Y = RNG.integers(0, 2, 40)


def make(lr=0.01):
    layers = fn.Linear(3, 5), fn.ReLU(), fn.Dropout(0.2), fn.Linear(5, 2)
    model = fn.Sequential(*layers, backend="reference", seed=1)
    return fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(lr), seed=2)


def fit(trainer, epochs=5, **given):
    return trainer.fit(X, Y, epochs, 8, (X[:10], Y[:10]), verbose=0, **given)


def test_a_csv_file_has_a_row_for_each_epoch(tmp_path):
    path = tmp_path / "log.csv"
    trainer = make(fn.schedules.StepLR(0.1, 10))
    fit(trainer, 3, callbacks=[fn.CSVLogger(path)])
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert list(rows[0]) == [
        *("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "samples_per_second"),
        *("step", "lr"),
    ]
    for row, record, lr in zip(rows, trainer.history.records, (0.1, 0.01, 0.01), strict=True):
        assert {n: float(row[n]) for n in record} == record
        assert float(row["lr"]) == pytest.approx(lr) and int(row["step"]) == 5 * record["epoch"]
    fit(trainer, 1, callbacks=[fn.CSVLogger(path, ";")])
    assert len(path.read_text().splitlines()) == 2 and ";" in path.read_text()
    fit(trainer, 2, callbacks=[fn.CSVLogger(path, ";", append=True)])
    assert len(path.read_text().splitlines()) == 4


def test_json_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    trainer = make()
    trainer.metrics["nan"] = lambda y, output: np.nan
    fit(trainer, 2, callbacks=[fn.JSONLLogger(str(path))])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["loss"] for row in rows] == [r["loss"] for r in trainer.history.records]
    assert rows[0]["nan"] is None and rows[1]["step"] == 10
    fit(trainer, 1, callbacks=[fn.JSONLLogger(path, append=True)])
    assert len(path.read_text().splitlines()) == 3


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("stops", [[2], [7, 3], [13, 1, 4]])
def test_logs_of_a_stopped_fit_are_those_of_a_straight_one(tmp_path, monkeypatch, stops):
    """Rows that came after the file was saved are dropped: their epochs come again."""

    def without_times(directory):
        rows = list(csv.DictReader((directory / "log.csv").read_text().splitlines()))
        lines = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
        return [
            [{n: v for n, v in row.items() if "second" not in n} for row in each]
            for each in (rows, lines)
        ]

    found = []
    for name, pauses in (("straight", []), ("stopped", stops)):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        for pause in [*pauses, None]:
            real, count = checkpoint.Checkpoint.pause, 0

            def counted(self, real=real, pause=pause):
                nonlocal count
                count += 1
                if count == pause:  # killed: what was logged since the last save is not in the file
                    raise Stopped
                real(self)

            with monkeypatch.context() as patched:
                patched.setattr(checkpoint.Checkpoint, "pause", counted)
                try:
                    callbacks = [fn.CSVLogger("log.csv"), fn.JSONLLogger("log.jsonl")]
                    kept = {"checkpoint": "run", "checkpoint_every": "7 steps"}
                    fit(make(), 5, callbacks=callbacks, **kept)
                except Stopped:
                    pass
        found.append(without_times(folder))
    assert found[0] == found[1] and len(found[0][0]) == 5


def test_a_log_that_lost_rows_is_told(tmp_path):
    path = tmp_path / "log.csv"
    kept = {"checkpoint": tmp_path / "run"}
    fit(make(), 2, callbacks=[fn.CSVLogger(path)], **kept)
    path.write_text("epoch\n")
    with pytest.warns(UserWarning, match="has lost rows: it has 6 bytes and had"):
        fit(make(), 3, callbacks=[fn.CSVLogger(path)], **kept)
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_events(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter  # noqa: F401

    trainer = make()
    fit(trainer, 3, callbacks=[fn.TensorBoard(tmp_path)])
    (name,) = os.listdir(tmp_path)
    data, events = (tmp_path / name).read_bytes(), []
    while data:  # length, checksum, event, checksum
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    losses = [
        (e.step, v.simple_value) for e in events for v in e.summary.value if v.tag == "val_loss"
    ]
    expected = [(5 * r["epoch"], r["val_loss"]) for r in trainer.history.records]
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    assert any(v.tag == "lr" for e in events for v in e.summary.value)


def test_last_and_best_files_are_kept_by_rules_of_their_own(tmp_path):
    scores = iter([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    trainer = make()
    trainer.metrics["score"] = lambda y, output: 0.0

    class Scores(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            pass

    pattern = str(tmp_path / "run-{epoch:02d}.safetensors")
    checkpoints = fn.ModelCheckpoint(pattern, "score", "min", keep=2)
    real = checkpoints.on_epoch_end
    checkpoints.__dict__["on_epoch_end"] = lambda e, logs: real(e, {**logs, "score": next(scores)})
    fit(trainer, 6, callbacks=[checkpoints, Scores()])
    assert sorted(os.listdir(tmp_path)) == [f"run-{e:02d}.safetensors" for e in (2, 5, 6)]
    assert checkpoints.best == 1.0
    assert checkpoints.best_path == pattern.format(epoch=2)
    assert checkpoints.last_path == pattern.format(epoch=6)


def test_the_best_alone(tmp_path):
    path = tmp_path / "best.safetensors"
    trainer, predicted = make(0.3), []

    class Predicts(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            predicted.append((logs["val_loss"], self.trainer.model.predict(X)))

    checkpoints = fn.ModelCheckpoint(path, save_best_only=True)
    fit(trainer, 12, callbacks=[checkpoints, Predicts()])
    best = min(predicted, key=lambda each: each[0])
    assert fn.load(path).to("reference").predict(X).tobytes() == best[1].tobytes()
    assert checkpoints.best == best[0] and os.listdir(tmp_path) == [path.name]


def test_a_fit_goes_on_from_any_of_its_files(tmp_path):
    straight = make()
    pattern = str(tmp_path / "run-{epoch}.safetensors")

    def callbacks(pattern=pattern):
        return [
            fn.ModelCheckpoint(pattern),
            fn.EarlyStopping(patience=20, restore_best_weights=True),
            fn.ReduceLROnPlateau(patience=0, threshold=0.3),
        ]

    fit(straight, 6, callbacks=callbacks())
    for epoch in (1, 3, 6):
        again = callbacks()[:1]
        trainer = fn.Trainer.load(pattern.format(epoch=epoch), callbacks=again)
        assert trainer.epoch == epoch
        trainer.model.to("reference")
        trainer.resume(X, Y, (X[:10], Y[:10]), verbose=0)
        assert trainer.epoch == 6 and trainer.optimizer.lr == straight.optimizer.lr
        assert trainer.model.predict(X).tobytes() == straight.model.predict(X).tobytes()
        assert again[0].best_path == pattern.format(
            epoch=1 + int(np.argmin([r["val_loss"] for r in straight.history.records]))
        )


def test_bad_paths_are_refused_before_anything_is_trained(tmp_path):
    trainer = make()
    for path, match in (
        ("run-{nothing}", "field 'nothing'; this fit records loss, accuracy"),
        ("run-{loss.__class__}", "field 'loss.__class__'"),
        ("run-{0}", "field '0'"),
    ):
        with pytest.raises(HyperparameterError, match=match):
            fit(trainer, 1, callbacks=[fn.ModelCheckpoint(str(tmp_path / path))])
    for path in ("run-{epoch", 3, None, "a\0"):
        with pytest.raises(HyperparameterError, match="path is"):
            fn.ModelCheckpoint(path)
        if path != "run-{epoch":
            with pytest.raises(HyperparameterError, match="path is"):
                fn.CSVLogger(path)
    with pytest.raises(HyperparameterError, match="monitor is 'val_loss'; this fit records"):
        trainer.fit(X, Y, callbacks=[fn.ModelCheckpoint("x", save_best_only=True)], verbose=0)
    for separator in ("", ",,", '"', 3):
        with pytest.raises(HyperparameterError, match="separator is"):
            fn.CSVLogger("x", separator)
    assert trainer.step == 0


def test_a_state_names_no_files_of_others(tmp_path):
    """A file of a trainer may come from anybody: what a callback removes must be its own."""
    checkpoints = fn.ModelCheckpoint(str(tmp_path / "run-{epoch}.safetensors"))
    state = checkpoints.state_dict()
    for name in (
        "other.safetensors",
        "run-1.safetensors/../x",
        "run-../x.safetensors",
        "/etc/passwd",
        3,
    ):
        given = str(tmp_path / name) if isinstance(name, str) else name
        for part in ({"paths": [given]}, {"best_path": given}, {"last_path": given}):
            with pytest.raises(StateDictError, match="expected files that"):
                checkpoints.load_state_dict({**state, **part})
    good = str(tmp_path / "run-12.safetensors")
    checkpoints.load_state_dict({**state, "paths": [good], "best_path": good})


def test_a_folder_that_is_not_there_is_told_before_the_training(tmp_path):
    trainer, path = make(), tmp_path / "nowhere" / "file"
    for callback in (fn.CSVLogger(path), fn.JSONLLogger(path), fn.ModelCheckpoint(path)):
        with pytest.raises(
            HyperparameterError, match=r"path is .*, whose folder is not there; make it"
        ):
            fit(trainer, 1, callbacks=[callback])
    with pytest.raises(HyperparameterError, match=r"checkpoint is .*, whose folder is not there"):
        fit(trainer, 1, checkpoint=path)
    with pytest.raises(HyperparameterError, match=r"checkpoint is .*, a folder; expected"):
        fit(trainer, 1, checkpoint=tmp_path)
    assert trainer.step == 0
