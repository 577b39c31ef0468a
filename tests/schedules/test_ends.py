"""Training on after the end of a schedule that has one is warned of, once."""

import warnings

import numpy as np
import pytest

import fastnet as fn

S = fn.schedules
X, Y = np.ones((12, 2)), np.ones((12, 1))
ENDS = {
    "one cycle": (S.OneCycleLR(0.1, total_steps=6), 6),
    "polynomial": (S.PolynomialLR(0.1, 6), 6),
    "product": (S.ExponentialLR(1.0, 0.9) * S.OneCycleLR(0.1, total_steps=6), 6),
    "per epoch": (S.PolynomialLR(0.1, 3).per_epoch(2), 6),
    "sequence": (S.SequentialLR([0.1, S.PolynomialLR(0.1, 4)], [2]), 6),
    "cycles of a logarithm": (S.CosLogLR(0.1, 6), 6),
    "flat, then a cosine": (S.FlatCosLR(0.1, 6), 6),
    "warm-up": (S.WarmupLR(S.PolynomialLR(0.1, 4), 2), 6),
}
ENDLESS = [S.StepLR(0.1, 2), S.CosineAnnealingLR(0.1, 3), S.LinearLR(0.1), S.WarmupLR(0.1, 2)]


def trainer(rate):
    return fn.Trainer(fn.Sequential(fn.Linear(2, 1), seed=1), fn.MSELoss(), fn.SGD(rate), seed=1)


@pytest.mark.parametrize("name", ENDS)
def test_a_fit_beyond_the_end_warns_once(name):
    rate, length = ENDS[name]
    assert rate.length == length
    t = trainer(rate)
    t.fit(X, Y, 2, 4, verbose=0)  # all of its steps
    with pytest.warns(
        UserWarning, match=rf"made for {length} steps.*step {length} .*optimizer\.lr"
    ):
        t.fit(X, Y, 1, 4, verbose=0)
    t.fit(X, Y, 1, 4, verbose=0)


def test_a_loop_of_ones_own_too():
    model, optimizer = fn.Sequential(fn.Linear(2, 1), seed=1), fn.Adam(S.PolynomialLR(0.1, 2))
    for number in range(4):
        model.value_and_grad(fn.MSELoss(), X, Y)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer.step(model)
        assert len(caught) == (number == 2)
        if caught:
            assert caught[0].filename == __file__


def test_momentum_may_end_too():
    rate = S.OneCycleLR(0.1, total_steps=3)
    model = fn.Sequential(fn.Linear(2, 1), seed=1)
    optimizer = fn.Adam(0.1, betas=(rate.momentum, 0.99))
    t = fn.Trainer(model, fn.MSELoss(), optimizer, seed=1)
    with pytest.warns(UserWarning, match="OneCycleMomentum is made for 3 steps"):
        t.fit(X, Y, 1, 3, verbose=0)


@pytest.mark.parametrize("rate", ENDLESS, ids=repr)
def test_others_have_no_end(rate):
    assert rate.length is None
    trainer(rate).fit(X, Y, 10, 4, verbose=0)


def test_the_steps_of_a_range_test_are_not_the_users():
    rate = S.OneCycleLR(0.1, total_steps=3)
    model = fn.Sequential(fn.Linear(2, 1), seed=1)
    t = fn.Trainer(model, fn.MSELoss(), fn.Adam(0.1, betas=(rate.momentum, 0.99)), seed=1)
    t.find_lr(X, Y, 3, steps=20)
    with pytest.warns(UserWarning, match="OneCycleMomentum is made for 3 steps"):
        t.fit(X, Y, 1, 3, verbose=0)  # its own steps still warn
