"""Fused programs of the C backend: what is fused, and that fusing changes no bit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import fastnet as fn
from fastnet.backends import executor, registry
from fastnet.data.dataset import Dataset
from fastnet.op import KERNELS

pytestmark = pytest.mark.skipif(not fn.backends()["c"].available, reason="needs the C backend")

ACTIVATIONS = [fn.ReLU, fn.Tanh, fn.Sigmoid, fn.LeakyReLU]


def net(activation, widths, norm, dtype, dropout=0.0, linear=fn.Linear):
    layers: list[fn.Layer] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers.append(linear(inputs, outputs))
        if norm:
            layers.append(norm(outputs))
        layers.append(activation())
        if dropout:
            layers.append(fn.Dropout(dropout))
    layers += [fn.Linear(widths[-2], widths[-1]), activation()]
    return fn.Sequential(*layers, backend="c", dtype=dtype, seed=1)


def fused_pairs(program):
    names = list(KERNELS)
    kernels = [names[k] for k in program["kernel"]]
    return {f"{kernels[i]} {kernels[i + 1]}" for i in np.flatnonzero(program["epilogue"])}


def results(model, rows):
    """Bits of outputs, of gradients by a loop of one's own, of predictions and of trained parameters."""
    width = model.input_shape[0]
    x = np.random.default_rng(0).normal(size=(rows, width)).astype(model.dtype)
    output = model.forward(x)
    dx = model.backward(np.cos(output))
    kept = [output, dx, *model.grads.values(), model.predict(x)]
    fn.Trainer(model, fn.MSELoss(), seed=1).fit(x, np.sin(output), batch_size=rows, verbose=0)
    return [np.array(array).tobytes() for array in [*kept, *model.parameters()]]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.__name__)
@pytest.mark.parametrize(
    ("widths", "rows", "norm", "linear"),
    [
        ((5, 7, 3), 4, None, fn.Linear),
        ((33, 65, 1), 31, None, fn.Linear),
        ((3, 129, 2, 17), 50, fn.BatchNorm1d, fn.Linear),
        ((2, 1, 4), 3, fn.BatchNorm1d, fn.Linear),
        ((600, 70, 40), 37, None, fn.Linear),
        ((6, 90, 90), 1, None, fn.Linear),
        ((7, 130, 19), 35, None, fn.NTKLinear),
        ((7, 130, 19, 4), 35, fn.LayerNorm, fn.NTKLinear),
        ((7, 3, 37, 4), 9, fn.RMSNorm, fn.Linear),
        ((7, 130, 19, 4), 35, fn.Scale, fn.Linear),
        ((7, 3, 37, 4), 9, fn.Bias, fn.Linear),
    ],
    ids=str,
)
def test_fusing_changes_no_bit(monkeypatch, activation, widths, rows, norm, linear, dtype, threads):
    monkeypatch.setattr(executor, "WORK_TO_SHARE", 0)
    monkeypatch.setattr(executor, "ELEMENTS_TO_FUSE", 0)
    backend = registry.get("c")
    prepare = type(backend).prepare
    found, fused = [], []

    def apart(self, program):
        prepare(self, program)
        fused.append(int((program["epilogue"] != 0).sum()))
        if len(found) == 1:
            program["epilogue"] = 0

    monkeypatch.setattr(type(backend), "prepare", apart)
    for _ in range(2):
        with fn.threads(threads):
            found.append(results(net(activation, widths, norm, dtype, linear=linear), rows))
    assert sum(fused) > 0
    assert found[0] == found[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("widths", [(5, 7, 9, 3), (40, 64, 33, 70), (9, 130, 1, 20)], ids=str)
@pytest.mark.parametrize("rows", [1, 3, 29])
@pytest.mark.parametrize("where", [0, 4])
def test_a_rectifier_in_tiles_is_the_rectifier(monkeypatch, widths, rows, dtype, where):
    """Also of NaN, infinities and zeros of either sign in a layer, forward and backward."""
    backend = registry.get("c")
    prepare, found, masks = type(backend).prepare, [], []

    def prepared(self, program):
        prepare(self, program)
        masks.extend(program["relu_mask"])
        if len(found) == 1:
            program["epilogue"] = 0

    monkeypatch.setattr(type(backend), "prepare", prepared)
    for _ in range(2):
        model, rng = net(fn.ReLU, widths, None, dtype), np.random.default_rng(0)
        with model.edit() as values:
            for value in values.values():
                value[...] = rng.normal(size=value.shape)
            values[f"{where}.weight"][:, ::3] = 0.0
            bias = values[f"{where}.bias"]
            bias[::3] = np.resize([np.nan, -0.0, np.inf, 0.0, -np.inf], len(bias[::3]))
        output = model.forward(rng.normal(size=(rows, widths[0])).astype(dtype))
        dx = model.backward(rng.normal(size=output.shape))
        found.append([np.array(a).tobytes() for a in [output, dx, *model.grads.values()]])
    assert found[0] == found[1]
    assert any(masks) or backend.levels()[backend.level()] != "x86-64-v4"


DATA = Dataset(np.zeros((5, 8)), np.zeros((5, 4)))


def test_what_is_fused_and_what_is_not():
    model = net(fn.ReLU, (8, 16, 16, 4), fn.BatchNorm1d, "float32", dropout=0.1)
    run = model.training_executor(DATA, 5, fn.MSELoss())
    last = "linear_forward relu_forward"  # the others are one op with their dropout
    assert fused_pairs(run.plan.step) == {last, "linear_vjp relu_dropout_vjp"}
    normed = net(fn.ReLU, (8, 16, 16, 4), fn.BatchNorm1d, "float32")
    run = normed.training_executor(DATA, 5, fn.MSELoss())
    assert fused_pairs(run.plan.step) >= {
        "batchnorm_forward relu_forward",
        "linear_forward relu_forward",
    }
    plain = net(fn.Tanh, (8, 16, 16, 4), None, "float32")
    run = plain.training_executor(DATA, 5, fn.MSELoss())
    assert fused_pairs(run.plan.step) == {"linear_forward tanh_forward", "linear_vjp tanh_vjp"}
    leaky = net(fn.LeakyReLU, (8, 16, 4), None, "float32")
    run = leaky.training_executor(DATA, 5, fn.MSELoss())
    assert "linear_forward leaky_relu_forward" not in fused_pairs(
        run.plan.step
    )  # its input is kept for the backward
