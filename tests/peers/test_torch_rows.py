"""Layers of features and rows against PyTorch, in float64: norms, factors, alpha dropout, NTK layers."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import fastnet as fn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:::torch")

nn = torch.nn
TOL = 1e-10


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def close(got, want, what=""):
    want = np.asarray(want)
    np.testing.assert_allclose(
        got, want, rtol=TOL, atol=TOL * max(1, np.abs(want).max()), err_msg=what
    )


class Scale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * self.weight


class Bias(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return x + self.bias


class NTK(nn.Linear):
    def forward(self, x):
        y = x @ self.weight.T / math.sqrt(self.in_features)
        return y if self.bias is None else y + self.bias


PLAIN = {"elementwise_affine": False}
LAYERS = {
    "Scale": (fn.Scale(5), Scale(5)),
    "Bias": (fn.Bias(5), Bias(5)),
    "LayerNorm": (fn.LayerNorm(5), nn.LayerNorm(5)),
    "LayerNorm eps": (fn.LayerNorm((5,), 0.3), nn.LayerNorm((5,), 0.3)),
    "LayerNorm without bias": (fn.LayerNorm(5, bias=False), nn.LayerNorm(5, bias=False)),
    "LayerNorm alone": (fn.LayerNorm(5, **PLAIN), nn.LayerNorm(5, **PLAIN)),
    "RMSNorm": (fn.RMSNorm(5), nn.RMSNorm(5)),
    "RMSNorm eps": (fn.RMSNorm([5], 0.3), nn.RMSNorm([5], 0.3)),
    "RMSNorm alone": (fn.RMSNorm(5, **PLAIN), nn.RMSNorm(5, **PLAIN)),
    "NTKLinear": (fn.NTKLinear(5, 3), NTK(5, 3)),
    "NTKLinear without bias": (fn.NTKLinear(5, 3, bias=False), NTK(5, 3, bias=False)),
    "GaussianNoise 0": (fn.GaussianNoise(0), nn.Identity()),
    "AlphaDropout 0": (fn.AlphaDropout(0), nn.AlphaDropout(0)),
    "AlphaDropout 1": (fn.AlphaDropout(1), nn.AlphaDropout(1)),
}


def check_pass(model, theirs, x, dy):
    tx = torch.tensor(x, requires_grad=True)
    theirs.zero_grad(set_to_none=True)
    ty = theirs(tx)
    ty.backward(torch.tensor(dy))
    model.zero_grad()
    close(model.forward(x), ty.detach(), "y")
    close(model.backward(dy), tx.grad, "dx")
    grads = {name: p.grad for name, p in theirs.named_parameters()}
    assert grads.keys() == model.grads.keys()
    for name, grad in grads.items():
        close(model.grads[name], grad, name)


@pytest.mark.parametrize("rows", [1, 7, 600])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(backend, name, rows):
    """Between others, with parameters away from their first values."""
    mine, theirs = LAYERS[name]
    width = mine.output_shape((5,))[0]
    theirs = nn.Sequential(nn.Linear(4, 5), theirs, nn.Tanh(), nn.Linear(width, 2)).double().train()
    with torch.no_grad():
        for seed, p in enumerate(theirs.parameters()):
            p += torch.tensor(normal(seed, *p.shape)) / 2
    mine = type(mine).from_config(mine.config())
    layers = fn.Linear(4, 5), mine, fn.Tanh(), fn.Linear(width, 2)
    model = fn.Sequential(*layers, dtype="float64", backend=backend)
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state)
    x, dy = normal(0, rows, 4) * 3, normal(1, rows, 2)
    check_pass(model, theirs, x, dy)
    check_pass(model.eval(), theirs.eval(), x, dy)
    close(model.predict(x), theirs(torch.tensor(x)).detach())


def test_the_defaults_are_pytorchs():
    for mine, theirs in [
        (fn.LayerNorm(3), nn.LayerNorm(3)),
        (fn.RMSNorm(3), nn.RMSNorm(3)),
        (fn.BatchNorm1d(3), nn.BatchNorm1d(3)),
        (fn.AlphaDropout(), nn.AlphaDropout()),
    ]:
        for name in ("normalized_shape", "eps", "momentum", "elementwise_affine", "p"):
            assert getattr(mine, name, None) == getattr(theirs, name, None)
        assert fn.BatchNorm1d(3).track_running_stats == nn.BatchNorm1d(3).track_running_stats


def test_float32_has_its_own_epsilon(backend):
    x = (normal(0, 6, 5) * 1e-5).astype("float32")
    model = fn.Sequential(fn.RMSNorm(5), backend=backend)
    want = nn.RMSNorm(5)(torch.tensor(x)).detach()
    np.testing.assert_allclose(model.forward(x), want, rtol=1e-6)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_alpha_dropout_by_the_same_mask(backend, p):
    """PyTorch's formula, as torch/csrc has it, with the words of fastnet."""
    x, dy = normal(0, 9, 37), normal(1, 9, 37)
    model = fn.Sequential(fn.AlphaDropout(p), dtype="float64", backend=backend, seed=5)
    stream = fn.random.stream_of(fn.random.DROPOUT, 0)
    words = fn.random.words(x.size, 5, stream, 0).reshape(x.shape)
    noise = torch.tensor((words >= round(p * 2**32)).astype("float64"))
    alpha = 1.7580993408473766
    a = 1 / math.sqrt((alpha * alpha * p + 1) * (1 - p))
    tx = torch.tensor(x, requires_grad=True)
    ty = tx * (noise * a) + (noise - 1) * (alpha * a) + alpha * a * p
    ty.backward(torch.tensor(dy))
    close(model.forward(x), ty.detach())
    close(model.backward(dy), tx.grad)


def test_alpha_dropout_has_pytorchs_two_values(backend):
    """Of the input 1 PyTorch makes one number where it is kept, and another where it is not."""
    torch.manual_seed(0)
    want = np.unique(nn.AlphaDropout(0.3)(torch.ones(1000, dtype=torch.float64)).numpy())
    model = fn.Sequential(fn.AlphaDropout(0.3), dtype="float64", backend=backend, seed=5)
    np.testing.assert_allclose(np.unique(model.forward(np.ones((40, 25)))), want, rtol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": None},
        {"track_running_stats": False},
        {"track_running_stats": False, "affine": False},
        {"track_running_stats": False, "momentum": None},
    ],
    ids=repr,
)
def test_batchnorm(backend, options):
    layers = nn.Linear(5, 4), nn.BatchNorm1d(4, **options), nn.Tanh()
    theirs = nn.Sequential(*layers).double()
    mine = fn.Linear(5, 4), fn.BatchNorm1d(4, **options), fn.Tanh()
    model = fn.Sequential(*mine, dtype="float64", backend=backend)
    assert list(model.state_dict()) == list(theirs.state_dict())
    model.load_state_dict(theirs.state_dict())
    for training in (True, True, False, True):
        model.train(training)
        theirs.train(training)
        for seed, rows in [(1, 6), (2, 2), (3, 33)]:
            check_pass(model, theirs, normal(seed, rows, 5) + 2, normal(seed + 9, rows, 4))
            for name, value in theirs.state_dict().items():
                assert model.state_dict()[name].shape == tuple(value.shape)
                close(model.state_dict()[name], value, name)
    x = normal(4, 300, 5)
    close(model.predict(x), theirs.eval()(torch.tensor(x)).detach())
