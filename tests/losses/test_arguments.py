"""What losses refuse of their options that are no single numbers; those are in test_hyperparameters.py."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
from refusals import NOT_FINITE, NOT_NUMBERS, arguments, refused

import fastnet as fn
from fastnet.errors import HyperparameterError, shown

LOSSES = [
    loss
    for loss in vars(fn.losses).values()
    if inspect.isclass(loss) and issubclass(loss, fn.Loss)
    if loss not in (fn.Loss, fn.EnsembleLoss)
]
VECTORS = [  # what takes numbers for the columns, its name, and those that it refuses
    *(
        (loss, name, "a vector of finite numbers of at least 0", [-1.0, "x"])
        for loss, name in [
            (fn.CrossEntropyLoss, "weight"),
            (fn.NLLLoss, "weight"),
            (fn.MultiMarginLoss, "weight"),
            (fn.OneVsRestHingeLoss, "weight"),
        ]
    ),
    (
        fn.BCEWithLogitsLoss,
        "pos_weight",
        "finite numbers of at least 0, one or one for each column",
        [-1.0, "x"],
    ),
    (fn.RBFLoss, "u", "finite numbers, one or one for each column", ["x"]),
    (fn.RBFLoss, "beta", "finite numbers above 0, one or one for each column", [0.0, -1.0, "x"]),
    (
        fn.PinballLoss,
        "quantile",
        "numbers in (0, 1), one or one for each column",
        [0.0, -1.0, 1.0, 2, "x"],
    ),
]


@pytest.mark.parametrize(("kind", "name", "wanted", "outside"), VECTORS)
def test_vectors(kind, name, wanted, outside):
    scalar = kind in (fn.RBFLoss, fn.BCEWithLogitsLoss, fn.PinballLoss)  # one number is taken, too
    optional = name in ("weight", "pos_weight")
    shares = kind is fn.PinballLoss
    vectors = [[0.5, 0.25]] if shares else [[1, 2], np.array([0.5, 3], "f")]
    numbers = [0.25] if shares else [2]
    for good in ([0.5], *vectors, *([*numbers, 0.5] if scalar else [])):
        kind(**{name: good})
    singles = [*NOT_NUMBERS, *NOT_FINITE, *outside, True, np.True_]
    bad = [v for v in singles if not (v is None and optional) and np.ndim(v) == 0]
    bad += [[], [[1.0]], [[1.0], [1.0, 2.0]], *([v, 0.5] for v in bad if v not in (None, True))]
    for value in bad if scalar else [*bad, 1.0]:
        message = re.escape(f"{name} is {shown(value)}; expected {wanted}")
        refused(lambda v=value: kind(**{name: v}), HyperparameterError, f"^{message}$")


def test_every_vector_is_in_the_table():
    given = {(loss, name) for loss in LOSSES for name in arguments(loss, "Any")}
    assert given == {(loss, name) for loss, name, *_ in VECTORS}


@pytest.mark.parametrize("loss", LOSSES)
def test_reductions(loss):
    needed = {"function": max} if loss is fn.FunctionLoss else {}
    wanted = ", ".join(map(repr, loss.reductions))
    for bad in ["batch", None, 1, b"mean", True]:
        message = re.escape(f"reduction is {shown(bad)}; expected one of {wanted}")
        refused(lambda v=bad: loss(**needed, reduction=v), HyperparameterError, f"^{message}$")


@pytest.mark.parametrize("loss", LOSSES)
def test_flags(loss):
    for name in arguments(loss, "bool"):
        for bad in [1, 0.0, None, "True", [True]]:
            message = re.escape(f"{name} is {shown(bad)}; expected True or False")
            refused(lambda n=name, v=bad: loss(**{n: v}), HyperparameterError, f"^{message}$")
