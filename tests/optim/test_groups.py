"""Parameter groups: who is in which, with which numbers, in one pass a run of the flat vector."""

from __future__ import annotations

import copy
import pickle
from typing import ClassVar

import numpy as np
import pytest
from prescribed import draw, set_gradients
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError
from fastnet.optim import Optimizer
from fastnet.optim.sgd import sgd


def net(backend="auto", dtype="float64"):
    layers = fn.Linear(3, 5), fn.BatchNorm1d(5), fn.Sequential(fn.Linear(5, 4), fn.Tanh())
    return fn.Sequential(*layers, fn.Linear(4, 2), dtype=dtype, backend=backend, seed=1)


NAMES = ["0.weight", "0.bias", "1.weight", "1.bias", "2.0.weight", "2.0.bias", "3.weight", "3.bias"]


def moved(model, optimizer, steps=3):
    """How far each parameter moves."""
    before = copy.deepcopy(model.state_dict())
    for gradients in draw(model, steps):
        set_gradients(model, gradients)
        optimizer.step(model)
    return {name: model.state_dict()[name] - before[name] for name in model.named_parameters()}


@pytest.mark.parametrize(
    ("params", "members"),
    [
        ("0.weight", NAMES[:1]),
        ("*.bias", NAMES[1::2]),
        (["?.weight", "3.*"], ["0.weight", "1.weight", "3.weight", "3.bias"]),
        (("2.*",), NAMES[4:6]),
        ("*", NAMES),
    ],
    ids=str,
)
def test_a_group_has_the_parameters_that_its_patterns_fit(backend, params, members):
    got = moved(net(backend), fn.SGD(0.1, groups=[{"params": params, "lr": 0.0}]))
    assert [name for name in NAMES if not got[name].any()] == members


@pytest.mark.parametrize(
    "optimizer", [fn.SGD(0.1), fn.SGD(0.1, 0.9), fn.Adam(0.1), fn.AdamW(0.1)], ids=repr
)
def test_a_group_moves_as_all_would_with_its_numbers(backend, optimizer):
    given = {"lr": 0.02, "weight_decay": 0.3}
    groups = [{"params": ["0.bias", "2.*"], **given}]
    got = moved(net(backend), type(optimizer)(**{**optimizer._argument_values(), "groups": groups}))
    plain = moved(net(backend), copy.deepcopy(optimizer))
    other = moved(net(backend), type(optimizer)(**{**optimizer._argument_values(), **given}))
    for name in NAMES:
        want = other if name == "0.bias" or name.startswith("2.") else plain
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


def test_groups_may_differ_in_their_rule(backend):
    got = moved(net(backend), fn.SGD(0.1, 0.9, groups=[{"params": "1.*", "momentum": 0.0}]))
    with_momentum = moved(net(backend), fn.SGD(0.1, 0.9))
    without = moved(net(backend), fn.SGD(0.1))
    for name in NAMES:
        want = without if name.startswith("1.") else with_momentum
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_of_rate_0_leaves_the_lengths_of_units(backend, dtype):
    model = net(backend, dtype)
    groups = [{"params": "0.*", "lr": 0.0}, {"params": "3.*", "lr": fn.schedules.StepLR(0.1, 1, 0)}]
    optimizer = fn.SGD(0.1, max_norm=0.1, groups=groups)
    first = moved(model, optimizer, 1)
    assert not first["0.weight"].any() and first["3.weight"].any()
    lengths = np.linalg.norm(model.state_dict()["2.0.weight"], axis=1)
    np.testing.assert_allclose(lengths, 0.1, rtol=1e-6)
    with model.edit() as p:
        p["3.weight"][...] *= 3
    later = moved(model, optimizer, 1)
    assert not later["0.weight"].any() and not later["3.weight"].any()


def test_biases_and_norms_can_go_without_decay(backend):
    got = moved(net(backend), fn.SGD(0.1, weight_decay=0.3, decay_biases_and_norms=False))
    plain = moved(net(backend), fn.SGD(0.1))
    decayed = moved(net(backend), fn.SGD(0.1, weight_decay=0.3))
    for name in NAMES:
        want = decayed if name in ("0.weight", "2.0.weight", "3.weight") else plain
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


def test_one_instruction_for_each_run():
    model = net()
    groups = [{"params": ["0.*", "1.weight", "3.*"], "lr": 0.5}]
    state = model.optimizer_state(fn.Adam(groups=groups))
    assert state.rule.program["group"].tolist() == [0, 1, 0]
    sizes = state.rule.program["size"][:, 0]
    assert sizes.sum() == model.bind().flat("params").size
    assert len(model.optimizer_state(fn.Adam()).rule.program) == 1


def test_groups_follow_the_optimizers_own_numbers(backend):
    model = net(backend)
    optimizer = fn.SGD(0.1, groups=[{"params": "0.*", "weight_decay": 0.2}])
    moved(model, optimizer)
    optimizer.lr = 0.0
    assert not any(change.any() for change in moved(model, optimizer).values())
    optimizer.groups = [{"params": "3.bias", "lr": 0.3}]
    got = moved(model, optimizer)
    assert [name for name in NAMES if got[name].any()] == ["3.bias"]
    optimizer.groups[0]["lr"] = 0.0  # as one does in PyTorch
    assert not any(change.any() for change in moved(model, optimizer).values())


def test_a_new_number_keeps_the_state(backend):
    """Where a group's numbers change but not its rule."""
    model = net(backend)
    optimizer = fn.SGD(0.1, 0.9, groups=[{"params": "0.*", "lr": 0.2}])
    moved(model, optimizer)
    before = optimizer.state(model)
    optimizer.groups = [{"params": "0.*", "lr": 0.3}]
    moved(model, optimizer, 1)
    after = optimizer.state(model)
    assert after.rule is before.rule and after.steps == 4


def test_a_fit_is_the_loop_by_hand(backend):
    x, y = np.random.default_rng(0).normal(size=(20, 3)), np.zeros((20, 2))
    groups = [{"params": "2.*", "lr": 0.01}, {"params": "[!2].bias", "weight_decay": 0.0}]
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "groups": groups}
    one, two = net(backend), net(backend)
    fn.Trainer(one, fn.MSELoss(), fn.SGD(**options), seed=3).fit(x, y, 2, 5, verbose=0)
    optimizer = fn.SGD(**options)
    for epoch in range(2):
        for xb, yb in fn.batches(x, y, batch_size=5, seed=3, epoch=epoch):
            two.value_and_grad(fn.MSELoss(), xb, yb)
            optimizer.step(two)
    for name in NAMES:
        np.testing.assert_array_equal(one.state_dict()[name], two.state_dict()[name])


@pytest.mark.parametrize("way", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_have_the_groups(way):
    optimizer = fn.SGD(0.1, groups=[{"params": "0.*", "lr": 0.2}], decay_biases_and_norms=False)
    assert repr(way(optimizer)) == repr(optimizer)
    assert "groups=({'params': ('0.*',), 'lr': 0.2},)" in repr(optimizer)


BAD = {
    "no sequence": (3, "^groups is 3; expected a sequence of groups"),
    "one group alone": ({"params": "0.*"}, "^groups is .*; expected a sequence of groups"),
    "no mapping": (["0.*"], r"^groups\[0\] is '0.\*'; expected a sequence of groups"),
    "no params": ([{"lr": 0.1}], r"^groups\[0\] is .*; expected a sequence"),
    "empty params": ([{"params": []}], r"^groups\[0\] is .*; expected a sequence"),
    "params no strings": ([{"params": [0]}], r"^groups\[0\] is .*; expected a sequence"),
    "unknown": (
        [{"params": "0.*", "rate": 1}],
        r"^groups\[0\] has 'rate'; expected 'params' and any of lr, momentum, dampening",
    ),
    "nested": ([{"params": "0.*", "groups": []}], r"^groups\[0\] has 'groups'; expected"),
    "bad number": (
        [{"params": "0.*"}, {"params": "1.*", "lr": -1}],
        r"^groups\[1\]: lr is -1; expected a finite number in \[0, inf\)",
    ),
    "bad together": (
        [{"params": "0.*", "nesterov": True, "momentum": 0.0}],
        r"^groups\[0\]: nesterov=True with momentum=0.0",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_groups_that_make_no_sense_are_refused(case):
    groups, message = BAD[case]
    refused(lambda: fn.SGD(groups=groups), HyperparameterError, message)
    optimizer = fn.SGD(groups=[{"params": "0.*", "lr": 0.5}])
    before = repr(optimizer)
    refused(lambda: setattr(optimizer, "groups", groups), HyperparameterError, message)
    assert repr(optimizer) == before


@pytest.mark.parametrize("name", ["4.weight", "0.weights", "*.gamma", "0"])
def test_a_name_that_fits_no_parameter_is_refused(backend, name):
    optimizer = fn.SGD(groups=[{"params": ["0.weight", name], "lr": 0.5}])
    message = rf"^groups\[0\]: '{name}' fits no parameter of the model; it has 0.weight".replace(
        "*", r"\*"
    )
    model = net(backend)
    before = copy.deepcopy(model.state_dict())
    refused(lambda: optimizer.step(model), HyperparameterError, message)
    trainer = fn.Trainer(model, fn.MSELoss(), optimizer)
    refused(lambda: trainer.fit(np.ones((4, 3)), np.ones((4, 2))), HyperparameterError, message)
    assert not trainer.step and not len(trainer.history.records)
    for key, value in before.items():
        np.testing.assert_array_equal(model.state_dict()[key], value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lrr", 1.0, r"groups\[0\] has 'lrr'; expected 'params' and any of lr"),
        ("lr", -1, r"groups\[0\]: lr is -1"),
        ("params", 3, r"groups\[0\] is .*'params': 3"),
        ("params", "9.*", r"groups\[0\]: '9\.\*' fits no parameter"),
    ],
)
def test_a_group_that_was_changed_in_place_is_checked_at_the_next_step(name, value, message):
    model, optimizer = net(), fn.SGD(0.1, groups=[{"params": "0.*", "lr": 0.2}])
    moved(model, optimizer)
    before, kept = model.state_dict(), dict(optimizer.groups[0])
    optimizer.groups[0][name] = value
    refused(lambda: optimizer.step(model), HyperparameterError, message)
    assert all((before[n] == v).all() for n, v in model.state_dict().items())
    optimizer.groups[0].clear()
    optimizer.groups[0].update(kept, params="0.weight", lr=0.0)
    steps = moved(model, optimizer)
    assert not steps["0.weight"].any() and steps["0.bias"].any()


class Plain(Optimizer):
    """An optimizer that has no weight decay."""

    _ranges: ClassVar = {"lr": {"low": 0.0}}

    def __init__(self, lr=0.1, **shared):
        self.lr = lr
        super().__init__(**shared)

    @property
    def op(self):
        return sgd

    def _columns(self, at, t):
        return {}


@pytest.mark.parametrize("lr", [0.1, fn.schedules.StepLR(0.1, 2)])
@pytest.mark.parametrize("decoupled", [False, True])
def test_an_optimizer_needs_no_weight_decay(lr, decoupled):
    shared = {"decay_biases_and_norms": False, "decoupled_weight_decay": decoupled}
    ours, theirs = (moved(net(), kind(lr, **shared)) for kind in (Plain, fn.SGD))
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, name)
