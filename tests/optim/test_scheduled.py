"""Hyper-parameters that are schedules: how an optimizer reads them, step by step."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError
from fastnet.schedules import Schedule


class Ramp(Schedule):
    """base + slope·t: a schedule of a user's own."""

    def __init__(self, base, slope=0.0):
        super().__init__(base=base, slope=slope)

    def values(self, t):
        return self.base + self.slope * t


OPTIMIZERS = {
    "sgd": lambda s: fn.SGD(lr=s(0.1, 0.02), weight_decay=s(0.3, -0.01)),
    "momentum": lambda s: fn.SGD(lr=s(0.1), momentum=s(0.9, -0.02), dampening=s(0.1, 0.1)),
    "nesterov": lambda s: fn.SGD(lr=s(0.1), momentum=s(0.9, -0.02), nesterov=True),
    "adam": lambda s: fn.Adam(s(0.1, 0.01), (s(0.9, -0.02), s(0.99, -0.01)), s(1e-3, 1e-3)),
    "adamw": lambda s: fn.AdamW(s(0.1, 0.01), (s(0.9, -0.02), 0.99), weight_decay=s(0.1, 0.1)),
    "textbook": lambda s: fn.SGD(lr=s(0.1, 0.1), momentum=s(0.9, -0.02), form="textbook"),
    "adagrad": lambda s: fn.Adagrad(s(0.1, 0.01), s(0.1, 0.1), s(0.3, -0.01), 0.1, s(1e-3, 1e-3)),
    "adadelta": lambda s: fn.Adadelta(s(0.1, 0.01), s(0.9, -0.02), s(1e-3, 1e-3)),
    "rmsprop": lambda s: fn.RMSprop(s(0.1), s(0.9, -0.02), s(1e-3), momentum=s(0.9, -0.02)),
    "adamax": lambda s: fn.Adamax(s(0.1, 0.01), (s(0.9, -0.02), s(0.99, -0.01)), s(1e-3, 1e-3)),
    "radam": lambda s: fn.RAdam(s(0.1, 0.01), (s(0.9, -0.02), s(0.99, -0.001)), s(1e-3, 1e-3)),
    "lion": lambda s: fn.Lion(s(0.1, 0.01), (s(0.9, -0.02), 0.99), s(0.1, 0.1)),
    "rprop": lambda s: fn.Rprop(
        s(0.1, 0.01), (s(0.5, 0.01), s(1.2, 0.1)), (s(1e-3, 1e-3), s(5.0, 1.0)), s(0.1, 0.1)
    ),
    "learned": lambda s: fn.LearnedOptimizer(lr=s(0.1, 0.01), weight_decay=s(0.1, 0.1)),
    "muon": lambda s: fn.Muon(
        s(0.1, 0.01),
        s(0.1, 0.1),
        s(0.9, -0.02),
        True,
        (s(3.4, 0.1), -4.7, s(2.0, 0.1)),
        s(1e-3, 1e-3),
    ),
    "schedule-free": lambda s: fn.ScheduleFreeAdamW(  # whose other numbers act on later steps too
        0.1, (0.9, s(0.99, -0.01)), s(1e-3, 1e-3), s(0.1, 0.1), warmup_steps=3
    ),
    "penalties": lambda s: fn.SGD(s(0.1, 0.01), l1=s(0.1, 0.01), max_norm=s(1.0, 0.1)),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


@every_optimizer
def test_a_scheduled_number_is_the_same_as_assigning_it_before_each_step(make):
    scheduled = make(Ramp)
    for t in (0, 1, 7):
        plain = make(lambda base, slope=0.0, t=t: base + slope * t)
        want, got = plain.hyper(t, 1), scheduled.hyper(0, t + 1)[t:]
        assert plain.op is scheduled.op
        np.testing.assert_allclose(got, want, rtol=1e-15)


@every_optimizer
def test_numbers_do_not_depend_on_how_many_steps_are_asked_for(make):
    together = make(Ramp).hyper(3, 12)
    alone = [make(Ramp).hyper(t, 1)[0] for t in range(3, 15)]
    np.testing.assert_array_equal(together, alone)


EVERY = [getattr(fn, name) for name in fn.__all__ if isinstance(getattr(fn, name), type)]
EVERY = [kind for kind in EVERY if issubclass(kind, fn.Optimizer) and kind is not fn.Optimizer]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_number_of_every_optimizer_may_be_a_schedule(kind):
    """One that never changes gives the numbers of the plain one."""
    given = {p.name: p.default for p in inspect.signature(kind).parameters.values()}
    plain = {name: value or 0.1 for name, value in given.items() if type(value) is float}
    plain |= {"l1": 0.01}
    scheduled = {name: Ramp(value) for name, value in plain.items()}
    if kind in (fn.SGDHD, fn.AdamHD):  # which change the rate themselves
        scheduled["lr"] = plain["lr"]
    pairs = {"betas": (0.9, 0.99), "etas": (0.5, 1.2), "step_sizes": (1e-6, 50.0)}
    pairs["ns_coefficients"] = (3.4, -4.7, 2.0)
    for name in pairs.keys() & given.keys():
        plain[name], scheduled[name] = pairs[name], tuple(map(Ramp, pairs[name]))
    numbers = {n for n, p in given.items() if type(p) in (float, tuple) and p != ()}
    assert plain.keys() >= numbers - {"groups"}
    one, two = kind(**plain), kind(**scheduled)
    assert one.passes() == two.passes()
    for first, count in [(0, 9), (2000, 3)]:
        np.testing.assert_allclose(two.hyper(first, count), one.hyper(first, count), rtol=1e-11)


def test_the_attribute_is_the_schedule():
    ramp = Ramp(0.1, 0.2)
    optimizer = fn.Adam(ramp, betas=(ramp, 0.9))
    assert optimizer.lr is ramp and optimizer.betas == (ramp, 0.9)
    assert "lr=Ramp(0.1, slope=0.2)" in repr(optimizer)
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert twin.lr == ramp and twin.betas == (ramp, 0.9)
        np.testing.assert_array_equal(twin.hyper(2, 3), optimizer.hyper(2, 3))
    optimizer.lr = 0.5
    assert optimizer.lr == 0.5
    optimizer.betas = (0.8, 0.9)
    want = fn.Adam(0.5, (0.8, 0.9)).hyper(2, 3)
    np.testing.assert_array_equal(optimizer.hyper(2, 3), want)
    optimizer.betas = (0.8, ramp)
    assert (optimizer.hyper(2, 3) != want).any()


def test_a_fit_runs_the_schedule_whatever_its_chunks(backend):
    x, y = np.random.default_rng(0).normal(size=(64, 3)), np.arange(64) % 2
    models = [fn.Sequential(fn.Linear(3, 2), seed=1, backend=backend) for _ in range(2)]
    schedule = Ramp(0.5, -0.001)
    trainer = fn.Trainer(models[0], fn.CrossEntropyLoss(), fn.SGD(schedule, 0.9), seed=3)
    trainer.fit(x, y, 20, batch_size=8, verbose=0)
    own, loss, step = fn.SGD(0.5, 0.9), fn.CrossEntropyLoss(), 0
    for epoch in range(20):
        for xb, yb in fn.batches(x, y, batch_size=8, seed=3, epoch=epoch):
            own.lr = schedule(step)
            models[1].value_and_grad(loss, xb, yb)
            own.step(models[1])
            step += 1
    for a, b in zip(*(m.parameters() for m in models), strict=True):
        np.testing.assert_array_equal(a, b)


def test_steps_are_updates(backend):
    """Of which there are two in an epoch of four minibatches, two at a time."""
    model = fn.Sequential(fn.Linear(3, 2), seed=1, backend=backend)
    trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(Ramp(0.2, -0.05)), seed=3)
    trainer.fit(np.ones((8, 3)), np.ones((8, 2)), 2, 2, accumulation_steps=2, verbose=0)
    assert trainer.optimizer.state(model).steps == 4 and trainer.step == 8
    with pytest.raises(HyperparameterError, match="lr at step 5 is"):
        trainer.fit(np.ones((8, 3)), np.ones((8, 2)), 2, 2, accumulation_steps=2, verbose=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fn.SGD(Ramp(-0.1)), r"lr at step 0 is -0.1; expected .* in \[0, inf\)"),
        (lambda: fn.Adam(eps=Ramp(0.0)), "eps at step 0 is 0.0"),
        (lambda: fn.Adam(betas=(0.9, Ramp(1.0))), r"betas\[1\] at step 0 is 1.0; .* in \[0, 1\)"),
        (
            lambda: fn.Rprop(etas=(0.5, Ramp(1.5, -0.1))).hyper(0, 9),
            r"etas\[1\] at step 8 is 0.7; .* in \(1, inf\)",
        ),
        (lambda: fn.SGD(Ramp(0.2, -0.1)).hyper(1, 9), r"lr at step 9 is -0.7"),
        (
            lambda: fn.Adam(betas=(0.9, Ramp(0.9, 0.01))).hyper(0, 20),
            r"betas\[1\] at step 19 is 1.09",
        ),
        (lambda: fn.SGD(Ramp(0.2, np.nan)), "lr at step 0 is nan"),
        (lambda: fn.SGD(0.1, Ramp(1.0, 1e308)).hyper(3, 1), "momentum at step 3 is inf"),
        (lambda: fn.SGD(Ramp), "lr is the class Ramp; expected a finite number"),
    ],
)
def test_a_scheduled_number_outside_its_interval_is_refused(call, message):
    with pytest.raises(HyperparameterError, match=message):
        call()


def test_a_fit_that_meets_a_bad_number_ends_before_its_steps(backend):
    model = fn.Sequential(fn.Linear(3, 2), seed=1, backend=backend)
    trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(Ramp(0.2, -0.1)), seed=3)
    with pytest.raises(HyperparameterError, match="lr at step 3 is"):
        trainer.fit(np.ones((5, 3)), np.ones((5, 2)), 9, batch_size=5, verbose=0)
    assert trainer.step == trainer.optimizer.state(model).steps == 3
    trainer.optimizer.lr = 0.1
    trainer.fit(np.ones((5, 3)), np.ones((5, 2)), batch_size=5, verbose=0)
    assert trainer.step == 4


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_copied_trainer_goes_on_in_its_schedule(backend, twin):
    x, y = np.random.default_rng(0).normal(size=(64, 3)), np.arange(64) % 2
    model = fn.Sequential(fn.Linear(3, 2), seed=1, backend=backend)
    cycle = fn.schedules.OneCycleLR(0.1, 48)
    optimizer = fn.Adam(cycle, (cycle.momentum, 0.99))
    one = fn.Trainer(model, fn.CrossEntropyLoss(), optimizer, seed=3)
    one.fit(x, y, 3, 8, verbose=0)
    two = twin(one)
    assert two.optimizer.lr == cycle and two.optimizer.state(two.model).steps == 24
    for trainer in (one, two):
        trainer.fit(x, y, 3, 8, verbose=0)
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        np.testing.assert_array_equal(a, b)
    one.optimizer.lr = 0.5 * cycle  # keeps moments and steps
    assert one.optimizer.state(one.model).steps == 48
    one.reset()
    assert one.optimizer.state(one.model).steps == 0
