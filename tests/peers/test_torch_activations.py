"""Activations against PyTorch, in float64: values and gradients, at kinks too, with options swept."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastnet as fn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:::torch")

nn = torch.nn
PAIRS = [
    (fn.ReLU(), nn.ReLU()),
    (fn.LeakyReLU(), nn.LeakyReLU()),
    (fn.LeakyReLU(-0.4), nn.LeakyReLU(-0.4)),
    (fn.ELU(), nn.ELU()),
    (fn.ELU(0.3), nn.ELU(0.3)),
    (fn.SELU(), nn.SELU()),
    (fn.GELU(), nn.GELU()),
    (fn.GELU("tanh"), nn.GELU("tanh")),
    (fn.SiLU(), nn.SiLU()),
    (fn.Mish(), nn.Mish()),
    (fn.Softplus(), nn.Softplus()),
    (fn.Softplus(beta=2.5, threshold=3.0), nn.Softplus(2.5, 3.0)),
    (fn.Sigmoid(), nn.Sigmoid()),
    (fn.Tanh(), nn.Tanh()),
    (fn.Hardtanh(), nn.Hardtanh()),
    (fn.Hardtanh(-3.0, 0.5), nn.Hardtanh(-3.0, 0.5)),
    (fn.ReLU6(), nn.ReLU6()),
    (fn.Hardsigmoid(), nn.Hardsigmoid()),
    (fn.Hardswish(), nn.Hardswish()),
    (fn.Softsign(), nn.Softsign()),
    (fn.LogSigmoid(), nn.LogSigmoid()),
    (fn.Identity(), nn.Identity()),
]
# Where functions in pieces meet, among numbers of all sizes.
MEETING = [0.0, 1.0, -1.0, 3.0, -3.0, 6.0, 0.5, 1.2]
SMOOTH = np.concatenate([np.linspace(-12, 12, 577), [1e-9, -1e-9, 30, -30, 90, -90, 700, -700]])


@pytest.mark.parametrize(("mine", "theirs"), PAIRS, ids=[repr(mine) for mine, _ in PAIRS])
def test_values_and_gradients(backend, mine, theirs):
    x = np.concatenate([MEETING, SMOOTH]).reshape(-1, 1)
    dy = np.linspace(-2, 2, len(x)).reshape(-1, 1)
    tx = torch.tensor(x, requires_grad=True)
    ty = theirs(tx)
    ty.backward(torch.tensor(dy))
    model = fn.Sequential(type(mine)(**mine._config), dtype="float64", backend=backend)
    np.testing.assert_allclose(model.forward(x), ty.detach(), rtol=1e-12, atol=1e-14)
    # PyTorch's hardsigmoid multiplies a gradient by 1/6 as rounded to float32.
    rtol = 1e-7 if isinstance(mine, fn.Hardsigmoid) else 1e-10
    np.testing.assert_allclose(model.backward(dy), tx.grad, rtol=rtol, atol=1e-13)


@pytest.mark.parametrize("count", [1, 5])
def test_prelu(backend, count):
    random = np.random.default_rng(1)
    x, dy = random.normal(size=(9, 5)), random.normal(size=(9, 5))
    x[0, 0] = 0.0
    theirs = nn.PReLU(count, 0.4).double()
    model = fn.Sequential(fn.PReLU(count), dtype="float64", backend=backend)
    assert (
        model.state_dict().keys() == {"0.weight"}
        and float(model.state_dict()["0.weight"][0]) == 0.25
    )
    model.load_state_dict({"0.weight": theirs.weight.detach()})
    tx = torch.tensor(x, requires_grad=True)
    ty = theirs(tx)
    ty.backward(torch.tensor(dy))
    model.zero_grad()
    np.testing.assert_allclose(model.forward(x), ty.detach(), rtol=1e-12)
    np.testing.assert_allclose(model.backward(dy), tx.grad, rtol=1e-12)
    np.testing.assert_allclose(model.grads["0.weight"], theirs.weight.grad, rtol=1e-12)


def test_lecuns_hyperbolic_tangents(backend):
    """They are not PyTorch's: 1.7159·tanh(2x/3) and tanh(x) + a·x by its autograd."""
    x = SMOOTH[:-2].reshape(-1, 1)
    for layer, f in [
        (fn.ScaledTanh(), lambda t: 1.7159 * torch.tanh(2 / 3 * t)),
        (fn.ScaledTanh(0.5, 3.0), lambda t: 0.5 * torch.tanh(3.0 * t)),
        (fn.LinearTanh(), lambda t: torch.tanh(t) + 0.01 * t),
        (fn.LinearTanh(-0.2), lambda t: torch.tanh(t) - 0.2 * t),
    ]:
        tx = torch.tensor(x, requires_grad=True)
        ty = f(tx)
        ty.sum().backward()
        model = fn.Sequential(layer, dtype="float64", backend=backend)
        np.testing.assert_allclose(model.forward(x), ty.detach(), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(model.backward(np.ones_like(x)), tx.grad, rtol=1e-9, atol=1e-14)
