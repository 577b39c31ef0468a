"""The Gaussian negative log-likelihood against PyTorch's, which takes variances as an argument."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import ShapeError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:::torch")

RANDOM = np.random.default_rng(0)
MEANS, TARGETS = RANDOM.normal(size=(7, 3)), RANDOM.normal(size=(7, 3))
VARIANCES = np.abs(RANDOM.normal(size=(7, 3)))
VARIANCES[0] = 1e-9, 0.0, 0.3  # below eps


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("eps", [1e-6, 0.2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_values_and_gradients(full, eps, reduction):
    means, variances = (torch.tensor(a, requires_grad=True) for a in (MEANS, VARIANCES))
    theirs = torch.nn.GaussianNLLLoss(full=full, eps=eps, reduction=reduction)
    want = theirs(means, torch.tensor(TARGETS), variances)
    want.sum().backward()
    loss = fn.GaussianNLLLoss(full, eps, reduction)
    got = loss.forward(np.hstack([MEANS, VARIANCES]), TARGETS)
    np.testing.assert_allclose(got, want.detach(), rtol=1e-12)
    gradient = np.hstack([means.grad, variances.grad])
    np.testing.assert_allclose(loss.backward(), gradient, rtol=1e-12, atol=1e-12)


def test_a_model_is_trained_as_the_lone_loss_says(backend):
    model = fn.Sequential(fn.Linear(4, 6), fn.Softplus(), dtype="float64", backend=backend, seed=0)
    x = RANDOM.normal(size=(7, 4))
    for loss in (fn.GaussianNLLLoss(), fn.GaussianNLLLoss(True, 0.9, reduction="sum")):
        value = model.value_and_grad(loss, x, TARGETS)
        grads = {name: grad.copy() for name, grad in model.grads.items()}
        assert value == pytest.approx(loss.forward(model.forward(x), TARGETS), rel=1e-12)
        model.zero_grad()
        model.backward(loss.backward())
        for name, grad in model.grads.items():
            np.testing.assert_allclose(grad, grads[name], rtol=1e-11, atol=1e-13)


def test_it_finds_mean_and_variance():
    """Of y ~ N(2, 0.25) whatever x is: the biases of a linear net go there."""
    y = np.random.default_rng(1).normal(2.0, 0.5, size=(4000, 1))
    model = fn.Sequential(fn.Linear(1, 2), fn.Softplus(), dtype="float64", seed=0)
    trainer = fn.Trainer(model, fn.GaussianNLLLoss(), fn.Adam(lr=0.02), seed=0)
    trainer.fit(np.zeros((4000, 1)), y, epochs=15, verbose=0)
    mean, variance = model.predict(np.zeros((1, 1)))[0]
    assert mean == pytest.approx(y.mean(), abs=0.03) and variance == pytest.approx(
        y.var(), abs=0.03
    )


def test_refusals():
    loss = fn.GaussianNLLLoss()
    with pytest.raises(ShapeError, match=r"takes outputs \(n, 2k\)"):
        loss.forward(np.zeros((4, 3)), np.zeros((4, 1)))
    with pytest.raises(ShapeError, match=r"y has shape \(4, 2\); GaussianNLLLoss takes \(n, 1\)"):
        loss.forward(np.zeros((4, 2)), np.zeros((4, 2)))
