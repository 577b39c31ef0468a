"""Muon against torch.optim.Muon, whose iterations in bfloat16 are replaced by the same in float64."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from prescribed import draw, set_gradients

import fastnet as fn
from fastnet.backends import executor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:::torch")
STEPS = 60


def net(backend, dtype="float64"):
    layers = fn.Linear(3, 7), fn.Linear(7, 7), fn.Linear(7, 2)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=3)


def iterations(given, coefficients, steps, eps):
    """Newton and Schulz's in float64."""
    a, b, c = coefficients
    x = given.double().numpy()
    x = x / max(np.linalg.norm(x), eps)
    for _ in range(steps):
        gram = x.T @ x
        x = a * x + x @ (b * gram + c * gram @ gram)
    return torch.tensor(x)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.1, "nesterov": False},
        {"lr": 0.1, "momentum": 0.0},
        {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"},
        {"lr": 0.1, "ns_steps": 2, "ns_coefficients": (2.0, -1.5, 0.5), "eps": 3.0},
    ],
    ids=repr,
)
def test_steps(backend, options, monkeypatch):
    """Matrices are Muon's, and biases AdamW's with its lr and decay."""
    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", iterations)
    model, optimizer = net(backend), fn.Muon(**options)
    peers = {n: torch.tensor(p.copy()) for n, p in model.named_parameters().items()}
    matrices, vectors = ([p for p in peers.values() if p.ndim == n] for n in (2, 1))
    decay = options.get("weight_decay", 0.1)
    both = (
        torch.optim.Muon(matrices, **options),
        torch.optim.AdamW(vectors, lr=options.get("lr", 1e-3), weight_decay=decay),
    )
    for given in draw(model, STEPS):
        set_gradients(model, given)
        optimizer.step(model)
        for n, p in peers.items():
            p.grad = torch.tensor(given[n])
        for one in both:
            one.step()
        for n, p in peers.items():
            got = model.named_parameters()[n]
            np.testing.assert_allclose(got, p.numpy(), rtol=1e-8, atol=1e-10, err_msg=n)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pytorchs_own_iterations_differ_by_their_rounding(backend, dtype):
    """To 3 per cent of the step: bfloat16 has 8 binary digits."""
    model = net(backend, dtype)
    before = {n: p.astype("d") for n, p in model.named_parameters().items() if p.ndim == 2}
    peers = {n: torch.tensor(w.copy()) for n, w in before.items()}
    peer = torch.optim.Muon(list(peers.values()), lr=0.1)
    (given,) = draw(model, 1, zeros=False)
    given = {n: np.sign(g) * np.minimum(np.abs(g), 3) for n, g in given.items()}
    set_gradients(model, given)
    fn.Muon(0.1).step(model)
    for n, p in peers.items():
        p.grad = torch.tensor(given[n])
    peer.step()
    for n, w in before.items():
        want, got = p_moved(peers[n].numpy(), w), p_moved(model.named_parameters()[n], w)
        assert np.linalg.norm(got - want) < 0.03 * np.linalg.norm(want), n


def p_moved(after, before):
    return np.asarray(after, "d") - before


def test_the_defaults_are_pytorchs():
    want, got = torch.optim.Muon([torch.zeros(1, 1)]).defaults, vars(fn.Muon())
    shared = got.keys() & want.keys()
    assert shared == want.keys()
    want["adjust_lr_fn"] = "original"  # what None means
    assert {n: got[n] for n in shared} == want


def test_a_group_that_is_not_orthogonal_is_adamws(backend):
    models = net(backend), net(backend)
    group = {"params": "*", "orthogonal": False, "lr": 0.02, "weight_decay": 0.3}
    optimizers = fn.Muon(groups=[group], betas=(0.8, 0.9)), fn.AdamW(0.02, (0.8, 0.9), 1e-8, 0.3)
    for given in draw(models[0], 20):
        for model, optimizer in zip(models, optimizers, strict=True):
            set_gradients(model, given)
            optimizer.step(model)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)


def test_singular_values_come_near_1(backend):
    model, optimizer = net(backend), fn.Muon(1.0, weight_decay=0.0)
    before = model.state_dict()["1.weight"].copy()
    (given,) = draw(model, 1, zeros=False)
    given["1.weight"] = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0]
    given["1.weight"] *= 10.0 ** np.arange(0, -1.75, -0.25)
    set_gradients(model, given)
    optimizer.step(model)
    values = np.linalg.svd(model.state_dict()["1.weight"] - before, compute_uv=False)
    assert values.min() > 0.5 and values.max() < 1.3


def test_what_helps_the_iterations_is_not_saved(backend):
    model, optimizer = net(backend), fn.Muon()
    (given,) = draw(model, 1)
    set_gradients(model, given)
    optimizer.step(model)
    assert {key.partition("/")[0] for key in optimizer.state_dict(model)} == {
        "steps",
        "since",
        "m",
        "v",
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_teams_give_the_same_bits(dtype, monkeypatch):
    """On the C backend; wide and tall matrices whose products are cut into parts."""
    if fn.backends()["c"].reason:
        pytest.skip("no C backend")
    monkeypatch.setattr(executor, "WORK_TO_SHARE", 0)
    x, y = np.random.default_rng(0).normal(size=(64, 330)), np.zeros((64, 203))
    found = set()
    for threads in (1, 2, 3):
        layers = fn.Linear(330, 416), fn.Tanh(), fn.Linear(416, 203)
        model = fn.Sequential(*layers, dtype=dtype, backend="c", seed=1)
        with fn.threads(threads):
            trainer = fn.Trainer(model, fn.MSELoss(), fn.Muon(0.01), seed=1)
            trainer.fit(x, y, epochs=2, batch_size=32, verbose=0)
        found.add(model.bind().segments["params"].tobytes())
    assert len(found) == 1
