"""Schedules: their formulas, written out step by step, and what all of them keep."""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
import pickle

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError
from fastnet.formulas import portable

S = fn.schedules

T = np.arange(400)


def check(schedule, formula, steps=T, rtol=1e-13):
    np.testing.assert_allclose(
        schedule(steps), [formula(int(t)) for t in steps], rtol=rtol, atol=1e-17
    )


# Formulas of papers and textbooks, on single numbers.


def test_inverse_time():
    check(S.InverseTimeLR(0.5, 0.1), lambda t: 0.5 / (1 + 0.1 * t))
    assert S.InverseTimeLR(0.5, 0.1)(10) == 0.25
    check(S.InverseTimeLR(2.0), lambda t: 2 / (t + 1))


@pytest.mark.parametrize(("width", "warmup"), [(512, 100), (64, 1), (512, 4000)])
def test_inverse_square_root_is_equation_3_of_attention_is_all_you_need(width, warmup):
    def paper(t):
        step_num = t + 1
        return width**-0.5 * min(step_num**-0.5, step_num * warmup**-1.5)

    check(S.InverseSqrtLR((width * warmup) ** -0.5, warmup), paper)


def test_inverse_square_root_without_warm_up():
    check(S.InverseSqrtLR(0.1), lambda t: 0.1 / math.sqrt(t + 1))


@pytest.mark.parametrize(("first", "multiple"), [(1, 2), (10, 1), (10, 2), (7, 3)])
def test_warm_restarts_are_equation_5_of_sgdr(first, multiple):
    rates, period, since = [], first, 0
    for _ in T:
        rates.append(0.01 + 0.5 * (0.2 - 0.01) * (1 + math.cos(math.pi * since / period)))
        since += 1
        if since == period:
            since, period = 0, period * multiple
    got = S.CosineAnnealingWarmRestarts(0.2, first, multiple, 0.01)(T)
    np.testing.assert_allclose(got, rates, rtol=1e-13)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_cycles_are_those_of_the_paper(mode):
    """The formulas of section 3.2 of cyclical learning rates, with stepsize 20."""

    def paper(t):
        cycle = math.floor(1 + t / 40)
        x = abs(t / 20 - 2 * cycle + 1)
        scale = {"triangular": 1, "triangular2": 1 / 2 ** (cycle - 1), "exp_range": 0.99**t}[mode]
        return 0.1 + (0.6 - 0.1) * max(0, 1 - x) * scale

    check(S.CyclicLR(0.1, 0.6, 20, mode=mode, gamma=0.99), paper)


def test_a_cycle_of_momentum_is_lowest_where_the_rate_is_highest():
    s = S.CyclicLR(0.1, 0.6, 10, 30, base_momentum=0.5, max_momentum=0.8)
    rate, momentum = s(T), s.momentum(T)
    np.testing.assert_allclose(momentum, 0.8 - 0.3 * (rate - 0.1) / 0.5, rtol=1e-13)
    assert (rate.argmax(), momentum.argmin()) == (10, 10)
    one = S.OneCycleLR(1.0, 100, anneal_strategy="linear")
    assert one(T).argmax() == one.momentum(T).argmin() == 29
    assert (one(29), one.momentum(29), one.momentum(0), one.momentum(99)) == (1, 0.85, 0.95, 0.95)


def test_one_cycle_stays_where_it_ends():
    for phases in (False, True):
        s = S.OneCycleLR(0.5, 50, three_phase=phases)
        assert (s(0), s(14)) == (0.5 / 25, 0.5)
        assert (s(np.arange(49, 200)) == 0.5 / 25 / 1e4).all()
        assert (s.momentum(np.arange(49, 200)) == 0.95).all()
    assert S.OneCycleLR(0.5, 10, pct_start=0.1)(0) == 0.5  # a first phase of no length


def test_cycles_of_a_logarithm_are_those_of_the_paper():
    """The formula of section 3 of "Better by default", for 4 cycles, and where they begin and end."""
    for cycles, total in ((4, 150), (1, 40), (6, 1000)):
        s = S.CosLogLR(0.3, total, cycles)
        place = np.log2(1 + (2**cycles - 1) * T / total)
        want = np.where(total > T, 0.15 * (1 - np.cos(2 * np.pi * place)), 0)
        np.testing.assert_allclose(s(T), want, rtol=1e-12, atol=1e-15)
    s = S.CosLogLR(0.3, 15)  # cycles of 1, 2, 4 and 8 steps
    np.testing.assert_array_equal(s(np.array([0, 1, 3, 7, 15, 16, 99])), 0)
    s = S.CosLogLR(0.3, 150)
    assert s(T).max() <= 0.3 and s(T).max() == pytest.approx(0.3, rel=1e-3)


def test_a_flat_part_and_a_cosine():
    s = S.FlatCosLR(0.4, 100)
    np.testing.assert_array_equal(s(T[:51]), 0.4)
    place = (T[50:100] / 100 - 0.5) / 0.5
    np.testing.assert_allclose(s(T[50:100]), 0.2 * (1 + np.cos(np.pi * place)), rtol=1e-12)
    assert s(75) == pytest.approx(0.2, rel=1e-15) and (s(np.arange(100, 300)) == 0).all()
    assert S.FlatCosLR(0.4, 7, 0)(0) == 0.4 > S.FlatCosLR(0.4, 7, 0)(1)


def test_one_cycle_is_counted_in_steps_or_in_epochs():
    assert S.OneCycleLR(0.5, epochs=3, steps_per_epoch=7) == S.OneCycleLR(0.5, 21)
    for given in ({}, {"epochs": 3}, {"total_steps": 3, "epochs": 1}, {"steps_per_epoch": 2}):
        refused(lambda g=given: S.OneCycleLR(0.5, **g), HyperparameterError, "^total_steps is ")


def test_what_pytorch_does_otherwise():
    assert S.ConstantLR(0.1, total_iters=0)(0) == 0.1
    np.testing.assert_array_equal(S.ConstantLR(0.1, 0.0, 2)(T[:4]), [0, 0, 0.1, 0.1])


def test_warm_up_rises_by_equal_parts_to_the_schedule():
    s = S.WarmupLR(S.LinearLR(0.8, 1.0, 0.5, 4), 3)
    np.testing.assert_allclose(s(T[:9]), [0.2, 0.4, 0.6, 0.8, 0.7, 0.6, 0.5, 0.4, 0.4], rtol=1e-15)
    np.testing.assert_allclose(S.WarmupLR(1.0, 4, 0.2)(T[:6]), [0.2, 0.4, 0.6, 0.8, 1, 1])
    assert S.WarmupLR(0.5, 4, 0)(0) == 0.0


def test_a_sequence_begins_each_part_anew():
    s = S.SequentialLR([S.ExponentialLR(1.0, 0.5), 0.7, S.StepLR(9.0, 1)], [2, 4])
    np.testing.assert_allclose(s(T[:7]), [1, 0.5, 0.7, 0.7, 9, 0.9, 0.09])
    assert S.SequentialLR([S.StepLR(1.0, 1), 0.5], [0])(0) == 0.5  # a part of no length


def test_epochs():
    per_step, per_epoch = S.StepLR(1.0, 2), S.StepLR(1.0, 2).per_epoch(5)
    np.testing.assert_array_equal(per_epoch(T), per_step(T // 5))
    assert per_epoch == S.PerEpoch(per_step, 5)


def test_products():
    a, b = S.ExponentialLR(2.0, 0.9), S.StepLR(1.0, 7, 0.5)
    for made, want in [
        (a * b, a(T) * b(T)),
        (3 * a, 3 * a(T)),
        (a * 0.5 * (b * 4), a(T) * b(T) * 2),
        (0 * a, 0 * a(T)),
        (np.float64(0.5) * a, 0.5 * a(T)),
        (a * np.float32(0.5), 0.5 * a(T)),
    ]:
        assert isinstance(made, S.ProductLR)
        np.testing.assert_allclose(made(T), want, rtol=1e-15)
    assert 0.5 * (0.5 * a) == 0.25 * a and repr(0.5 * (0.5 * a)) == f"0.25 * {a!r}"
    assert (a * b).schedules == (a, b) and repr(a * b) == f"{a!r} * {b!r}"
    for bad in ("x", None, -1, math.nan, [1], np.ones(2)):
        refused(lambda bad=bad: a * bad, HyperparameterError, "^factor is ")
        refused(lambda bad=bad: bad * a, HyperparameterError, "^factor is ")


def test_a_function_of_ones_own():
    steps = []
    s = S.LambdaLR(0.5, lambda t: steps.append(t) or 1 / (t + 1))
    np.testing.assert_allclose(s(T[:3]), [0.5, 0.25, 0.5 / 3])
    assert steps == [0, 1, 2] and all(type(t) is int for t in steps)
    refused(
        lambda: S.LambdaLR(0.5, lambda t: "x")(7), HyperparameterError, r"^lr_lambda\(7\) is 'x'"
    )
    refused(lambda: S.LambdaLR(0.5, 3), HyperparameterError, "^lr_lambda is 3; expected a function")


# What holds for all.

EVERY = [
    S.ConstantLR(0.1),
    S.StepLR(0.1, 30),
    S.MultiStepLR(0.1, [30, 80], 0.3),
    S.ExponentialLR(0.1, 0.999),
    S.InverseTimeLR(0.1, 0.01),
    S.InverseSqrtLR(0.1, 100),
    S.PolynomialLR(0.1, 300, 0.9),
    S.LinearLR(0.1, total_iters=100),
    S.CosineAnnealingLR(0.1, 300, 1e-3),
    S.CosineAnnealingWarmRestarts(0.1, 10, 2),
    S.CyclicLR(0.01, 0.1, 20, 50, "exp_range", 0.999),
    S.CosLogLR(0.1, 300),
    S.FlatCosLR(0.1, 300, 0.3),
    S.OneCycleLR(0.1, 300),
    S.OneCycleLR(0.1, 300, anneal_strategy="linear", three_phase=True).momentum,
    S.SequentialLR([S.WarmupLR(0.1, 20), S.ExponentialLR(0.1, 0.99)], (50,)),
    S.WarmupLR(S.CosineAnnealingLR(0.1, 300), 50, 0.1),
    S.StepLR(0.1, 3).per_epoch(25),
    0.5 * S.StepLR(0.1, 3) * S.ExponentialLR(1.0, 0.99),
    S.LambdaLR(0.1, math.sqrt),
]
every = pytest.mark.parametrize("schedule", EVERY, ids=lambda s: type(s).__name__)


def test_every_schedule_is_among_them():
    public = {getattr(S, name) for name in S.__all__} - {S.Schedule}
    assert {type(s) for s in EVERY} == public


@every
def test_a_step_has_the_same_number_however_it_is_asked_for(schedule):
    together = schedule(T)
    assert together.dtype == np.float64 and together.shape == T.shape
    assert (together >= 0).all() and np.isfinite(together).all()
    alone = [schedule(int(t)) for t in T]
    assert all(type(value) is float for value in alone)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(schedule(T[::-1].reshape(8, 50)), together[::-1].reshape(8, 50))
    np.testing.assert_array_equal(schedule(T[[7, 300, 7]].astype(np.uint16)), together[[7, 300, 7]])
    assert schedule(np.arange(0)).shape == (0,)
    assert schedule(np.int8(3)) == together[3]


@every
def test_many_steps_are_computed_in_blocks(schedule):
    t = np.arange(10_000)
    parts = [schedule(t[begin : begin + 999]) for begin in range(0, len(t), 999)]
    np.testing.assert_array_equal(schedule(t), np.concatenate(parts))


@every
@pytest.mark.parametrize(
    "step", [-1, [3, -1], 1.0, [0.5], True, None, "1", 2**53 + 1, 2**70, [True], math.nan]
)
def test_what_is_no_step_is_refused(schedule, step):
    refused(lambda: schedule(step), HyperparameterError, "^step is .*; expected integers in ")


@every
def test_a_far_step_has_a_number(schedule):
    far = schedule(np.array([10**9, 2**53]))
    assert np.isfinite(far).all() and (far >= 0).all()


@every
def test_it_is_a_value(schedule):
    for twin in (
        copy.copy(schedule),
        copy.deepcopy(schedule),
        pickle.loads(pickle.dumps(schedule)),
    ):
        assert twin == schedule and hash(twin) == hash(schedule)
        np.testing.assert_array_equal(twin(T), schedule(T))
    assert schedule != S.StepLR(0.1, 31) and schedule != 0.1
    if not isinstance(schedule, S.LambdaLR):
        assert eval(repr(schedule), vars(S)) == schedule
    name = next(iter(vars(schedule)))
    before = repr(schedule)
    for change in (lambda: setattr(schedule, name, 0.2), lambda: delattr(schedule, name)):
        with pytest.raises(AttributeError, match=f"^{type(schedule).__name__} cannot be changed"):
            change()
    with pytest.raises(AttributeError):
        schedule.other = 1
    assert repr(schedule) == before


@every
def test_an_optimizer_takes_it(schedule):
    rates = fn.SGD(schedule, momentum=0.9).hyper(5, 100)[:, 0, 0]
    np.testing.assert_array_equal(rates, schedule(np.arange(5, 105)))


def test_equal_numbers_of_other_types_are_equal_schedules():
    assert S.StepLR(1, np.int8(3), np.float32(0.5)) == S.StepLR(1.0, 3, 0.5)
    assert S.MultiStepLR(1, np.array([1, 2])) == S.MultiStepLR(1, (1, 2))
    assert S.StepLR(1, 3) != S.StepLR(1, 4)


def test_docstrings_give_the_arguments_and_a_formula():
    for name in S.__all__:
        kind = getattr(S, name)
        for argument in inspect.signature(kind).parameters:
            if argument != "arguments":
                assert argument in kind.__doc__, f"{name}: {argument}"


def test_numbers_are_the_same_on_every_machine():
    """Bits, of all but LambdaLR: nothing of them may come from NumPy's exp, cos or pow."""
    rates = np.concatenate([s(np.arange(2000)) for s in EVERY if not isinstance(s, S.LambdaLR)])
    assert hashlib.sha256(rates.astype("<f8").tobytes()).hexdigest()[:16] == "dafe9d3a2a8f7a74"


# The elementary functions that they are made of.


def test_exp():
    x = np.random.default_rng(0).uniform(-700, 700, 5000)
    np.testing.assert_allclose(portable.exp(x), np.exp(x), rtol=1e-15)
    assert portable.exp(np.array([0.0, -1e9])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("exponent", [0, 0.3, 0.5, 1, 1.5, 2, 7, 63.5, 100.3, 1e6])
def test_power(exponent):
    x = np.random.default_rng(0).uniform(0, 1, 5000)
    np.testing.assert_allclose(portable.power(x, exponent), x**exponent, rtol=1e-12, atol=1e-300)
    assert portable.power(np.array([0.0, 1.0]), exponent).tolist() == [0.0**exponent, 1.0]


def test_log2():
    x = np.exp(np.random.default_rng(0).uniform(-30, 30, 5000))
    np.testing.assert_allclose(portable.log2(x), np.log2(x), rtol=1e-15, atol=1e-15)
    exponents = np.arange(-40, 41)
    np.testing.assert_array_equal(portable.log2(np.ldexp(1.0, exponents)), exponents)


def test_cosine_ramp():
    x = np.random.default_rng(0).uniform(0, 0.5, 5000)
    np.testing.assert_allclose(portable.cosine_ramp(x), np.sin(np.pi * x / 2) ** 2, rtol=2e-15)
    assert portable.cosine_ramp(np.array([0.0, 0.5])).tolist() == [0, pytest.approx(0.5)]


def test_integer_power_of_numbers_and_arrays():
    t = np.arange(2000)
    np.testing.assert_allclose(portable.integer_power(0.999, t), 0.999**t, rtol=1e-12)
    bases = np.linspace(0, 1.1, 2000)
    np.testing.assert_allclose(portable.integer_power(bases, t), bases**t, rtol=1e-12)
    assert portable.integer_power(0.0, np.array([0, 1])).tolist() == [1, 0]
