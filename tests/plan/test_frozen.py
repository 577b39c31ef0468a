"""Frozen parameters: no gradient is computed of them, no optimizer changes them, and nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.op import KERNELS

X = np.random.default_rng(0).normal(size=(40, 5))
Y = np.random.default_rng(1).normal(size=(40, 2))


def net(backend):
    layers = fn.Linear(5, 6), fn.Tanh(), fn.Linear(6, 4), fn.PReLU(), fn.Linear(4, 2)
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=3)


def freeze(model, *names):
    model.bind().freeze(p for name, p in model._named().items() if name in names)


def values(model):
    return {name: value.copy() for name, value in model.named_parameters().items()}


def test_only_the_others_have_gradients(backend):
    model, twin = net(backend), net(backend)
    model.value_and_grad(fn.MSELoss(), X, Y)  # leaves gradients everywhere
    freeze(model, "0.weight", "0.bias", "2.bias")
    model.value_and_grad(fn.MSELoss(), X, Y)
    twin.value_and_grad(fn.MSELoss(), X, Y)
    for name, gradient in model.grads.items():
        if name in ("0.weight", "0.bias", "2.bias"):
            assert not gradient.any(), name
        else:
            np.testing.assert_array_equal(gradient, twin.grads[name], err_msg=name)


def test_what_lies_before_all_that_trains_has_no_backward():
    model = net("reference")
    before = model._runtime.executor((5,), 8, (True,) * 5)
    freeze(model, "0.weight", "0.bias")
    loss = fn.MSELoss()
    data = model.data(loss, X, Y, "X", "y")
    after = model.training_executor(data, 8, loss)
    kernels = list(KERNELS)
    names = [kernels[k] for k in after.plan.step["kernel"] if k >= 0]
    assert names.count("linear_vjp") == 2 and "tanh_vjp" not in names
    assert len(before.plan.backward) == 5


@pytest.mark.parametrize(
    "make",
    [
        lambda: fn.Adam(0.1, weight_decay=0.1),
        lambda: fn.SGD(0.1, 0.9, l1=0.1, max_norm=0.5),
        lambda: fn.AdamW(0.1),
    ],
)
def test_a_fit_leaves_them_alone(backend, make):
    model = net(backend)
    trainer = fn.Trainer(model, fn.MSELoss(), make(), clip_norm=1.0, seed=0)
    trainer.fit(X, Y, epochs=1, batch_size=8, verbose=0)
    before = values(model)
    freeze(model, "0.weight", "2.weight", "3.weight")
    trainer.fit(X, Y, epochs=2, batch_size=8, verbose=0)
    frozen = values(model)
    for name, value in frozen.items():
        same = np.array_equal(value, before[name])
        assert same == (name in ("0.weight", "2.weight", "3.weight")), name
    freeze(model)
    trainer.fit(X, Y, epochs=1, batch_size=8, verbose=0)
    assert all((value != frozen[name]).any() for name, value in values(model).items())


def test_freezing_keeps_the_optimizers_vectors(backend):
    """Frozen for no step at all, it is as if nothing had been."""
    states = []
    for frozen in (False, True):
        model = net(backend)
        trainer = fn.Trainer(model, fn.MSELoss(), fn.Adam(0.1), seed=0)
        trainer.fit(X, Y, epochs=1, batch_size=8, verbose=0)
        if frozen:
            freeze(model, "0.weight")
            model.optimizer_state(trainer.optimizer)
            freeze(model)
        trainer.fit(X, Y, epochs=1, batch_size=8, verbose=0)
        states.append(values(model))
    for name, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][name], err_msg=name)


def test_the_whole_data_set_at_once(backend):
    pytest.importorskip("scipy")
    model = net(backend)
    freeze(model, "0.weight", "0.bias")
    before = values(model)
    trainer = fn.Trainer(model, fn.MSELoss(), seed=0)
    trainer.fit_full_batch(X, Y, max_iter=5, weight_decay=0.1)
    for name, value in values(model).items():
        assert np.array_equal(value, before[name]) == (name in ("0.weight", "0.bias")), name


def huge(output, y):
    """A loss that is infinite, whose gradient is not."""
    return float("inf"), 0 * output


@pytest.mark.parametrize("loss", [fn.MSELoss(), fn.FunctionLoss(huge)])
@pytest.mark.parametrize("layers", [[fn.Tanh], [lambda: fn.BatchNorm1d(1), fn.Tanh]])
def test_where_nothing_is_trained_the_loss_is_checked_all_the_same(backend, layers, loss):
    """The step of a model without parameters, or of frozen ones alone, has no backward."""
    model = fn.Sequential(*(make() for make in layers), dtype="float64", backend=backend, seed=0)
    storage = model.bind()
    storage.freeze(storage.parameters())
    before = model.state_dict()
    x, y = np.array([[-1.0], [1.0], [2.0]]), np.full((3, 1), 1e200)
    with pytest.raises(fn.DivergenceError, match="is inf"):
        model.value_and_grad(loss, x, y)
    with pytest.raises(fn.DivergenceError, match="is inf"):
        fn.Trainer(model, loss, seed=0).fit(x, y, verbose=0)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
