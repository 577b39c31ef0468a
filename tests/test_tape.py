"""The tape, which runs lone layers and losses: gradients along any graph, equal to a model's."""

from __future__ import annotations

import gradcheck
import numpy as np
import pytest

import fastnet as fn
from fastnet.layers.activations import sigmoid, tanh
from fastnet.op import KERNELS
from fastnet.parameter import Parameter
from fastnet.tape import Tape, Value

linear = KERNELS["linear_forward"].op


def normal(seed, shape):
    return gradcheck.normal(np.random.default_rng(seed), shape)


def parameter(seed, shape):
    value = normal(seed, shape)
    return Parameter("w", shape, fn.init.Zeros(), value=value, grad=np.zeros(shape))


def run(product, w, x):
    """y = tanh(h)·σ(h)·h with h = x·w: h is used three times, once twice by one op."""
    tape, given = Tape(np.float64), Value(x)
    h = tape.apply(linear, x=given, w=w, b=None)
    squared = tape.apply(product, a=h, b=h)
    gates = tape.apply(product, a=tape.apply(tanh, x=h), b=tape.apply(sigmoid, x=h))
    return tape, given, tape.apply(product, a=squared, b=gates)


def test_gradients_add_where_a_value_is_used_twice(product):
    x, w = normal(0, (3, 4)), parameter(1, (4, 2))
    tape, given, y = run(product, w, x)
    dy = normal(2, y.array.shape)
    tape.backward(y, dy)

    def objective():
        return float((run(product, w, x)[2].array * dy).sum())

    for array, grad in ((x, given.grad), (w.value, w.grad)):
        for i in range(array.size):
            kept, at = array.flat[i], []
            for sign in (1, -1):
                array.flat[i] = kept + sign * 1e-5
                at.append(objective())
            array.flat[i] = kept
            np.testing.assert_allclose(grad.flat[i], (at[0] - at[1]) / 2e-5, rtol=1e-8, atol=1e-9)


def test_the_gradient_of_a_parameter_adds_to_what_is_there(product):
    x, w = normal(0, (3, 4)), parameter(1, (4, 2))
    tape, _, y = run(product, w, x)
    tape.backward(y, np.ones_like(y.array))
    once = w.grad.copy()
    tape, _, y = run(product, w, x)
    tape.backward(y, np.ones_like(y.array))
    np.testing.assert_allclose(w.grad, 2 * once, rtol=1e-15)


def test_shapes_keep_the_rows_as_a_word():
    assert Value(np.zeros((5, 3))).shape == ("B", 3)


LAYERS = [
    lambda: fn.Linear(4, 3),
    lambda: fn.Linear(4, 3, bias=False),
    lambda: fn.ReLU(),
    lambda: fn.LeakyReLU(0.3),
    lambda: fn.Sigmoid(),
    lambda: fn.Tanh(),
    lambda: fn.Dropout(0.4),
    lambda: fn.BatchNorm1d(4),
    lambda: fn.BatchNorm1d(4, affine=False),
    lambda: fn.BatchNorm1d(4, momentum=None),
    lambda: fn.BatchNorm1d(4, track_running_stats=False),
    lambda: fn.LayerNorm(4),
    lambda: fn.LayerNorm(4, bias=False),
    lambda: fn.RMSNorm(4),
    lambda: fn.RMSNorm(4, elementwise_affine=False),
    lambda: fn.Scale(4),
    lambda: fn.Bias(4),
    lambda: fn.AlphaDropout(0.4),
    lambda: fn.GaussianNoise(0.3),
    lambda: fn.NTKLinear(4, 3),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", LAYERS, ids=lambda make: repr(make()))
def test_a_lone_layer_is_a_model_of_one(make, training):
    """Twice, so that dropout's counter, running statistics and gradients move on."""
    alone, inside = make(), make()
    alone.reset_parameters(seed=9)
    model = fn.Sequential(inside, dtype="float32", backend="reference", seed=9)
    alone.train(training)
    model.train(training)
    for seed in (1, 2):
        x = normal(seed, (5, 4)).astype(np.float32)
        y = alone.forward(x)
        np.testing.assert_array_equal(y, model.forward(x))
        np.testing.assert_array_equal(alone.backward(y + 1), model.backward(y + 1))
    for mine, theirs in (
        (alone.state_dict(), model.state_dict()),
        (alone.grads, model.grads),
    ):
        assert {f"0.{name}" for name in mine} == theirs.keys()
        for name, value in mine.items():
            np.testing.assert_array_equal(value, theirs[f"0.{name}"], err_msg=name)


@pytest.mark.parametrize("loss", [fn.MSELoss(), fn.CrossEntropyLoss()], ids=repr)
def test_a_lone_loss_is_that_of_a_model(loss):
    random = np.random.default_rng(0)
    model = fn.Sequential(fn.Linear(4, 3), fn.Tanh(), dtype="float64", backend="reference", seed=1)
    x = normal(0, (6, 4))
    y = random.integers(0, 3, 6) if isinstance(loss, fn.CrossEntropyLoss) else normal(1, (6, 3))
    value = loss.forward(model.forward(x), y)
    model.zero_grad()
    model.backward(loss.backward())
    stepwise = {name: grad.copy() for name, grad in model.grads.items()}
    assert model.value_and_grad(loss, x, y) == value
    for name, grad in model.grads.items():
        np.testing.assert_array_equal(grad, stepwise[name])
