"""Steps one by one: what is kept between them, and what makes it anew."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

import fastnet as fn
from fastnet.backends import executor, registry
from fastnet.errors import HyperparameterError
from fastnet.optim import nadam
from fastnet.optim import optimizer as module
from fastnet.schedules import Schedule

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)


class Ramp(Schedule):
    """base + slope·t."""

    def __init__(self, base, slope):
        super().__init__(base=base, slope=slope)

    def values(self, t):
        return self.base + self.slope * t


KINDS = [getattr(fn, name) for name in fn.__all__ if inspect.isclass(getattr(fn, name))]
KINDS = [kind for kind in KINDS if issubclass(kind, fn.Optimizer) and kind is not fn.Optimizer]


def net(backend="c", seed=0):
    return fn.Sequential(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2), backend=backend, seed=seed)


def flat(model):
    return model.bind().flat("params").copy()


def step(model, optimizer):
    """One step; returns by how much each element has moved."""
    before = flat(model)
    model.value_and_grad(fn.MSELoss(), X, Y)
    fn.clip_grad_norm_(model, 0.5)
    optimizer.step(model)
    return flat(model) - before


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("scheduled", [False, True])
def test_numbers_step_by_step_are_those_of_all_steps_at_once(kind, scheduled, monkeypatch):
    name = "hypergrad_lr" if kind in (fn.SGDHD, fn.AdamHD) else "lr"
    optimizer = kind(**{name: Ramp(0.1, 1e-4)}) if scheduled else kind()
    if hasattr(optimizer, "momentum_decay"):  # so that the momenta's product stays beside 1
        optimizer.betas, optimizer.momentum_decay = (0.999, 0.999), 10.0
    model, found = net("reference"), []
    state = model.optimizer_state(optimizer)
    together = module.numbers_of(state.settings, 0, 150)
    if kind is not fn.Muon:  # which has other numbers for biases
        np.testing.assert_array_equal(together, optimizer.hyper(0, 150))
    monkeypatch.setattr(nadam, "BLOCK", 16)
    for count in (1, 1, 3, 40, 30, 1, 70, 1, 1, 1, 1):
        found.append(state.hyper(count).copy())
        state.steps += count
    np.testing.assert_array_equal(np.concatenate(found), together)


def test_a_step_back_is_a_step_back():
    """As where a trainer is copied, whose optimizer's steps are assigned."""
    optimizer = fn.Adam()
    state = net("reference").optimizer_state(optimizer)
    for steps in (10, 3, 70, 71, 9):
        state.steps = steps
        np.testing.assert_array_equal(state.hyper(2), optimizer.hyper(steps, 2))


def reset(optimizer, model):
    optimizer.reset(model)


def fit(optimizer, model):
    fn.Trainer(model, fn.MSELoss(), optimizer, seed=1).fit(X, Y, 3, 2, verbose=0)


def step_another(optimizer, model):
    for _ in range(3):
        step(net(model.backend, seed=5), optimizer)


def assign(name, value):
    return lambda optimizer, model: setattr(optimizer, name, value)


def assign_in_group(optimizer, model):
    optimizer.groups[0]["lr"] = 0.5


def save_and_load(optimizer, model):
    kept = {name: value.copy() for name, value in model.state_dict().items()}
    step(model, optimizer)
    model.load_state_dict(kept)


GROUP = {"params": "0.*", "lr": 0.01}
EVENTS = {
    "lr": assign("lr", 0.3),
    "the same lr": assign("lr", 0.1),
    "betas": assign("betas", (0.5, 0.6)),
    "weight_decay": assign("weight_decay", 0.4),
    "a schedule": assign("lr", Ramp(0.2, 0.01)),
    "groups": assign("groups", [{"params": "2.*", "lr": 0.4}]),
    "no groups": assign("groups", ()),
    "in a group": assign_in_group,
    "l1, with another program": assign("l1", 0.3),
    "another rule": assign("amsgrad", True),
    "reset": reset,
    "load": save_and_load,
    "fit": fit,
    "another model": step_another,
    "threads": lambda optimizer, model: fn.set_num_threads(3),
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_what_happens_between_steps_acts_on_the_next(backend, event, monkeypatch):
    """The bits are those of numbers that are made for one step at a time."""
    monkeypatch.setattr(executor, "WORK_TO_SHARE", 0)
    before, found = fn.get_num_threads(), {}
    for ahead in (module.AHEAD, 1):
        monkeypatch.setattr(module, "AHEAD", ahead)
        for happens in (True, False):
            model, optimizer = net(backend), fn.Adam(0.1, groups=[GROUP])
            for _ in range(3):
                step(model, optimizer)
            try:
                if happens:
                    event(optimizer, model)
                found[ahead, happens] = step(model, optimizer), step(model, optimizer)
            finally:
                fn.set_num_threads(before)
    np.testing.assert_array_equal(found[64, True], found[1, True])
    np.testing.assert_array_equal(found[64, False], found[1, False])
    # The greatest second moment so far is at first the one that has been kept.
    alike = "the same lr", "another model", "threads", "another rule"
    same = event in [EVENTS[name] for name in alike]
    assert np.array_equal(found[64, True][0], found[64, False][0]) == same


@pytest.mark.parametrize(
    "stop",
    [
        lambda o: setattr(o, "lr", 0.0),
        lambda o: setattr(o, "groups", [{"params": "*", "lr": 0.0}]),
        lambda o: o.groups[0].update(lr=0.0),
    ],
)
def test_a_rate_of_zero_stops_the_very_next_step(backend, stop):
    model, optimizer = net(backend), fn.NAdam(0.1, groups=[{"params": "9*"}])
    optimizer.groups = [{"params": "*"}]
    for _ in range(2):
        assert step(model, optimizer).any()
    stop(optimizer)
    assert not step(model, optimizer).any()


def test_attributes_of_a_subclass_act_on_the_next_step(backend):
    """Those too that are no hyper-parameters."""

    class Halved(fn.SGD):
        def _columns(self, at, t):
            return super()._columns(at, t) | {"lr": at.lr * self._share}

    optimizer, model = Halved(0.1), net(backend)
    optimizer._share = 0.5
    assert step(model, optimizer).any()
    optimizer._share = 0.0
    assert not step(model, optimizer).any()


def test_a_bad_number_of_a_later_step_is_told_at_that_step(backend):
    model, optimizer = net(backend), fn.SGD(Ramp(0.2, -0.05))
    for _ in range(5):
        step(model, optimizer)
    before = flat(model)
    for _ in range(2):
        with pytest.raises(HyperparameterError, match=r"lr at step 5 is -0\.04"):
            optimizer.step(model)
    assert optimizer.state(model).steps == 5 and np.array_equal(flat(model), before)
    optimizer.lr = 0.1
    assert step(model, optimizer).any()


def test_any_error_of_a_schedule_is_told_at_its_step(backend):
    table = [0.3, 0.2]
    model, optimizer = net(backend), fn.SGD(fn.schedules.LambdaLR(1.0, lambda t: table[t]))
    for _ in table:
        step(model, optimizer)
    with pytest.raises(IndexError):
        optimizer.step(model)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_in_the_midst_go_their_own_ways(backend, twin):
    one = fn.Trainer(net(backend), fn.MSELoss(), fn.NAdam(0.1), seed=0)
    for _ in range(5):
        step(one.model, one.optimizer)
    two = twin(one)
    alone = twin(one.optimizer)  # starts afresh
    assert alone.state(two.model).steps == 0
    for _ in range(3):
        np.testing.assert_array_equal(*(step(t.model, t.optimizer) for t in (one, two)))
    one.optimizer.lr = 0.0
    assert not step(one.model, one.optimizer).any()
    assert step(two.model, two.optimizer).any()


def test_programs_are_made_once(monkeypatch):
    """Whatever numbers change between the steps."""
    made: list[int] = []
    monkeypatch.setattr(registry.get("reference"), "prepare", lambda p: made.append(len(p)))
    model, optimizer, counts = net("reference"), fn.Adam(0.1), []
    for turn in range(3):
        optimizer.lr = 0.1 + turn
        optimizer.groups = [{"params": "0.*", "lr": 0.1 * turn}]
        step(model, optimizer)
        fn.clip_grad_norm_(model, 1.0 + turn, error_if_nonfinite=True)
        fn.clip_grad_value_(model, 1.0 + turn)
        counts.append(len(made))
    assert counts[0] == counts[1] == counts[2] > 0


def test_limits_are_those_of_the_call(backend):
    model = net(backend)
    model.value_and_grad(fn.MSELoss(), X, Y)
    whole = model.grad_norm()
    for share in (2.0, 0.5, 0.9, 0.25):
        before = min(1.0, 0.5 if share in (0.9, 0.25) else 1.0) * whole
        assert fn.clip_grad_norm_(model, share * whole) == pytest.approx(before, rel=1e-5)
        assert model.grad_norm() == pytest.approx(min(before, share * whole), rel=1e-5)
    for limit in (0.01, 1.0, 0.001):
        fn.clip_grad_value_(model, limit)
        greatest = max(np.abs(g).max() for g in model.grads.values())
        assert greatest == np.float32(min(limit, 0.01))


def test_the_team_of_a_step_is_that_in_force(monkeypatch):
    monkeypatch.setattr(executor, "WORK_TO_SHARE", 0)
    model, optimizer = net("reference"), fn.Adam()
    reference, teams = registry.get("reference"), []
    run = reference.run

    def spy(program, context):
        teams.append(int(context["threads"][0]))
        run(program, context)

    monkeypatch.setattr(reference, "run", spy)
    optimizer.step(model)
    for n in (2, 3, 1):
        with fn.threads(n):
            optimizer.step(model)
    assert teams[1:] == [2, 3, 1]
