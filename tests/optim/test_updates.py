"""Optimizers: their update rules against plain arithmetic, and how they serve models."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError

dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def model_of(backend, dtype="float64", width=5):
    """A model whose only parameter is one vector; `step_with` gives it any gradient."""
    return fn.Sequential(fn.Linear(width, 1, bias=False), dtype=dtype, backend=backend, seed=2)


def step_with(model, optimizer, gradient):
    model.zero_grad()
    model.forward(np.asarray(gradient)[None])
    model.backward([[1.0]])  # so that dw is the input itself
    optimizer.step(model)
    return model.parameters()[0][0].copy()


def by_hand(optimizer, w, gradients):
    """The recurrences of the classes' docstrings on single numbers; yields w after each step."""
    o, v, m = optimizer, None, 0.0
    for t, g in enumerate(gradients, 1):
        if isinstance(o, fn.SGD):
            d = g + o.weight_decay * w
            if o.momentum:
                v = d if v is None else o.momentum * v + (1 - o.dampening) * d
                d = d + o.momentum * v if o.nesterov else v
            w = w - o.lr * d
        else:
            (b1, b2), decoupled = o.betas, isinstance(o, fn.AdamW)
            d = g if decoupled else g + o.weight_decay * w
            m, v = b1 * m + (1 - b1) * d, b2 * (v or 0.0) + (1 - b2) * d * d
            if decoupled:
                w = w * (1 - o.lr * o.weight_decay)
            w = w - o.lr * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + o.eps)
        yield w


OPTIMIZERS = [
    fn.SGD(lr=0.1),
    fn.SGD(lr=0.1, weight_decay=0.3),
    fn.SGD(lr=0.1, momentum=0.9),
    fn.SGD(lr=0.1, momentum=0.9, dampening=0.4, weight_decay=0.3),
    fn.SGD(lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.3),
    fn.Adam(lr=0.1),
    fn.Adam(lr=0.1, betas=(0.5, 0.6), eps=0.1, weight_decay=0.3),
    fn.Adam(lr=0.1, betas=(0.0, 0.0)),
    fn.AdamW(lr=0.1),
    fn.AdamW(lr=0.1, betas=(0.5, 0.6), eps=0.1, weight_decay=0.3),
]
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
GRADIENTS = np.random.default_rng(3).normal(size=(6, 5))


@dtypes
@every_optimizer
def test_steps_are_those_of_plain_arithmetic(backend, dtype, optimizer):
    optimizer, model = copy.deepcopy(optimizer), model_of(backend, dtype)
    start = model.parameters()[0][0].copy()
    got = [step_with(model, optimizer, g) for g in GRADIENTS.astype(dtype)]
    columns = [
        by_hand(optimizer, float(w), g.tolist()) for w, g in zip(start, GRADIENTS.T, strict=True)
    ]
    expected = np.array([list(column) for column in columns]).T
    tol = {"float32": 2e-6, "float64": 1e-14}[dtype]
    np.testing.assert_allclose(got, expected, rtol=0, atol=tol)


@every_optimizer
def test_a_chunk_of_hyper_is_the_rows_of_its_steps(optimizer):
    chunk = optimizer.hyper(3, 4)
    assert chunk.shape == (4, 1, len(optimizer.op.hyper))
    np.testing.assert_array_equal(chunk, [optimizer.hyper(t, 1)[0] for t in range(3, 7)])


def test_bias_corrections_stay_exact_after_many_steps():
    row = dict(zip(fn.Adam().op.hyper, fn.Adam(lr=1.0).hyper(10**6 - 1, 1)[0, 0], strict=True))
    assert row["step_size"] == 1.0
    early = dict(zip(fn.Adam().op.hyper, fn.Adam(lr=1.0).hyper(99, 1)[0, 0], strict=True))
    assert early["step_size"] == pytest.approx(1 / (1 - 0.9**100), rel=1e-14)
    assert early["root_scale"] == pytest.approx(1 / math.sqrt(1 - 0.999**100), rel=1e-14)


def test_an_assigned_hyper_parameter_acts_at_the_next_step(backend):
    model, optimizer = model_of(backend), fn.SGD(lr=0.0)
    start = model.parameters()[0][0].copy()
    np.testing.assert_array_equal(step_with(model, optimizer, np.ones(5)), start)
    optimizer.lr = 0.5
    np.testing.assert_array_equal(step_with(model, optimizer, np.ones(5)), start - 0.5)


def test_each_model_has_its_own_state(backend):
    optimizer, alone = fn.Adam(lr=0.1), fn.Adam(lr=0.1)
    first, second, third = model_of(backend), model_of(backend), model_of(backend)
    for gradient in GRADIENTS:
        step_with(first, optimizer, -gradient)
        got = step_with(second, optimizer, gradient)
        np.testing.assert_array_equal(got, step_with(third, alone, gradient))


def test_reset_forgets_the_state(backend):
    model, optimizer = model_of(backend), fn.Adam(lr=0.1)
    start = {name: value.copy() for name, value in model.state_dict().items()}
    first = [step_with(model, optimizer, g) for g in GRADIENTS]
    optimizer.reset(model)
    model.load_state_dict(start)
    np.testing.assert_array_equal([step_with(model, optimizer, g) for g in GRADIENTS], first)


def test_the_padding_between_parameters_stays_zero(backend):
    """AdamW's shrinking and Adam's 0/(0 + eps) must leave it so."""
    layers = fn.Linear(3, 2), fn.BatchNorm1d(2), fn.Linear(2, 1)
    model = fn.Sequential(*layers, backend=backend, seed=0)
    optimizer = fn.AdamW(lr=0.1)
    for _ in range(3):
        model.value_and_grad(fn.MSELoss(), np.eye(3), np.ones((3, 1)))
        optimizer.step(model)
    segment = model.bind().flat("params")
    assert np.count_nonzero(segment) == sum(p.size for p in model.parameters())
    assert segment.size > 4 * np.count_nonzero(segment)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fn.SGD(lr=-1.0), "lr is -1.0"),
        (lambda: fn.SGD(lr=math.nan), "lr is nan"),
        (lambda: fn.SGD(momentum=-0.1), "momentum is -0.1"),
        (lambda: fn.SGD(weight_decay=math.inf), "weight_decay is inf"),
        (lambda: fn.SGD(dampening="much"), "dampening is 'much'"),
        (lambda: fn.SGD(nesterov=True), "nesterov=True with momentum=0.0"),
        (lambda: fn.SGD(nesterov=True, momentum=0.9, dampening=0.1), "dampening=0.1"),
        (lambda: fn.Adam(betas=(0.9, 1.0)), r"betas\[1\] is 1.0"),
        (lambda: fn.Adam(betas=(-0.1, 0.9)), r"betas\[0\] is -0.1"),
        (lambda: fn.Adam(betas=0.9), "betas is 0.9"),
        (lambda: fn.AdamW(eps=-1e-8), "eps is -1e-08"),
        (lambda: fn.Adam(eps=0.0), "eps is 0.0"),
    ],
)
def test_bad_hyper_parameters_are_refused(make, message):
    with pytest.raises(HyperparameterError, match=message):
        make()


def test_a_bad_assignment_changes_nothing():
    optimizer = fn.AdamW()
    with pytest.raises(HyperparameterError, match="lr is nan"):
        optimizer.lr = math.nan
    assert optimizer.lr == 1e-3


@pytest.mark.parametrize("first", [0, 1, 310, 330, 37_390, 10**6])  # a correction becomes 1
def test_numbers_of_a_step_do_not_depend_on_how_many_are_asked_for(first):
    optimizer = fn.Adam(betas=(0.9, 0.999))
    together = optimizer.hyper(first, 50)
    for i in range(50):
        np.testing.assert_array_equal(optimizer.hyper(first + i, 1)[0], together[i])


def test_an_assignment_that_does_not_fit_the_others_changes_nothing():
    optimizer = fn.SGD(0.1, momentum=0.9, nesterov=True)
    for name, value in (("momentum", 0.0), ("dampening", 0.5)):
        before = repr(optimizer)
        with pytest.raises(fn.errors.HyperparameterError, match="nesterov=True with"):
            setattr(optimizer, name, value)
        assert repr(optimizer) == before


def test_a_hyper_parameter_that_does_not_exist_is_refused():
    with pytest.raises(AttributeError, match="SGD has no hyper-parameter 'learning_rate'"):
        fn.SGD().learning_rate = 0.1
