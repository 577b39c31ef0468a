"""Splits against scikit-learn's: sizes, folds, and its functions with ours as cv."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn

pytest.importorskip("sklearn")
from sklearn import model_selection as theirs
from sklearn.linear_model import LogisticRegression

RNG = np.random.default_rng(0)
LABELS = RNG.choice(3, 103, p=[0.7, 0.2, 0.1])
X = RNG.normal(size=(103, 2)) + LABELS[:, None]


@pytest.mark.parametrize("sizes", [{}, {"test_size": 0.2}, {"train_size": 0.31}, {"test_size": 9}])
def test_sizes(sizes):
    ours, other = (f(X, LABELS, **sizes) for f in (fn.train_test_split, theirs.train_test_split))
    assert [len(part) for part in ours] == [len(part) for part in other]
    ours, other = (
        f(LABELS, stratify=LABELS, **sizes) for f in (fn.train_test_split, theirs.train_test_split)
    )
    for a, b in zip(ours, other, strict=True):
        assert np.abs(np.bincount(a) - np.bincount(b)).max() <= 1


@pytest.mark.parametrize("count", [7, 100, 103])
def test_folds(count):
    for ours, other in zip(
        fn.KFold(5).split(X[:count]), theirs.KFold(5).split(X[:count]), strict=True
    ):
        assert np.array_equal(ours[0], other[0]) and np.array_equal(ours[1], other[1])


def test_its_functions_take_ours():
    model = LogisticRegression()
    for cv in (fn.KFold(4), fn.StratifiedKFold(4, shuffle=True, seed=0)):
        found = theirs.cross_val_score(model, X, LABELS, cv=cv)
        by_hand = [
            model.fit(X[train], LABELS[train]).score(X[test], LABELS[test])
            for train, test in cv.split(X, LABELS)
        ]
        np.testing.assert_allclose(found, by_hand)
    np.testing.assert_allclose(
        theirs.cross_val_score(model, X, LABELS, cv=fn.KFold(4)),
        theirs.cross_val_score(model, X, LABELS, cv=theirs.KFold(4)),
    )
