"""Schedule-Free rules: what the comparison with the package does not reach."""

from __future__ import annotations

import numpy as np
import pytest
from prescribed import draw, set_gradients
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError
from fastnet.optim import schedule_free
from fastnet.schedules import Schedule

KINDS = [fn.ScheduleFreeSGD, fn.ScheduleFreeAdamW]
every = pytest.mark.parametrize("kind", KINDS)


class Ramp(Schedule):
    """base + slope·t."""

    def __init__(self, base, slope=0.0):
        super().__init__(base=base, slope=slope)

    def values(self, t):
        return self.base + self.slope * t


def net(backend, dtype="float64"):
    layers = fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Linear(4, 2)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=3)


def values(model):
    return {name: np.array(p) for name, p in model.named_parameters().items()}


def at(number, step):
    return number(step) if isinstance(number, Schedule) else number


def sequences(w, gradients, o, normalised, decayed):
    """y and x after each step, by the definitions of x, y and z."""
    x = z = y = w
    v = total = greatest = 0.0
    for t, g in enumerate(gradients):
        following = at(o.betas[0] if normalised else o.momentum, t + 1)
        lr = at(o.lr, t) * min(1, (t + 1) / max(1, o.warmup_steps))
        g = g + o.l1 * np.sign(y)
        if normalised:
            v = o.betas[1] * v + (1 - o.betas[1]) * g * g
            g = g / (np.sqrt(v / (1 - o.betas[1] ** (t + 1))) + o.eps)
        z = z - lr * (g + (o.weight_decay * y if decayed else 0.0))
        greatest = max(greatest, lr)
        weight = (t + 1) ** o.r * greatest**o.weight_lr_power
        total += weight
        x = x + weight / total * (z - x)
        y = (1 - following) * z + following * x
        yield y, x


OPTIONS = [
    {},
    {"weight_decay": 0.1, "decay_biases_and_norms": False},
    {"l1": 0.01, "warmup_steps": 5},
    {"lr": Ramp(0.1, -0.001), "r": 0.5},
    {"lr": Ramp(0.01, 0.001), "weight_lr_power": 1.0},
    {"beta": Ramp(0.5, 0.005)},
    {"beta": 0.0},
]


@every
@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_the_sequences_are_those_of_the_definition(backend, kind, options):
    options = {"lr": 0.1, **options}
    beta, normalised = options.pop("beta", 0.9), kind is fn.ScheduleFreeAdamW
    options |= {"betas": (beta, 0.99)} if normalised else {"momentum": beta}
    model, optimizer = net(backend), kind(**options)
    gradients, found = draw(model, 60), {}
    for name, w in values(model).items():
        decayed = w.ndim > 1 or optimizer.decay_biases_and_norms
        own = [g[name] for g in gradients]
        found[name] = sequences(w, own, optimizer, normalised, decayed)
    for given in gradients:
        set_gradients(model, given)
        optimizer.step(model)
        want = {name: next(one) for name, one in found.items()}
        for place in (0, 1, 0):
            (optimizer.eval if place else optimizer.train)(model)
            for name, got in values(model).items():
                scale = np.abs(want[name][0]).max()
                np.testing.assert_allclose(got, want[name][place], rtol=1e-9, atol=1e-11 * scale)


@every
def test_numbers_do_not_depend_on_blocks_or_on_what_is_asked_for(kind, monkeypatch):
    monkeypatch.setattr(schedule_free, "BLOCK", 16)
    for options in ({}, {"warmup_steps": 40}, {"r": 1.0}, {"lr": Ramp(0.1, 0.01)}):
        together = kind(**options).hyper(0, 200)
        one = kind(**options)
        for first, count in [(150, 3), (0, 1), (16, 16), (15, 2), (90, 80), (199, 1)]:
            got = one.hyper(first, count)
            np.testing.assert_array_equal(got, together[first : first + count])
        again = one.hyper(100, 50)
        one.lr = 0.7
        assert (one.hyper(100, 50) != again).any()
    assert kind(lr=0.1).hyper(10**12, 1).shape == (1, 1, len(kind().op.hyper))  # at once


def test_the_share_of_many_steps():
    """1/t where all weights are the same, whatever they are."""
    for lr, warmup in [(0.1, 0), (3.0, 1), (1e-100, 0)]:
        optimizer = fn.ScheduleFreeSGD(lr, warmup_steps=warmup)
        for first in (0, 4095, 4096, 123_456_789):
            shares = optimizer._shares(first, 3)
            np.testing.assert_allclose(shares, 1 / np.arange(first + 1, first + 4), rtol=1e-12)


@every
def test_lr_0_moves_nothing(backend, kind):
    model, optimizer = net(backend), kind(lr=0.0, weight_decay=0.3)
    start = values(model)
    for given in draw(model, 3):
        set_gradients(model, given)
        optimizer.step(model)
        for move in (optimizer.eval, optimizer.train):
            move(model)
            for name, value in values(model).items():
                np.testing.assert_array_equal(value, start[name])


@every
def test_the_padding_between_parameters_stays_zero(backend, kind):
    model, optimizer = net(backend, "float32"), kind(lr=0.1, weight_decay=0.1)
    segment = model.bind().flat("params")
    held = np.zeros_like(segment)
    for part in model.bind().parts(held):
        part[...] = 1
    for _ in range(3):
        model.value_and_grad(fn.MSELoss(), np.eye(3), np.ones((3, 2)))
        optimizer.step(model)
        optimizer.eval(model)
        state = model.optimizer_state(optimizer)
        for name, vector in {"w": segment, **state.vectors}.items():
            assert not vector[held == 0].any(), name
        optimizer.train(model)


@every
def test_an_assigned_beta_leaves_the_average(backend, kind):
    model, optimizer = net(backend), kind(lr=0.1)
    for given in draw(model, 4):
        set_gradients(model, given)
        optimizer.step(model)
    optimizer.eval(model)
    before = values(model)
    if kind is fn.ScheduleFreeSGD:
        optimizer.momentum = 0.5
    else:
        optimizer.betas = (0.5, 0.999)
    optimizer.train(model)
    optimizer.eval(model)
    for name, value in values(model).items():
        np.testing.assert_allclose(value, before[name], rtol=1e-9)


@every
def test_what_is_not_sound_is_refused(kind):
    wrong = not kind._decoupled
    for name, value in (
        ("l1_proximal", True),
        ("max_norm", 1.0),
        ("decoupled_weight_decay", wrong),
    ):
        message = f"{name} is {value}; {kind.__name__} takes only"
        optimizer, groups = kind(), [{"params": "*", name: value}]
        refused(lambda n=name, v=value: kind(**{n: v}), HyperparameterError, message)
        refused(lambda o=optimizer, n=name, v=value: setattr(o, n, v), HyperparameterError, message)
        refused(lambda g=groups: kind(groups=g), HyperparameterError, message)
    for value in (-1, 0.5, None, True):
        refused(lambda v=value: kind(warmup_steps=v), HyperparameterError, "^warmup_steps is")
    refused(lambda: kind().eval(3), HyperparameterError, "^model is 3; expected a Sequential")
