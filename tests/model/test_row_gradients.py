"""Gradients of single rows: against minibatches of one row, of every way in which they are found."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import UsageError
from fastnet.layers.activations import tanh
from fastnet.layers.linear import linear
from fastnet.model.rows import OfProducts, OneByOne, RowGradients


def mlp():
    return fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 4), fn.ReLU(), fn.Linear(4, 2)


def branches():
    inner = fn.Sequential(fn.Linear(5, 5), fn.Tanh(), fn.Linear(5, 5, bias=False))
    return fn.Linear(3, 5), fn.Residual(inner), fn.Linear(5, 2)


def normed():
    return fn.Linear(3, 5), fn.LayerNorm(5), fn.PReLU(), fn.Linear(5, 2)


def ntk():
    return fn.NTKLinear(3, 5), fn.GELU(), fn.NTKLinear(5, 2)


def shared():
    return fn.Linear(3, 4), Twice(), fn.Linear(4, 2)


class Twice(fn.Layer):
    """Applies one linear op twice with the same parameters."""

    def __init__(self):
        super().__init__()
        self._declare("weight", (4, 4), init=fn.init.Normal())
        self._declare("bias", (4,), init=fn.init.Normal())

    def output_shape(self, shape):
        return shape

    def emit(self, g, x):
        w, b = self._parameters["weight"], self._parameters["bias"]
        y = g.apply(tanh, x=g.apply(linear, x=x, w=w, b=b))
        return g.apply(linear, x=y, w=w, b=b)


NETS = {"mlp": mlp, "branches": branches, "normed": normed, "ntk": ntk, "shared": shared}
BY_PRODUCTS = {"mlp", "branches", "ntk", "shared"}


def made(name, backend, dtype="float64"):
    return fn.Sequential(*NETS[name](), dtype=dtype, backend=backend, seed=2)


def flat_gradient(model):
    storage = model.bind()
    return storage.flat("grads")[storage.trainable_places()].astype(np.float64)


def one_by_one(model, x, dy):
    """The rows' gradients by forward and backward of minibatches of one row."""
    found = []
    for row, d in zip(x, dy, strict=True):
        model.zero_grad()
        model.forward(row[None])
        model.backward(d[None])
        found.append(flat_gradient(model))
    model.zero_grad()
    return np.array(found)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rows_are_those_of_minibatches_of_one_row(backend, name, dtype):
    rng = np.random.default_rng(0)
    model = made(name, backend, dtype)
    x, dy = (rng.normal(size=(7, n)).astype(dtype) for n in (3, 2))
    expected = one_by_one(model, x, dy)
    modes = model._modes(True)
    with model.training_lock():
        gradients = RowGradients(model, modes, (3,), 7)
        output = gradients.forward(x)
        of = gradients.of(x, dy)
    assert type(of) is (OfProducts if name in BY_PRODUCTS else OneByOne)
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    found = of.rows(0, 7)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(of.rows(2, 5), found[2:5])
    np.testing.assert_allclose(of.squares(), (found**2).sum(0), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(output, model.forward(x), rtol=tolerance, atol=tolerance)
    assert not flat_gradient(model).any()  # those of the model stay as they were


def test_frozen_parameters_have_no_place_in_the_rows(backend):
    rng = np.random.default_rng(1)
    model = made("mlp", backend)
    model.freeze("0.*")
    x, dy = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    with model.training_lock():
        of = RowGradients(model, model._modes(True), (3,), 4).of(x, dy)
    assert of.size == 5 * 4 + 4 + 4 * 2 + 2
    np.testing.assert_allclose(of.rows(0, 4), one_by_one(model, x, dy), rtol=1e-12, atol=1e-14)


def test_masks_of_dropout_are_those_of_the_whole_minibatch(backend):
    rng = np.random.default_rng(3)
    layers = fn.Linear(3, 8), fn.Dropout(0.5), fn.Linear(8, 2)
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=4)
    x, dy = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    with model.training_lock():
        of = RowGradients(model, model._modes(True), (3,), 6).of(x, dy, seed=9, step=5)
        executor = model._runtime.executor((3,), 6, model._modes(True))
        executor.forward(x, 9, 5)
        executor.backward(dy, accumulate=False)
    np.testing.assert_allclose(of.rows(0, 6).sum(0), flat_gradient(model), rtol=1e-12)


def test_what_has_no_rows_is_refused_by_name():
    batchnorm = fn.Sequential(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Linear(4, 2), dtype="float64")
    with pytest.raises(UsageError, match=r"BatchNorm1d.* computes statistics of a minibatch"):
        RowGradients(batchnorm, batchnorm._modes(True), (3,), 8)
    batchnorm.eval()
    RowGradients(batchnorm, batchnorm._modes(), (3,), 8)
    drawing = fn.Sequential(fn.Linear(3, 4), fn.PReLU(), fn.Dropout(0.5), fn.Linear(4, 2))
    with pytest.raises(UsageError, match=r"draws random numbers \(.*dropout.*\)"):
        RowGradients(drawing, drawing._modes(True), (3,), 8)
