"""Bad arguments of schedules: each is named, with what came and what was expected."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
from refusals import NOT_FINITE, NOT_INTEGERS, NOT_NUMBERS, refused

import fastnet as fn
from fastnet.errors import HyperparameterError, shown

S = fn.schedules
STEP = S.StepLR(1, 3)

# Good arguments; then for each argument: an interval of real numbers, or the least number of steps.
RATE, UNIT, OPEN = "[0, inf)", "[0, 1]", "(0, inf)"
KINDS = {
    S.ConstantLR: ({"lr": 1}, {"lr": RATE, "factor": UNIT, "total_iters": 0}),
    S.StepLR: ({"lr": 1, "step_size": 3}, {"lr": RATE, "step_size": 1, "gamma": RATE}),
    S.MultiStepLR: ({"lr": 1, "milestones": [3]}, {"lr": RATE, "gamma": RATE}),
    S.ExponentialLR: ({"lr": 1, "gamma": 1}, {"lr": RATE, "gamma": RATE}),
    S.InverseTimeLR: ({"lr": 1}, {"lr": RATE, "decay": RATE}),
    S.InverseSqrtLR: ({"lr": 1}, {"lr": RATE, "warmup_steps": 1}),
    S.PolynomialLR: ({"lr": 1}, {"lr": RATE, "total_iters": 1, "power": RATE}),
    S.LinearLR: (
        {"lr": 1},
        {"lr": RATE, "start_factor": "(0, 1]", "end_factor": UNIT, "total_iters": 1},
    ),
    S.LambdaLR: ({"lr": 1, "lr_lambda": float}, {"lr": RATE}),
    S.CosineAnnealingLR: ({"lr": 1, "T_max": 3}, {"lr": RATE, "T_max": 1, "eta_min": RATE}),
    S.CosineAnnealingWarmRestarts: (
        {"lr": 1, "T_0": 3},
        {"lr": RATE, "T_0": 1, "T_mult": 1, "eta_min": RATE},
    ),
    S.CyclicLR: (
        {"base_lr": 1, "max_lr": 2},
        {
            **dict.fromkeys(("base_lr", "max_lr", "gamma", "base_momentum", "max_momentum"), RATE),
            **dict.fromkeys(("step_size_up", "step_size_down"), 1),
        },
    ),
    S.OneCycleLR: (
        {"max_lr": 1, "total_steps": 9},
        {
            **dict.fromkeys(("max_lr", "base_momentum", "max_momentum"), RATE),
            **dict.fromkeys(("div_factor", "final_div_factor"), OPEN),
            "pct_start": UNIT,
            "total_steps": 1,
        },
    ),
    S.OneCycleMomentum: (
        {"total_steps": 9},
        {"base_momentum": RATE, "max_momentum": RATE, "pct_start": UNIT, "total_steps": 1},
    ),
    S.CosLogLR: (
        {"lr": 1, "total_steps": 9},
        {"lr": RATE, "total_steps": 1, "cycles": (1, 32)},
    ),
    S.FlatCosLR: (
        {"lr": 1, "total_steps": 9},
        {"lr": RATE, "total_steps": 1, "flat": "[0, 1)"},
    ),
    S.PerEpoch: ({"schedule": STEP, "steps_per_epoch": 3}, {"steps_per_epoch": 1}),
    S.WarmupLR: (
        {"schedule": 1, "warmup_steps": 3},
        {"schedule": RATE, "warmup_steps": 1, "start_factor": UNIT},
    ),
}
INTERVALS = {  # numbers outside and inside
    RATE: ([-1e-9, -3], [0, 1e-9, np.float32(3)]),
    UNIT: ([-1e-9, 1.001], [0, 0.5, 1]),
    "(0, 1]": ([0, -1, 1.001], [1e-9, 1]),
    "[0, 1)": ([-1e-9, 1, 2], [0, 0.5, 0.999]),
    OPEN: ([0, -1], [1e-9, 30]),
}
ARGUMENTS = [
    pytest.param(kind, {**good}, name, allowed, id=f"{kind.__name__}-{name}")
    for kind, (good, ranges) in KINDS.items()
    for name, allowed in ranges.items()
]


@pytest.mark.parametrize(("kind", "good", "name", "allowed"), ARGUMENTS)
def test_numbers_and_steps(kind, good, name, allowed):
    if isinstance(allowed, str):
        outside, inside = INTERVALS[allowed]
        bad, wanted = [*NOT_NUMBERS, *NOT_FINITE, *outside], f"a finite number in {allowed}"
    else:
        low, high = allowed if isinstance(allowed, tuple) else (allowed, 2**53)
        inside = [low, np.int8(min(100, high)), high]
        bad = [*NOT_INTEGERS, low - 1, -5, high + 1]
        wanted = f"an integer in [{low}, {high}]"
    if inspect.signature(kind).parameters[name].default is None or name == "total_steps":
        bad = [value for value in bad if value is not None]
    for value in inside:
        kind(**{**good, name: value})(np.arange(5))
    for value in bad:
        message = re.escape(f"{name} is {shown(value)}; expected {wanted}")
        refused(lambda v=value: kind(**{**good, name: v}), HyperparameterError, f"^{message}$")


def test_every_number_has_its_row():
    others = {"milestones", "lr_lambda", "mode", "anneal_strategy", "three_phase", "epochs"}
    others |= {"steps_per_epoch", "schedule"}
    for kind, (_, ranges) in KINDS.items():
        assert set(inspect.signature(kind).parameters) - others <= set(ranges)
    assert set(KINDS) | {S.ProductLR, S.SequentialLR, S.Schedule} == {
        getattr(S, name) for name in S.__all__
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: S.MultiStepLR(1, 3), "milestones is 3; expected steps in a list"),
        (lambda: S.MultiStepLR(1, [1, 2.0]), r"milestones\[1\] is 2.0; expected an integer in"),
        (lambda: S.MultiStepLR(1, [-1]), r"milestones\[0\] is -1"),
        (lambda: S.MultiStepLR(1, [3, 1]), r"milestones is \[3, 1\]; .* ascending order"),
        (lambda: S.CyclicLR(1, 2, mode="saw"), "mode is 'saw'; expected one of 'triangular', "),
        (lambda: S.OneCycleLR(1, 9, anneal_strategy="sin"), "anneal_strategy is 'sin'; expected"),
        (lambda: S.OneCycleLR(1, 9, pct_start=0.6, three_phase=True), r"pct_start is .*\[0, 0.5\]"),
        (lambda: S.OneCycleLR(1, epochs=0, steps_per_epoch=3), "epochs is 0; expected an integer"),
        (lambda: S.OneCycleLR(1, epochs=2, steps_per_epoch=0), "steps_per_epoch is 0; expected"),
        (lambda: S.SequentialLR(3, []), "schedules is 3; expected schedules in a list"),
        (lambda: S.SequentialLR([STEP, "x"], [3]), r"schedules\[1\] is 'x'"),
        (lambda: S.SequentialLR([STEP, -1], [3]), r"schedules\[1\] is -1"),
        (lambda: S.SequentialLR([STEP, STEP], []), "milestones has 0 steps for 2 schedules"),
        (lambda: S.SequentialLR([], []), "milestones has 0 steps for 0 schedules"),
        (lambda: S.SequentialLR([STEP] * 3, [5, 2]), "milestones is .* ascending order"),
        (lambda: S.WarmupLR("x", 3), "schedule is 'x'; expected a finite number"),
        (lambda: S.PerEpoch(0.1, 3), "schedule is 0.1; expected a schedule, such as"),
        (lambda: STEP.per_epoch(0), "steps_per_epoch is 0"),
        (lambda: S.ProductLR(1.0), r"schedules is \(\); expected one schedule or more"),
        (lambda: S.ProductLR(-1.0, STEP), "factor is -1.0"),
        (lambda: S.ProductLR(1.0, 3), r"schedules\[0\] is 3; expected a schedule"),
    ],
)
def test_choices_and_combinations(make, message):
    refused(make, HyperparameterError, f"^{message}")
