"""Callbacks that look at records alone hear of several epochs at once, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.train.callbacks import ReduceLROnPlateau
from fastnet.train.run import Run

RNG = np.random.default_rng(5)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = (X[:, 0] + 0.3 * RNG.normal(size=60) > 0).astype(np.int64)


class Watching(fn.EarlyStopping):
    """The same rule, told right after each epoch."""

    def epochs_ahead(self) -> int:
        return 0


class WatchingRate(ReduceLROnPlateau):
    def epochs_ahead(self) -> int:
        return 0


def trained(backend, callbacks, *, validated=True, epochs=60, **options):
    model = fn.Sequential(fn.Linear(4, 8), fn.Tanh(), fn.Linear(8, 2), seed=3, backend=backend)
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(lr=0.02), seed=7)
    data = (X[40:], Y[40:]) if validated else None
    trainer.fit(*(X[:40], Y[:40]), epochs, 16, data, callbacks=callbacks, verbose=0, **options)
    records = [
        {k: v for k, v in r.items() if k not in ("seconds", "samples_per_second")}
        for r in trainer.history.records
    ]
    return trainer, records


def counted(monkeypatch):
    """The epochs of each native call."""
    calls, before = [], Run._advance_unwatched

    def counting(self, loaded, *rest):
        calls.append(len(loaded.span.ends) // self.scores.steps)
        return before(self, loaded, *rest)

    monkeypatch.setattr(Run, "_advance_unwatched", counting)
    return calls


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize(
    ("patience", "options"),
    [(0, {}), (1, {}), (4, {}), (9, {"min_delta": 0.01}), (5, {"monitor": "val_accuracy"})],
)
def test_early_stopping_ends_the_fit_where_it_would_if_it_watched(
    backend, patience, options, restore, monkeypatch
):
    calls = counted(monkeypatch)
    mine, theirs = fn.EarlyStopping(patience=patience, **options), None
    trainer, records = trained(backend, [mine], restore_best=restore)
    used = list(calls)
    theirs = Watching(patience=patience, **options)
    other, expected = trained(backend, [theirs], restore_best=restore)
    assert records == expected
    assert (mine.best, mine.wait, mine.best_epoch, mine.stopped_epoch) == (
        *(theirs.best, theirs.wait, theirs.best_epoch, theirs.stopped_epoch),
    )
    assert trainer.stop_reason.replace("EarlyStopping", "Watching") == other.stop_reason
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(value, other.model.state_dict()[name])
    if trainer.model.backend == "c" and patience > 3:
        assert max(used) > 1
        assert len(calls) == len(used)  # who watches has none


def test_training_scores_need_no_validation(backend):
    trainer, records = trained(
        backend, [fn.EarlyStopping("loss", 3, 0.02)], validated=False, epochs=300
    )
    other, expected = trained(backend, [Watching("loss", 3, 0.02)], validated=False, epochs=300)
    assert records == expected
    assert len(records) < 300
    assert trainer.epoch == other.epoch
    assert trainer.step == other.step


def test_rates_are_reduced_after_the_same_epochs(backend):
    options = {
        "monitor": "val_loss",
        "factor": 0.5,
        "patience": 2,
        "cooldown": 3,
        "threshold": 0.05,
    }
    trainer, records = trained(backend, [ReduceLROnPlateau(**options)], epochs=80)
    other, expected = trained(backend, [WatchingRate(**options)], epochs=80)
    assert trainer.optimizer.lr == other.optimizer.lr < 0.01
    assert records == expected


def test_two_together_and_one_that_watches(backend):
    both = [fn.EarlyStopping(patience=12), ReduceLROnPlateau(patience=3, factor=0.3)]
    slow = [Watching(patience=12), WatchingRate(patience=3, factor=0.3)]
    mixed = [fn.EarlyStopping(patience=12), WatchingRate(patience=3, factor=0.3)]
    _, records = trained(backend, both, epochs=120)
    assert records == trained(backend, slow, epochs=120)[1]
    assert records == trained(backend, mixed, epochs=120)[1]


class Looking(fn.EarlyStopping):
    """A user's, which looks at the model after each epoch."""

    def __init__(self):
        super().__init__(patience=6)
        self.seen = []

    def on_epoch_end(self, epoch, logs):
        super().on_epoch_end(epoch, logs)
        self.seen.append((epoch, self.trainer.epoch, self.trainer.step))


def test_a_subclass_with_a_hook_of_its_own_is_told_at_once(backend):
    looking = Looking()
    trained(backend, [looking], epochs=10)
    assert [(epoch, at, step) for epoch, at, step in looking.seen] == [
        (n, n, 3 * n) for n in range(1, len(looking.seen) + 1)
    ]


def test_a_checkpoint_holds_what_patient_callbacks_have_counted(backend, tmp_path):
    path = tmp_path / "fit.safetensors"
    stopping = fn.EarlyStopping(patience=8)
    trainer, records = trained(
        backend, [stopping], epochs=25, checkpoint=path, checkpoint_every="5 epochs"
    )
    _, expected = trained(backend, [Watching(patience=8)], epochs=25)
    assert records == expected
    again = fn.Trainer.load(path)
    assert again.epoch == trainer.epoch


def test_many_nets_stop_each_by_itself(backend):
    def nets():
        return [
            fn.Sequential(fn.Linear(4, 6), fn.ReLU(), fn.Linear(6, 2), seed=s, backend=backend)
            for s in range(4)
        ]

    options = {"losses": fn.CrossEntropyLoss(), "seeds": list(range(4)), "epochs": 80}
    options |= {"batch_size": 16, "validation": (X[40:], Y[40:]), "optimizers": fn.Adam(lr=0.05)}
    found = fn.fit_many(nets(), X[:40], Y[:40], callbacks=[fn.EarlyStopping(patience=3)], **options)
    same = fn.fit_many(nets(), X[:40], Y[:40], callbacks=[Watching(patience=3)], **options)
    assert [h.history["val_loss"] for h in found] == [h.history["val_loss"] for h in same]
    assert len({len(h) for h in found}) > 1
