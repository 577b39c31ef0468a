"""MixUp: convex combinations of a minibatch's rows, the law of λ, training and resuming with it."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.data import mixup
from fastnet.errors import DataError, HyperparameterError, ShapeError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3))
LABELS = RNG.integers(0, 4, 50)


def test_rows_and_targets_are_mixed_with_one_share():
    given = fn.MixUp(X, LABELS, alpha=0.5, batch_size=16, seed=3)
    found = list(given(2))
    assert [len(x) for x, _ in found] == [16, 16, 16, 2] and len(given) == 4
    order = [rows for (rows,) in zip(fn.batches(np.arange(50), batch_size=16, seed=3, epoch=2))]
    shares = mixup.beta(4, 0.5, 3, 2)
    for (x, y), rows, share in zip(found, order, shares, strict=True):
        assert x.dtype == np.float64 and y.dtype == np.float32 and y.shape == (len(rows), 4)
        others = []
        for mixed in x:
            rest = (mixed - share * X[rows[len(others)]]) / (1 - share)
            others.append(int(rows[np.abs(X[rows] - rest).sum(axis=1).argmin()]))
        np.testing.assert_allclose(x, share * X[rows] + (1 - share) * X[others], atol=1e-12)
        eye = np.eye(4)
        np.testing.assert_allclose(
            y, share * eye[LABELS[rows]] + (1 - share) * eye[LABELS[others]], atol=1e-6
        )
        assert sorted(others) == sorted(rows)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 8.0])
def test_shares_have_the_moments_of_the_beta_law(alpha):
    share = mixup.beta(40000, alpha, 7, 0)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(share.mean() - 0.5) < 0.01 and ((share >= 0) & (share <= 1)).all()
    assert abs(share.var() - variance) < 0.02 * variance
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    assert abs(np.mean((share - 0.5) ** 4) - fourth) < 0.04 * fourth


def test_the_minibatches_are_a_function_of_seed_and_epoch():
    def bits(seed, epoch):
        return b"".join(x.tobytes() for x, _ in fn.MixUp(X, LABELS, seed=seed)(epoch))

    assert bits(1, 0) == bits(1, 0)
    assert len({bits(1, 0), bits(1, 1), bits(2, 0)}) == 3
    assert np.all(np.diff([mixup.beta(1, 0.2, 5, e)[0] for e in range(9)]) != 0)


def test_numbers_as_targets_and_bytes_as_inputs():
    x, y = next(fn.MixUp(np.full((4, 2), 7, np.uint8), np.arange(4.0), seed=0)(0))
    np.testing.assert_allclose(x, 7, rtol=1e-6)
    assert x.dtype == np.float32 and y.shape == (4, 1) and y.min() >= 0 and y.max() <= 3
    assert y.mean() == pytest.approx(1.5)


def trainer():
    model = fn.Sequential(fn.Linear(3, 8), fn.ReLU(), fn.Linear(8, 4), backend="reference", seed=1)
    return fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(0.01), seed=2)


def test_a_fit_on_it_goes_on_from_a_file(tmp_path):
    given = fn.MixUp(X, LABELS, seed=5)
    whole = trainer()
    whole.fit(given, epochs=4, verbose=0, validation_data=(X, np.eye(4)[LABELS]))
    part = trainer()
    part.fit(given, epochs=2, verbose=0)
    part.save(tmp_path / "run")
    part = fn.Trainer.load(tmp_path / "run")
    part.model.to("reference")
    part.fit(given, epochs=2, verbose=0)
    for a, b in zip(whole.model.parameters(), part.model.parameters(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.history.records[-1]["val_loss"] < whole.history.records[0]["val_loss"]


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: fn.MixUp(X, LABELS[:9]), ShapeError, "^X has 50 rows and y has 9"),
        (lambda: fn.MixUp(X, LABELS, classes=3), DataError, r"^y holds labels .* \[0, 3\)"),
        (lambda: fn.MixUp(X, LABELS - 1), DataError, "^y holds labels from -1 to 2"),
        (lambda: fn.MixUp(X, X, classes=3), HyperparameterError, "^classes is 3 and y has shape"),
        (lambda: fn.MixUp(X, [*"ab"] * 25), DataError, "^y has dtype object; .*numbers labels"),
        (lambda: fn.MixUp(X[0], LABELS), ShapeError, "^X has shape"),
    ],
)
def test_refusals(make, kind, message):
    refused(make, kind, message)
