"""No assignment of a hyper-parameter resets a count or a vector that the new rule uses."""

import copy
import pickle

import numpy as np
import pytest

import fastnet as fn

RNG = np.random.default_rng(1)
X, Y = RNG.standard_normal((16, 3)), RNG.standard_normal((16, 2))
HALVES = fn.schedules.ExponentialLR(1.0, 0.5)


def net(backend):
    return fn.Sequential(fn.Linear(3, 2), dtype="float64", backend=backend, seed=1)


def step(model, optimizer):
    """One step; returns by how much the parameters moved."""
    before = flat(model)
    model.value_and_grad(fn.MSELoss(), X, Y)
    optimizer.step(model)
    return before - flat(model)


def flat(model):
    return np.concatenate([v.ravel() for v in model.parameters()])


def gradient(model):
    return np.concatenate([g.ravel() for g in model.grads.values()])


ASSIGNED = [
    (fn.SGD, {}, {"momentum": 0.9}),
    (fn.SGD, {"momentum": 0.9}, {"momentum": 0.0}),
    (fn.SGD, {"momentum": 0.9}, {"nesterov": True}),
    (fn.SGD, {"momentum": 0.9}, {"form": "textbook"}),
    (fn.SGD, {"momentum": 0.9}, {"l1": 0.1}),
    (fn.SGD, {"momentum": 0.9}, {"max_norm": 100.0}),
    (fn.Adam, {}, {"amsgrad": True}),
    (fn.Adam, {"amsgrad": True}, {"amsgrad": False}),
    (fn.RMSprop, {}, {"momentum": 0.9}),
    (fn.RMSprop, {"momentum": 0.9}, {"centered": True}),
    (fn.Adam, {}, {"groups": [{"params": "*.bias", "lr": 0.5}]}),
]


@pytest.mark.parametrize(("kind", "made", "assigned"), ASSIGNED)
def test_counts_and_vectors_stay(backend, kind, made, assigned):
    model, optimizer = net(backend), kind(lr=0.01, **made)
    for _ in range(3):
        step(model, optimizer)
    old = {n: v.copy() for n, v in model.optimizer_state(optimizer).vectors.items()}
    for name, value in assigned.items():
        setattr(optimizer, name, value)
    state = model.optimizer_state(optimizer)
    assert state.steps == 3
    for name, vector in old.items():
        if "form" not in assigned:
            np.testing.assert_array_equal(state.vectors[name], vector)
        assert vector.any()


def test_a_schedule_goes_on(backend):
    model, optimizer = net(backend), fn.SGD(HALVES)
    for wanted in (1, 0.5, 0.25):
        np.testing.assert_allclose(step(model, optimizer), wanted * gradient(model))
    optimizer.momentum = 0.9
    np.testing.assert_allclose(step(model, optimizer), 0.125 * gradient(model))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("forms", [("torch", "textbook"), ("textbook", "torch")])
def test_both_forms_go_on_as_one(backend, forms, nesterov):
    """With a rate and a momentum that are constant, for each group."""
    options = {"momentum": 0.8, "nesterov": nesterov}
    options["groups"] = [{"params": "*.bias", "lr": 0.003}]
    ends = []
    for changed in (False, True):
        model, optimizer = net(backend), fn.SGD(0.02, form=forms[0], **options)
        for number in range(6):
            if changed and number == 3:
                optimizer.form = forms[1]
            step(model, optimizer)
        ends.append(flat(model))
    if not nesterov:
        np.testing.assert_allclose(*ends, rtol=1e-9)
    else:  # the textbooks' hold the point one velocity ahead, as PyTorch's do
        np.testing.assert_allclose(*ends, rtol=1e-9)


def test_momentum_that_was_off_finds_its_velocity_again(backend):
    model, optimizer = net(backend), fn.SGD(0.02, momentum=0.8)
    step(model, optimizer)
    velocity = model.optimizer_state(optimizer).vectors["v"].copy()
    optimizer.momentum = 0.0
    step(model, optimizer)
    optimizer.momentum = 0.8
    np.testing.assert_array_equal(model.optimizer_state(optimizer).vectors["v"], velocity)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_copy_of_a_trainer_has_what_waits(twin):
    trainer = fn.Trainer(net("c"), fn.MSELoss(), fn.SGD(0.02, momentum=0.8), seed=1)
    trainer.fit(X, Y, verbose=0)
    trainer.optimizer.momentum = 0.0
    trainer.fit(X, Y, verbose=0)
    other = twin(trainer)
    for each in (trainer, other):
        each.optimizer.momentum = 0.8
        each.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(flat(trainer.model), flat(other.model))


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_copy_of_a_trainer_starts_a_velocity_as_its_model(twin):
    """At the gradient: also where the copy is made before the first step with momentum."""
    trainer = fn.Trainer(net("c"), fn.MSELoss(), fn.SGD(0.02, dampening=0.5), seed=1)
    trainer.fit(X, Y, verbose=0)
    trainer.optimizer.momentum = 0.8
    other = twin(trainer)
    start = flat(trainer.model)
    for each in (trainer, other):
        each.fit(X, Y, batch_size=len(X), verbose=0)
        moved = start - flat(each.model)
        np.testing.assert_allclose(moved, 0.02 * gradient(each.model), rtol=1e-9)
    last = twin(trainer)
    for each in (trainer, last):
        each.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(flat(trainer.model), flat(last.model))


def test_a_parameter_in_two_groups_is_refused():
    groups = [{"params": "0.*", "lr": 1.0}, {"params": ["0.bias"], "lr": 2.0}]
    with pytest.raises(
        fn.errors.HyperparameterError,
        match=r"^groups\[1\]: '0\.bias' fits 0\.bias, which belongs to groups\[0\]; expected",
    ):
        fn.SGD(0.1, groups=groups).step(net("c"))
    once = fn.SGD(0.1, groups=[{"params": ["0.*", "0.bias"], "lr": 1.0}])
    once.step(net("c"))
