"""Hypergradient descent against a transcription of its paper: Baydin et al., arXiv:1703.04782."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from prescribed import draw, set_gradients

import fastnet as fn
from fastnet.errors import HyperparameterError
from fastnet.schedules import StepLR


def net(backend, dtype="float64", seed=3):
    layers = fn.Linear(3, 5), fn.BatchNorm1d(5), fn.Tanh(), fn.Linear(5, 2)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=seed)


class Paper:
    """α ← α − β·h, or α·(1 − β·h/(‖∇f‖‖∇_α u‖)), with h = ∇f·∇_α u of the step before; θ ← θ + u."""

    def __init__(self, theta, rate, beta, multiplicative, direction):
        self.theta, self.rate, self.beta = theta.copy(), rate, beta
        self.multiplicative, self.direction = multiplicative, direction
        self.slope = np.zeros_like(theta)  # ∇_α u

    def step(self, g):
        h, lengths = g @ self.slope, np.linalg.norm(g) * np.linalg.norm(self.slope)
        if not self.multiplicative:
            self.rate -= self.beta * h
        elif lengths:
            self.rate *= 1 - self.beta * h / lengths
        self.slope = -self.direction(g)
        self.theta = self.theta + self.rate * self.slope


def sgd():
    return lambda g: g


def momentum(mu=0.9):
    v = 0.0

    def direction(g):
        nonlocal v
        v = mu * v + g
        return v

    return direction


def nesterov(mu=0.9):
    velocity = momentum(mu)
    return lambda g: g + mu * velocity(g)


def adam(b1=0.9, b2=0.99, eps=1e-8):
    m, v, t = 0.0, 0.0, 0

    def direction(g):
        nonlocal m, v, t
        m, v, t = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g, t + 1
        return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)

    return direction


KINDS = {
    "sgd": (sgd, lambda **o: fn.SGDHD(0.01, **o)),
    "momentum": (momentum, lambda **o: fn.SGDHD(0.01, 0.9, **o)),
    "nesterov": (nesterov, lambda **o: fn.SGDHD(0.01, 0.9, nesterov=True, **o)),
    "adam": (adam, lambda **o: fn.AdamHD(0.01, (0.9, 0.99), **o)),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_rule = pytest.mark.parametrize("multiplicative", [False, True])


@every_kind
@every_rule
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_steps_are_the_papers(backend, kind, multiplicative, weight_decay):
    direction, make = KINDS[kind]
    beta = 0.05 if multiplicative else 1e-3
    model = net(backend)
    optimizer = make(hypergrad_lr=beta, multiplicative=multiplicative, weight_decay=weight_decay)
    names, random = list(model.named_parameters()), np.random.default_rng(1)
    start = np.concatenate([p.ravel() for p in model.parameters()])
    peer, rates = Paper(start, 0.01, beta, multiplicative, direction()), set()
    for _ in range(60):
        x, t = random.normal(size=(8, 3)), random.normal(size=(8, 2))
        model.zero_grad()
        model.value_and_grad(fn.MSELoss(), x, t)
        g = np.concatenate([model.grads[name].ravel() for name in names])
        optimizer.step(model)
        peer.step(g + weight_decay * peer.theta)
        got = np.concatenate([p.ravel() for p in model.parameters()])
        np.testing.assert_allclose(got, peer.theta, 1e-8, 1e-9)
        rates.add(optimizer.tuned(model)["lr"])
        assert optimizer.tuned(model)["lr"] == pytest.approx(peer.rate, rel=1e-8)
    assert len(rates) == 60 and max(rates) > 0.011


@every_kind
def test_without_hypergradient_the_rate_is_constant(backend, kind):
    """So the steps are those of SGD or Adam."""
    plain = {
        "sgd": fn.SGD(0.01),
        "momentum": fn.SGD(0.01, 0.9),
        "nesterov": fn.SGD(0.01, 0.9, nesterov=True),
        "adam": fn.Adam(0.01, (0.9, 0.99)),
    }[kind]
    models, tuned = [net(backend), net(backend)], KINDS[kind][1](hypergrad_lr=0.0)
    for given in draw(models[0], 50):
        for model, optimizer in zip(models, (plain, tuned), strict=True):
            set_gradients(model, given)
            optimizer.step(model)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        np.testing.assert_allclose(one, other, 1e-9)


@every_kind
def test_fit_and_a_state_dict_go_on_to_the_bit(backend, kind):
    random = np.random.default_rng(5)
    x, t = random.normal(size=(64, 3)), random.normal(size=(64, 2))

    def trainer(seed=3):
        model, optimizer = net(backend, seed=seed), KINDS[kind][1](hypergrad_lr=1e-3)
        return fn.Trainer(model, fn.MSELoss(), optimizer, seed=1)

    whole, first, second = trainer(), trainer(), trainer(seed=8)
    whole.fit(x, t, epochs=4, batch_size=16, shuffle=False, verbose=0)
    first.fit(x, t, epochs=2, batch_size=16, shuffle=False, verbose=0)
    second.model.load_state_dict(copy.deepcopy(first.model.state_dict()))
    second.optimizer.load_state_dict(second.model, first.optimizer.state_dict(first.model))
    second.fit(x, t, epochs=2, batch_size=16, shuffle=False, verbose=0)
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.optimizer.tuned(whole.model) == second.optimizer.tuned(second.model)


def test_another_lr_is_the_next_rate(backend):
    model, optimizer = net(backend), fn.SGDHD(0.01, hypergrad_lr=1e-3)
    assert optimizer.tuned(model) == {"lr": 0.0}
    for step, given in enumerate(draw(model, 6)):
        if step == 4:
            optimizer.lr = 0.5
        set_gradients(model, {n: np.sign(g) for n, g in given.items()})
        optimizer.step(model)
        if step in (0, 4):
            assert optimizer.tuned(model) == {"lr": optimizer.lr}
    assert optimizer.tuned(model) != {"lr": 0.5}


def test_a_group_has_decay_and_momentum_of_its_own(backend):
    model = net(backend)
    groups = [{"params": "0.*", "momentum": 0.0, "weight_decay": 0.3}]
    optimizer = fn.SGDHD(0.01, 0.9, hypergrad_lr=1e-4, groups=groups)
    part = sum(p.size for n, p in model.named_parameters().items() if n.startswith("0."))
    velocity = momentum()

    def direction(d):
        return np.concatenate([d[:part], velocity(d[part:])])

    peer = Paper(
        np.concatenate([p.ravel() for p in model.parameters()]), 0.01, 1e-4, False, direction
    )
    random = np.random.default_rng(0)
    for _ in range(20):
        given = {n: random.normal(size=p.shape) for n, p in model.named_parameters().items()}
        set_gradients(model, given)
        decay = np.where(np.arange(len(peer.theta)) < part, 0.3, 0.0)
        peer.step(np.concatenate([g.ravel() for g in given.values()]) + decay * peer.theta)
        optimizer.step(model)
    got = np.concatenate([p.ravel() for p in model.parameters()])
    np.testing.assert_allclose(got, peer.theta, 1e-9, 1e-12)


REFUSED = [
    (lambda: fn.SGDHD(StepLR(0.1, 5)), "lr is StepLR.*; SGDHD takes the rate of its first step"),
    (lambda: fn.AdamHD(StepLR(0.1, 5)), "lr is StepLR.*; AdamHD takes the rate of its first step"),
    (lambda: fn.SGDHD(nesterov=True), "nesterov=True with momentum=0.0; expected momentum > 0"),
    (
        lambda: fn.SGDHD(groups=[{"params": "*", "lr": 1.0}]),
        "groups.0. has 'lr'; expected 'params'",
    ),
    (lambda: fn.AdamHD(l1_proximal=True), "l1_proximal is True; AdamHD takes only False"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[m.split(";")[0] for _, m in REFUSED])
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(HyperparameterError, match=message):
        make()


def test_a_refused_assignment_changes_nothing():
    optimizer = fn.SGDHD(0.1, 0.9, nesterov=True)
    with pytest.raises(HyperparameterError, match="nesterov=True with momentum=0"):
        optimizer.momentum = 0.0
    assert optimizer.momentum == 0.9
