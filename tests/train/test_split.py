"""fit(validation_split=...): which rows are held back, and that the fit is that on the others."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.data.split import split_rows
from fastnet.errors import DataError, HyperparameterError
from fastnet.train import checkpoint

RNG = np.random.default_rng(0)
X = RNG.normal(size=(103, 3)).astype("f")
Y = X @ np.array([[1.0], [-2.0], [0.5]], "f")
CODES = RNG.choice(3, 103, p=[0.7, 0.2, 0.1])
W = RNG.uniform(0.5, 2.0, 103)
SHARES = [0.2, 0.5, 0.01, 0.99, 20, np.int64(7), np.float32(0.25), 100]


def trainer(backend="reference", loss=None, width=1, seed=2):
    model = fn.Sequential(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, width), backend=backend, seed=1)
    return fn.Trainer(model, loss or fn.MSELoss(), fn.SGD(0.05), seed=seed)


def bits(made):
    return [value.tobytes() for value in made.model.state_dict().values()]


def scores(made):
    skipped = ("seconds", "samples_per_second")
    return [
        {k: v for k, v in record.items() if k not in skipped} for record in made.history.records
    ]


def squares(y, t, w=None):
    w = 1.0 if w is None else w[:, None]
    return float(np.mean(w * (y - t) ** 2)), 2 * w * (y - t) / y.size


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("weight", [None, W], ids=["equal", "weighted"])
@pytest.mark.parametrize(
    ("loss", "y", "width"),
    [
        (fn.MSELoss(), Y, 1),
        (fn.MSELoss(), Y[:, 0], 1),
        (fn.CrossEntropyLoss(), CODES, 3),
        (fn.CrossEntropyLoss(weight=[1.0, 2.0, 3.0]), np.array(["a", "b", "c"])[CODES], 3),
        (fn.BCEWithLogitsLoss(), CODES == 0, 1),
        (squares, Y, 1),
    ],
    ids=["real", "real (n,)", "classes", "strings", "truths", "function"],
)
def test_the_fit_is_that_on_the_other_rows(loss, y, width, weight, shuffle, backend):
    labels = None if width == 1 and y.dtype != bool else np.unique(y, return_inverse=True)[1]
    rows, held = split_rows(0.3, 103, 2, labels)
    assert len(held) == 31 and sorted([*rows, *held]) == [*range(103)]
    one, other = trainer(backend, loss, width), trainer(backend, loss, width)
    options = {"epochs": 3, "batch_size": 16, "shuffle": shuffle, "verbose": 0}
    one.fit(X, y, validation_split=0.3, sample_weight=weight, **options)
    parts = (None, None) if weight is None else (weight[rows], weight[held])
    valid = (X[held], y[held]) if weight is None else (X[held], y[held], parts[1])
    other.fit(X[rows], y[rows], validation_data=valid, sample_weight=parts[0], **options)
    assert bits(one) == bits(other) != bits(trainer(backend, loss, width))
    assert scores(one) == scores(other) and "val_loss" in one.history.records[0]


def test_the_split_depends_on_the_seed_alone():
    first = split_rows(0.2, 103, 2, None)
    assert np.array_equal(first[1], split_rows(0.2, 103, 2, None)[1])
    assert not np.array_equal(first[1], split_rows(0.2, 103, 3, None)[1])
    made = trainer()
    made.fit(X, Y, 2, validation_split=0.2, verbose=0)
    again = trainer()
    again.fit(X, Y, 1, validation_split=0.2, verbose=0)
    again.fit(X, Y, 1, validation_split=0.2, verbose=0)  # the same rows in a later fit
    assert bits(made) == bits(again) and scores(made) == scores(again)


def test_the_split_is_not_the_order_of_an_epoch():
    _, held = split_rows(50, 103, 2, None)
    for epoch in range(3):
        order = np.concatenate(
            list(fn.batches(np.arange(103), seed=2, epoch=epoch, batch_size=103))
        )
        assert 5 < len(np.intersect1d(held, order[:50])) < 45


@pytest.mark.parametrize("share", SHARES)
def test_sizes(share):
    rows, held = split_rows(share, 103, 0, None)
    size = share if share >= 1 else int(float(share) * 103 + 0.5)
    assert len(held) == size and len(rows) == 103 - size


@pytest.mark.parametrize("share", [0.2, 0.5, 0.05, 33, 3, 100])
@pytest.mark.parametrize("seed", range(5))
def test_each_class_has_its_share(share, seed):
    rows, held = split_rows(share, 103, seed, CODES)
    wanted = len(held) / 103 * np.bincount(CODES)
    assert np.abs(np.bincount(CODES[held], minlength=3) - wanted).max() < 1
    assert np.bincount(CODES[rows], minlength=3).min() > 0


@pytest.mark.parametrize(
    ("size", "expected"), [(7, [4, 2, 1]), (8, [4, 2, 2]), (9, [4, 3, 2]), (1, [1, 0, 0])]
)
def test_what_is_left_goes_to_the_largest_remainders(size, expected):
    codes = np.repeat(np.arange(3), [50, 30, 20])
    for seed in range(3):
        assert (
            np.bincount(codes[split_rows(size, 100, seed, codes)[1]], minlength=3).tolist()
            == expected
        )


def test_rare_classes_stay_in_the_training():
    codes = np.zeros(100, int)
    codes[17], codes[[3, 5]] = 1, 2
    for seed in range(20):
        rows, held = split_rows(0.9, 100, seed, codes)
        assert len(held) == 90 and 17 in rows and np.isin([3, 5], rows).sum() >= 1
    message = "^validation_split takes 98 of 100 rows, of 3 classes; expected at most 97"
    refused(lambda: split_rows(98, 100, 0, codes), DataError, message)


def test_every_row_is_held_back_by_some_seed_and_none_by_all():
    counts = np.zeros(103)
    for seed in range(200):
        counts[split_rows(0.3, 103, seed, None)[1]] += 1
    assert counts.min() > 30 and counts.max() < 95  # 60 each, of standard deviation 6.5


BAD = [0, 0.0, 1.0, -0.5, -3, 103, 1000, True, "half", np.nan, [0.5], 1.5, (X, Y), np.array([3])]


@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_what_is_no_share_is_refused(bad):
    made = trainer()
    message = r"^validation_split is .*; expected a share in \(0, 1\) of the 103 rows, or a number"
    refused(lambda: made.fit(X, Y, validation_split=bad, verbose=0), HyperparameterError, message)
    assert made.epoch == 0 and bits(made) == bits(trainer())


def test_there_is_one_validation():
    made = trainer()
    given = {"validation_split": 0.2, "validation_data": (X, Y), "verbose": 0}
    message = "^validation_split is 0.2 and there are validation_data; expected one of both"
    refused(lambda: made.fit(X, Y, **given), HyperparameterError, message)
    made.fit(X, Y, validation_split=0.2, restore_best=True, verbose=0)  # needs one
    for one in (X[:1], Y[:1]), (X[:0], Y[:0]):
        with pytest.raises(fn.FastnetError):
            made.fit(*one, validation_split=0.5, verbose=0)


OF_CLASSES = {"epochs": 4, "validation_split": 20, "verbose": 0}


def classifier():
    return trainer("auto", fn.CrossEntropyLoss(), 3)


@pytest.mark.parametrize("class_weight", ["balanced", {"a": 3.0, "c": 0.5}])
def test_a_stopped_fit_goes_on_with_its_split_and_weights(tmp_path, monkeypatch, class_weight):
    path, y = tmp_path / "run.safetensors", np.array(["a", "b", "c"])[CODES]
    given = {**OF_CLASSES, "class_weight": class_weight}
    whole = classifier()
    whole.fit(X, y, **given)
    plain = classifier()
    plain.fit(X, y, **{**given, "class_weight": None})
    assert bits(plain) != bits(whole)

    def stopping(self):
        if self.fit.run.trainer.step == 5:
            self.save()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.Checkpoint, "pause", stopping)
        with pytest.raises(KeyboardInterrupt):
            classifier().fit(X, y, checkpoint=path, checkpoint_every="5 steps", **given)
    found, stopped = fn.Trainer.load(path), fn.Trainer.load(path)
    assert found.step == 5
    found.resume(X, y, verbose=0)
    again = classifier()
    again.fit(X, y, checkpoint=path, **given)
    assert bits(found) == bits(again) == bits(whole)
    assert scores(found) == scores(again) == scores(whole)
    for name, other in {"validation_split": 0.3, "class_weight": {"a": 2.0}}.items():
        with pytest.raises(HyperparameterError, match=rf"of another configuration: fit\.{name}"):
            classifier().fit(X, y, checkpoint=path, **{**given, name: other})
    with pytest.raises(HyperparameterError, match=r"^validation_split is 20 and there are valid"):
        stopped.resume(X, y, (X, y), verbose=0)
