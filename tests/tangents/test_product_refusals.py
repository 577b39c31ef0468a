"""What products with directions refuse, and that they change nothing."""

from __future__ import annotations

from typing import Any

import directions
import numpy as np
import pytest
import random_graphs

import fastnet as fn
from fastnet.errors import DataError, FastnetError, ShapeError, StateDictError, UsageError

X, LABELS = np.random.default_rng(0).normal(size=(7, 4)), np.arange(7) % 3
LOSS = fn.CrossEntropyLoss()


def net(backend: str = "reference", **options: Any) -> fn.Sequential:
    layers = fn.Linear(4, 5), fn.BatchNorm1d(5), fn.Dropout(0.4), fn.Tanh(), fn.Linear(5, 3)
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=0, **options)


def test_nothing_changes(backend):
    """Neither parameters, buffers, gradients, modes, draws nor a backward that is to come."""
    model, twin = net(backend), net(backend)
    for one in (model, twin):
        one[2].eval()
        one.zero_grad()
        one.value_and_grad(LOSS, X, LABELS)
        one.forward(X)
    v = directions.direction(model)
    model[2].train()
    model.jvp(X, X, v)
    for product in (model.hvp, model.gnvp):
        product(LOSS, X, LABELS, v, sample_weight=np.arange(7.0))
    model[2].eval()
    assert model._draws == twin._draws and model._modes() == twin._modes()
    found, wanted = model.state_dict(), twin.state_dict()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)
    for name, value in twin.grads.items():
        np.testing.assert_array_equal(model.grads[name], value)
    dy = np.ones((7, 3))
    np.testing.assert_array_equal(model.backward(dy), twin.backward(dy))
    for name, value in twin.grads.items():
        np.testing.assert_array_equal(model.grads[name], value)


def test_the_next_forward_draws_the_same(backend):
    model = net(backend)
    y, _ = model.jvp(X, X)
    again, _ = model.jvp(X, X)
    np.testing.assert_array_equal(y, again)
    np.testing.assert_allclose(model.forward(X), y, rtol=1e-13)


def wrong(v: Any, **changes: Any) -> Any:
    return {n: a for n, a in {**v, **changes}.items() if a is not None}


def test_directions_that_do_not_fit():
    model = net()
    v = directions.direction(model)
    shape, nan = np.zeros((2, 2)), np.full((5, 4), np.nan)
    cases: list[tuple[Any, str]] = [
        (wrong(v, **{"0.weight": None}), "0.weight"),
        (wrong(v, **{"9.weight": shape}), "9.weight"),
        (wrong(v, **{"0.weight": shape}), "0.weight"),
        (wrong(v, **{"0.weight": nan}), "0.weight"),
    ]
    for given, name in cases:
        for call in (
            lambda g=given: model.hvp(LOSS, X, LABELS, g),
            lambda g=given: model.gnvp(LOSS, X, LABELS, g),
            lambda g=given: model.jvp(X, None, g),
        ):
            with pytest.raises((StateDictError, ShapeError), match=name):
                call()
    model.freeze("0.weight")
    with pytest.raises(StateDictError, match=r"0\.weight"):
        model.hvp(LOSS, X, LABELS, v)


@pytest.mark.parametrize("dx", [np.zeros((6, 4)), np.zeros((7, 5)), np.zeros(7)], ids=str)
def test_directions_of_x_that_do_not_fit(dx):
    with pytest.raises(ShapeError, match="dx"):
        net().jvp(X, dx)


def test_infinite_directions_of_x():
    with pytest.raises((DataError, FastnetError), match="dx"):
        net().jvp(X, np.full(X.shape, np.nan))


def test_no_direction():
    with pytest.raises(UsageError, match="dx and dparams are None"):
        net().jvp(X)


def test_losses_in_python():
    model = net()
    v = directions.direction(model)

    def loss(y: Any, t: Any) -> Any:
        return float(((y - t) ** 2).sum()), 2 * (y - t)

    for product in (model.hvp, model.gnvp):
        with pytest.raises(UsageError, match=r"loss|Python"):
            product(loss, X, np.zeros((7, 3)), v)


def test_layers_in_python():
    model = fn.Sequential(fn.Linear(4, 3), random_graphs.Squares(3), dtype="float64", seed=0)
    v = directions.direction(model)
    for call in (
        lambda: model.jvp(X, X),
        lambda: model.hvp(LOSS, X, LABELS, v),
        lambda: model.gnvp(LOSS, X, LABELS, v),
    ):
        with pytest.raises(UsageError, match="Squares"):
            call()


def test_labels_and_rows():
    model = net()
    v = directions.direction(model)
    for product in (model.hvp, model.gnvp):
        with pytest.raises(DataError, match="3"):
            product(LOSS, X, np.full(7, 3), v)
        with pytest.raises(FastnetError, match="y"):
            product(LOSS, X, LABELS[:5], v)
        with pytest.raises(FastnetError, match="X"):
            product(LOSS, X[:0], LABELS[:0], v)
        with pytest.raises(FastnetError, match="X"):
            product(LOSS, np.full(X.shape, np.nan), LABELS, v)
    with pytest.raises(FastnetError, match="reduction"):
        model.hvp(fn.CrossEntropyLoss(reduction="none"), X, LABELS, v)


def test_no_rows_in_forward_mode():
    with pytest.raises(ShapeError, match="x has no rows"):
        net().eval().jvp(X[:0], X[:0])
