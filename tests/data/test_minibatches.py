"""Minibatches: which rows, in which order, and what is refused."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

import fastnet as fn

X = np.arange(23)[:, None] + np.array([0.0, 0.25])
Y = np.arange(23)


def minibatches(**options):
    """The rows of each minibatch of one epoch."""
    found = []
    for x, y in fn.batches(X, Y, **{"batch_size": 5, "seed": 0, **options}):
        np.testing.assert_array_equal(x, X[y])  # inputs and targets stay together
        found.append(y.tolist())
    return found


def order(**options):
    """The rows of one epoch."""
    return list(chain.from_iterable(minibatches(**options)))


def test_an_epoch_takes_each_row_once():
    assert [len(rows) for rows in minibatches()] == [5, 5, 5, 5, 3]
    assert sorted(order()) == list(range(23))


def test_the_order_is_a_function_of_seed_and_epoch():
    assert order(seed=3, epoch=2) == order(seed=3, epoch=2) == order(seed=3, epoch=2, batch_size=23)
    orders = {str(order(seed=seed, epoch=epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16 and str(list(range(23))) not in orders


def test_no_seed_takes_a_fresh_one():
    assert order(seed=None) != order(seed=None)


@pytest.mark.parametrize("epoch", [0, 1])
def test_without_shuffling_the_order_stays(epoch):
    assert order(shuffle=False, epoch=epoch) == list(range(23))


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(5, [5] * 4), (23, [23]), (1, [1] * 23), (12, [12]), (24, [])]
)
def test_drop_last_drops_the_smaller_one(batch_size, sizes):
    kept = minibatches(batch_size=batch_size, drop_last=True)
    assert [len(rows) for rows in kept] == sizes
    assert kept == minibatches(batch_size=batch_size)[: len(kept)]


def test_any_batch_size_above_the_rows_takes_them_all():
    assert [len(rows) for rows in minibatches(batch_size=2**63)] == [23]


def test_minibatches_are_copies():
    given = X.copy()
    for x in fn.batches(given, batch_size=5, shuffle=False):
        x[...] = -1
    np.testing.assert_array_equal(given, X)


def test_rows_of_any_kind():
    images = np.arange(6 * 4).reshape(6, 2, 2).astype("u1")
    names = list("abcdef")
    for x, y in fn.batches(images, names, batch_size=4, seed=1):
        assert x.dtype == np.uint8 and x.shape[1:] == (2, 2)
        assert [names.index(name) for name in y] == (x[:, 0, 0] // 4).tolist()
    [alone] = fn.batches(images.tolist(), batch_size=9, shuffle=False)
    np.testing.assert_array_equal(alone, images)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X, Y[:5]), {}, "X has 23 rows and y has 5"),
        ((X[:0], Y[:0]), {}, "X is empty; expected at least one row"),
        ((X[:0],), {}, "X is empty"),
        ((3.0,), {}, "must have rows; a single number came"),
        ((X, 3), {}, "must have rows; a single number came"),
        (([[1], [2, 3]],), {}, "X is not a rectangular array"),
        ((X,), {"batch_size": 0}, "batch_size is 0; expected an integer ≥ 1"),
        ((X,), {"batch_size": 2.0}, "batch_size is 2.0; expected"),
        ((X,), {"epoch": -1}, "epoch is -1; expected an integer in"),
        ((X,), {"seed": 2**64}, "seed is 18446744073709551616; expected"),
    ],
)
def test_what_is_refused_is_refused_at_once(arguments, options, message):
    with pytest.raises(fn.FastnetError, match=message) as caught:
        fn.batches(*arguments, **options)
    assert isinstance(caught.value, ValueError)
