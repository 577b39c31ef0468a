"""Optimizers that PyTorch does not have, and what all can add to a step, against transcriptions."""

from __future__ import annotations

import numpy as np
import pytest
from prescribed import draw, set_gradients

import fastnet as fn
from fastnet.schedules import Schedule

TOL = 1e-10


def learned(lr, **more):
    """Whose first argument is another."""
    return fn.LearnedOptimizer(lr=lr, **more)


EVERY = [
    fn.SGD,
    fn.Adagrad,
    fn.Adadelta,
    fn.RMSprop,
    fn.Adam,
    fn.AdamW,
    fn.Adamax,
    fn.NAdam,
    fn.RAdam,
    fn.Lion,
    fn.Rprop,
    fn.Muon,
    learned,
]
every_optimizer = pytest.mark.parametrize("make", EVERY)


def net(backend, dtype="float64"):
    layers = fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Linear(4, 2)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=3)


def values(model):
    return {name: np.array(p) for name, p in model.named_parameters().items()}


def check(model, optimizer, transcription, steps=1000, tol=TOL, gradients=None):
    """Each step is transcription(t, w, g), t from 1, for every parameter by itself."""
    start = values(model)
    peers = {name: transcription(w) for name, w in start.items()}
    for peer in peers.values():
        next(peer)
    for given in gradients or draw(model, steps):
        set_gradients(model, given)
        optimizer.step(model)
        for name, peer in peers.items():
            want, got = peer.send(given[name].astype("d")), model.named_parameters()[name]
            np.testing.assert_allclose(got, want, rtol=tol, atol=tol * np.abs(want).max())


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.5, 0.6), (0.0, 0.99)])
def test_lion(backend, betas, weight_decay):
    """Chen et al. 2023, algorithm 2."""
    beta1, beta2 = betas
    eta = 0.01

    def transcription(theta):
        theta, m = theta.copy(), 0.0
        while True:
            g = yield theta
            c = beta1 * m + (1 - beta1) * g
            theta = theta - eta * (np.sign(c) + weight_decay * theta)
            m = beta2 * m + (1 - beta2) * g

    check(net(backend), fn.Lion(eta, betas, weight_decay), transcription)


def test_lion_in_float32(backend):
    """With gradients of one sign: where c is near 0, its sign is not a matter of accuracy."""

    def transcription(theta):
        theta, m = theta.astype("d"), 0.0
        while True:
            g = yield theta
            theta = theta - 1e-4 * np.sign(0.9 * m + 0.1 * g)
            m = 0.99 * m + 0.01 * g

    model = net(backend, "float32")
    given = [{n: np.abs(g).astype("f") for n, g in d.items()} for d in draw(model, 100)]
    check(model, fn.Lion(), transcription, tol=1e-5, gradients=given)


class Falling(Schedule):
    """From `start`, less with every step."""

    def __init__(self, start):
        super().__init__(start=start)

    def values(self, t):
        return self.start / (1.0 + 0.01 * t)


LR, MU = Falling(0.1), Falling(0.9)


@pytest.mark.parametrize("weight_decay", [0.0, 0.02])
def test_momentum_of_the_textbooks(backend, weight_decay):
    """v ← μv − lr·g; w ← w + v, with both numbers changing."""

    def transcription(w):
        w, v, t = w.copy(), 0.0, 0
        while True:
            g = yield w
            v = MU(t) * v - LR(t) * (g + weight_decay * w)
            w = w + v
            t += 1

    optimizer = fn.SGD(LR, MU, weight_decay=weight_decay, form="textbook")
    check(net(backend), optimizer, transcription)


def test_sutskevers_nesterov(backend):
    """Sutskever et al. 2013, (3) and (4): the gradient is that at θ + μv, where the parameters are."""

    def transcription(theta):
        theta, v, t = theta.copy(), 0.0, 0
        while True:
            gradient_ahead = yield theta + MU(t) * v
            v = MU(t) * v - LR(t) * gradient_ahead
            theta = theta + v
            t += 1

    optimizer = fn.SGD(LR, MU, nesterov=True, form="textbook")
    check(net(backend), optimizer, transcription)


@pytest.mark.parametrize("nesterov", [False, True])
def test_at_constant_numbers_the_forms_of_momentum_agree(backend, nesterov):
    models = [net(backend), net(backend)]
    optimizers = [fn.SGD(0.1, 0.9, nesterov=nesterov, form=f) for f in ("torch", "textbook")]
    for given in draw(models[0], 100):
        for model, optimizer in zip(models, optimizers, strict=True):
            set_gradients(model, given)
            optimizer.step(model)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


# What every optimizer can add: two models, one of them treated by hand around each plain step.


def side_by_side(backend, added, plain, before=None, gradient=None, after=None, steps=50):
    one, two = net(backend), net(backend)
    for given in draw(one, steps):
        set_gradients(one, given)
        added.step(one)
        if gradient:
            given = {n: gradient(g, two.named_parameters()[n]) for n, g in given.items()}
        with two.edit() as p:
            for name in two.named_parameters():
                p[name][...] = before(p[name]) if before else p[name]
        set_gradients(two, given)
        plain.step(two)
        with two.edit() as p:
            for name in two.named_parameters():
                p[name][...] = after(name, p[name]) if after else p[name]
        for name, want in two.named_parameters().items():
            got = one.named_parameters()[name]
            np.testing.assert_allclose(got, want, rtol=TOL, atol=1e-14, err_msg=name)
    return one


@every_optimizer
def test_decoupled_weight_decay(backend, make):
    """Loshchilov & Hutter 2019: the decay never enters what the rule makes of the gradient."""
    added = make(0.1, weight_decay=0.3, decoupled_weight_decay=True)
    plain = make(0.1, weight_decay=0.0)
    side_by_side(backend, added, plain, before=lambda w: w * (1 - 0.1 * 0.3))


@every_optimizer
def test_l1_by_its_subgradient(backend, make):
    added, plain = make(0.01, l1=0.2), make(0.01)
    side_by_side(backend, added, plain, gradient=lambda g, w: g + 0.2 * np.sign(w), steps=20)


def soft(w, cut):
    return np.sign(w) * np.maximum(np.abs(w) - cut, 0)


@every_optimizer
def test_l1_by_its_proximal_step(backend, make):
    added, plain = make(0.1, l1=0.05, l1_proximal=True), make(0.1)
    model = side_by_side(backend, added, plain, after=lambda _, w: soft(w, 0.1 * 0.05))
    assert model.parameters()[0].any()


def test_the_proximal_step_makes_weights_zero(backend):
    model = net(backend)
    for given in draw(model, 200):
        set_gradients(model, {name: 0.0 * g for name, g in given.items()})
        fn.SGD(0.1, l1=0.05, l1_proximal=True).step(model)
    assert not any(p.any() for name, p in model.named_parameters().items() if "1." not in name)


@every_optimizer
def test_max_norm(backend, make):
    """Of the incoming weights of each unit: rows of PyTorch's (out, in)."""

    def scaled(name, w):
        if w.ndim == 1:
            return w
        norms = np.sqrt((w**2).sum(axis=1, keepdims=True))
        return np.where(norms > 0.4, w * (0.4 / norms), w)

    model = side_by_side(backend, make(0.1, max_norm=0.4), make(0.1), after=scaled)
    for name in ("0.weight", "2.weight"):
        norms = np.linalg.norm(model.state_dict()[name], axis=1)
        assert (norms <= 0.4 * (1 + 1e-12)).all() and norms.max() > 0.2


def test_what_is_added_may_differ_by_group(backend):
    groups = [{"params": "2.*", "l1": 0.0, "max_norm": None}, {"params": "1.*", "max_norm": None}]
    model, other = net(backend), net(backend)
    optimizer, plain = fn.Adam(0.1, l1=0.3, max_norm=0.2, groups=groups), fn.Adam(0.1)
    for given in draw(model, 5):
        for one, by in ((model, optimizer), (other, plain)):
            set_gradients(one, given)
            by.step(one)
    for name in ("2.weight", "2.bias"):
        np.testing.assert_array_equal(model.state_dict()[name], other.state_dict()[name])
    assert np.linalg.norm(model.state_dict()["0.weight"], axis=1).max() < 0.2 * (1 + 1e-12)
    assert (model.state_dict()["1.weight"] != other.state_dict()["1.weight"]).any()


@pytest.mark.parametrize("option", [{"l1": 0.1}, {"max_norm": 1.0}, {"weight_decay": 0.5}])
def test_what_is_added_later_keeps_the_state(backend, option):
    model, optimizer, twin = net(backend), fn.Adam(0.1), fn.Adam(0.1, **option)
    other = net(backend)
    for given in draw(model, 3):
        set_gradients(model, given)
        optimizer.step(model)
        set_gradients(other, given)
        fn.SGD(0.0).step(other)
    moments = {n: v.copy() for n, v in optimizer.state(model).vectors.items()}
    ((name, value),) = option.items()
    setattr(optimizer, name, value)
    state = model.optimizer_state(optimizer)
    assert state.steps == 3
    for n, v in moments.items():
        np.testing.assert_array_equal(state.vectors[n], v)
    assert repr(optimizer) == repr(twin)


def test_penalties_leave_gradients_alone(backend):
    model = net(backend)
    (given,) = draw(model, 1)
    set_gradients(model, given)
    fn.Adam(0.1, l1=0.3, max_norm=0.1, weight_decay=0.2).step(model)
    for name, g in given.items():
        np.testing.assert_array_equal(model.grads[name], g)


@every_optimizer
def test_the_padding_between_parameters_stays_zero(backend, make):
    model = net(backend)
    optimizer = make(0.1, weight_decay=0.1, l1=0.1, max_norm=0.5)
    for given in draw(model, 3):
        set_gradients(model, given)
        optimizer.step(model)
    flat = model.bind().flat("params")
    assert np.count_nonzero(flat) == sum(np.count_nonzero(p) for p in model.parameters())
