"""Optimizers against torch.optim: float64, 1,000 steps of prescribed gradients, their options swept."""

from __future__ import annotations

import warnings
from functools import cache
from itertools import product

import numpy as np
import pytest
from prescribed import draw, set_gradients

import fastnet as fn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:::torch")

STEPS, SEEN = 1000, (1, 2, 3, 4, 5, 6, 7, 10, 30, 100, 300, 1000)  # RAdam changes its step within
TOL = 1e-10


def sweep(**options):
    """Every combination of the options' values."""
    return [dict(zip(options, values, strict=True)) for values in product(*options.values())]


DECAY, BETAS = [0.0, 0.2], [(0.9, 0.999), (0.5, 0.9), (0.0, 0.99), (0.99, 0.5)]
OPTIONS = {
    "SGD": [
        {},
        *sweep(lr=[0.1], momentum=[0.0, 0.9, 1.0], dampening=[0.0, 0.5, 1.5], weight_decay=DECAY),
        *sweep(lr=[0.1], momentum=[0.5, 0.9], nesterov=[True], weight_decay=DECAY),
    ],
    "Adagrad": [
        {},
        *sweep(
            lr=[0.1],
            lr_decay=[0.0, 0.1],
            weight_decay=DECAY,
            initial_accumulator_value=[0.0, 0.3],
            eps=[1e-10, 0.1],
        ),
    ],
    "Adadelta": [
        {},
        *sweep(lr=[1.0, 0.3], rho=[0.9, 0.5, 0.0, 1.0], eps=[1e-6, 0.1], weight_decay=DECAY),
    ],
    "RMSprop": [
        {},
        *sweep(
            lr=[0.1],
            alpha=[0.99, 0.5],
            eps=[1e-8, 0.1],
            weight_decay=DECAY,
            momentum=[0.0, 0.9],
            centered=[False, True],
        ),
    ],
    "Adam": [
        {},
        *sweep(lr=[0.1], betas=BETAS, eps=[1e-8, 0.1], weight_decay=DECAY, amsgrad=[False, True]),
        *sweep(lr=[0.1], weight_decay=[0.2], decoupled_weight_decay=[True]),
    ],
    "AdamW": [
        {},
        *sweep(
            lr=[0.1], betas=BETAS[:2], eps=[1e-8, 0.1], weight_decay=DECAY, amsgrad=[False, True]
        ),
    ],
    "Adamax": [{}, *sweep(lr=[0.1], betas=BETAS, eps=[1e-8, 0.1], weight_decay=DECAY)],
    "NAdam": [
        {},
        *sweep(lr=[0.1], betas=BETAS, eps=[1e-8, 0.1], momentum_decay=[4e-3, 0.0, 0.5]),
        *sweep(
            lr=[0.1],
            betas=[(0.999, 0.99)],
            weight_decay=DECAY,
            decoupled_weight_decay=[False, True],
        ),
    ],
    "RAdam": [
        {},
        *sweep(lr=[0.1], betas=[*BETAS, (0.9, 0.6), (0.9, 0.7)], eps=[1e-8, 0.1]),
        *sweep(lr=[0.1], weight_decay=DECAY, decoupled_weight_decay=[False, True]),
    ],
}
CASES = [(name, number) for name, options in OPTIONS.items() for number in range(len(options))]


def net(backend, dtype="float64"):
    return fn.Sequential(fn.Linear(3, 4), dtype=dtype, backend=backend, seed=3)


@cache
def gradients():
    return draw(net("reference"), STEPS)


@cache
def theirs(name, number):
    """PyTorch's parameters after the steps SEEN."""
    model = net("reference")
    parameters = {n: torch.tensor(p.copy()) for n, p in model.named_parameters().items()}
    optimizer = getattr(torch.optim, name)(list(parameters.values()), **OPTIONS[name][number])
    found = []
    for step, given in enumerate(gradients(), 1):
        for n, p in parameters.items():
            p.grad = torch.tensor(given[n])
        optimizer.step()
        if step in SEEN:
            found.append({n: p.numpy().copy() for n, p in parameters.items()})
    return found


@pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{n}-{OPTIONS[n][i]}" for n, i in CASES])
def test_a_thousand_steps(backend, name, number):
    model, optimizer = net(backend), getattr(fn, name)(**OPTIONS[name][number])
    expected = iter(theirs(name, number))
    for step, given in enumerate(gradients(), 1):
        set_gradients(model, given)
        optimizer.step(model)
        if step in SEEN:
            for n, want in next(expected).items():
                got = model.named_parameters()[n]
                np.testing.assert_allclose(got, want, rtol=TOL, atol=1e-14, err_msg=f"{step}: {n}")
