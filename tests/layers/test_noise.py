"""Layers that draw: their distributions, and that draws are the same everywhere and in both directions."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastnet as fn
from fastnet import random
from fastnet.layers.noise import noisy_relu

SEED, STREAM, STEP = 2**63 + 12345, 3, 2**33 + 7


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def transcribed(x, z):
    """The paper's max(0, x + N(0, σ(x))), and the derivative of it for a given normal number z."""
    s = sigmoid(x)
    y = np.maximum(0, x + np.sqrt(s) * z)
    return y, (y > 0) * (1 + z * s * (1 - s) / (2 * np.sqrt(s)))


def test_the_reference_is_the_papers():
    special = pytest.importorskip("scipy.special")
    x = np.random.default_rng(0).normal(size=(40, 33)) * 3
    tail = random.tails(x.size, SEED, STREAM, STEP).reshape(x.shape)
    y, slope = transcribed(x, -np.sign(tail) * special.ndtri(np.abs(tail)))
    got, dx = np.empty_like(x), np.empty_like(x)
    noisy_relu.kernels["forward"].function(got, x, SEED, STREAM, STEP)
    np.testing.assert_allclose(got, y, rtol=1e-12, atol=1e-14)
    noisy_relu.kernels["vjp"].function(dx, np.full_like(x, 3.0), x, got)
    np.testing.assert_allclose(dx, 3 * slope, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("x", [-1.0, -0.5, 0.0, 1.0, 4.0])
def test_moments(backend, dtype, x):
    """Of 10⁵ draws: E y = xΦ(x/s) + s·φ(x/s) and E y² = (x² + s²)Φ(x/s) + x·s·φ(x/s) with s² = σ(x)."""
    model = fn.Sequential(fn.NoisyReLU(), dtype=dtype, backend=backend, seed=1)
    y = model.forward(np.full((1000, 100), x)).astype(float)
    s = math.sqrt(sigmoid(x))
    below = 0.5 * (1 + math.erf(x / s / math.sqrt(2)))
    density = math.exp(-((x / s) ** 2) / 2) / math.sqrt(2 * math.pi)
    for power, want in [
        (1, x * below + s * density),
        (2, (x * x + s * s) * below + x * s * density),
    ]:
        bound = 5 * (y**power).std() / math.sqrt(y.size)
        assert abs((y**power).mean() - want) < bound
    assert (y >= 0).all()


def test_the_noise_is_normal():
    """Where nothing is cut off: 10⁶ draws, and the tail."""
    z = random.normal_of_tail(random.tails(10**6, 1, 2, 3))
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((z**power).mean() - mean) < 5 * math.sqrt(variance / z.size)
    for bound in (1, 2, 3, 4):
        share = math.erfc(bound / math.sqrt(2))
        assert abs((np.abs(z) > bound).mean() - share) < 5 * math.sqrt(share / z.size)


def test_tails_and_their_normal_numbers():
    special = pytest.importorskip("scipy.special")
    t = np.array([2.0**-33, 1e-9, 1e-6, 1e-3, 0.0749, 0.0751, 0.25, 0.49, 0.5 - 2.0**-33])
    z = random.normal_of_tail(np.concatenate([t, -t]))
    np.testing.assert_allclose(z[: t.size], -special.ndtri(t), rtol=1e-13, atol=1e-16)
    np.testing.assert_array_equal(z[t.size :], -z[: t.size])
    u = random.tails(10**5, 1, 2)
    assert np.abs(u).min() > 0 and np.abs(u).max() < 0.5
    for power, mean, variance in [(1, 0, 1 / 12), (2, 1 / 12, 1 / 180)]:
        assert abs((u**power).mean() - mean) < 5 * math.sqrt(variance / u.size)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 21), (5, 64), (33, 67)])
def test_every_backend_draws_the_same(backend, dtype, shape):
    x = np.random.default_rng(0).normal(size=shape)
    dy = np.random.default_rng(1).normal(size=shape)
    tol = {"float32": 2e-6, "float64": 4e-15}[dtype]
    found = []
    for name, kind in ((backend, dtype), ("reference", "float64")):
        model = fn.Sequential(fn.Tanh(), fn.NoisyReLU(), dtype=kind, backend=name, seed=SEED)
        found.append([a for _ in range(3) for a in (model.forward(x), model.backward(dy))])
    for got, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=tol * 4)
    assert not np.array_equal(found[1][0], found[1][2])  # another step, other noise


def test_layers_draw_apart_and_not_dropouts_numbers():
    kinds = random.NOISE, random.DROPOUT
    streams = [random.stream_of(kind, index) for kind in kinds for index in (0, 1)]
    draws = [tuple(random.words(4, SEED, stream)) for stream in streams]
    assert len(set(draws)) == 4
    x = np.ones((2, 40))
    model = fn.Sequential(fn.Identity(), fn.NoisyReLU(), seed=SEED, dtype="float64")
    alone = fn.Sequential(fn.NoisyReLU(), seed=SEED, dtype="float64")
    assert not np.array_equal(model.forward(x), alone.forward(x))


def test_it_is_relu_in_evaluation(backend):
    x = np.random.default_rng(0).normal(size=(5, 7)).astype("f")
    model = fn.Sequential(fn.NoisyReLU(), backend=backend, seed=0)
    np.testing.assert_array_equal(model.predict(x), np.maximum(x, 0))
    assert not np.array_equal(model.forward(x), np.maximum(x, 0))
    np.testing.assert_array_equal(model.eval().forward(x), np.maximum(x, 0))
    np.testing.assert_array_equal(model.backward(np.ones_like(x)), x > 0)


def test_alone():
    layer, x = fn.NoisyReLU(), np.ones((4, 50))
    layer.reset_parameters(seed=3)
    first, second = layer.forward(x), layer.forward(x)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(layer.backward(x) > 0, second > 0)
    assert repr(layer) == "NoisyReLU()"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_inputs(backend, dtype):
    """The noise of a unit that is far below 0 vanishes; NaN stays NaN."""
    model = fn.Sequential(fn.Linear(1, 4), fn.NoisyReLU(), dtype=dtype, backend=backend, seed=0)
    with model.edit() as values:
        values["0.bias"][...] = -1e30, -200, 1e30, np.nan
        values["0.weight"][...] = 0
    y, dx = model.forward(np.ones((9, 1))), None
    np.testing.assert_array_equal(y[:, :3], np.tile(np.array([0, 0, 1e30], dtype), (9, 1)))
    assert np.isnan(y[:, 3]).all()
    model.zero_grad()
    dx = model.backward(np.ones((9, 4)))
    assert np.isfinite(model.grads["0.bias"][:3]).all() and dx.shape == (9, 1)
    np.testing.assert_array_equal(model.grads["0.bias"][:3], [0, 0, 9])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gaussian_noise_is_added_in_training_alone(backend, dtype):
    """The normal numbers of the layer's stream; the gradient passes through."""
    x = np.random.default_rng(0).normal(size=(300, 37)).astype(dtype)
    model = fn.Sequential(fn.Tanh(), fn.GaussianNoise(0.5), dtype=dtype, backend=backend, seed=7)
    stream = random.stream_of(random.NOISE, 1)
    for step in range(2):
        z = random.normal_of_tail(random.tails(x.size, 7, stream, step)).reshape(x.shape)
        y = model.forward(x)
        np.testing.assert_allclose(
            y, np.tanh(x) + 0.5 * z, atol=1e-5 if dtype == "float32" else 1e-12
        )
        dx = model.backward(np.ones_like(x))
        np.testing.assert_allclose(dx, 1 - np.tanh(x) ** 2, atol=1e-6)
    np.testing.assert_array_equal(model.predict(x), model.eval().forward(x))
    np.testing.assert_allclose(model.forward(x), np.tanh(x), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.95])
def test_alpha_dropout_keeps_mean_and_variance(backend, dtype, p):
    """Of 10⁶ normal inputs; it keeps the elements that dropout in its place keeps."""
    x = np.random.default_rng(3).normal(size=(1000, 1000)).astype(dtype)
    y = fn.Sequential(fn.AlphaDropout(p), dtype=dtype, backend=backend, seed=2).forward(x)
    assert abs(y.mean()) < 0.01 and abs(y.var() - 1) < 0.03
    mask = fn.Sequential(fn.Dropout(p), dtype=dtype, backend=backend, seed=2).forward(x + 99) == 0
    assert len(np.unique(y[mask])) == 1
    a = 1 / math.sqrt((1 - p) * (1 + p * 1.7580993408473766**2))
    np.testing.assert_allclose(y[~mask], a * x[~mask] + a * p * 1.7580993408473766, atol=1e-5)


def test_selu_stays_normal_under_alpha_dropout(backend):
    """Thirty layers deep."""
    layers: list[fn.Layer] = []
    for _ in range(30):
        linear = fn.Linear(100, 100, weight_init=fn.init.LecunNormal(), bias_init=fn.init.Zeros())
        layers += [linear, fn.SELU(), fn.AlphaDropout(0.1)]
    model = fn.Sequential(*layers, backend=backend, seed=3)
    y = model.forward(np.random.default_rng(0).normal(size=(500, 100)).astype("float32"))
    assert abs(y.mean()) < 0.2 and 0.7 < y.var() < 1.4


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_alpha_dropout_where_nothing_is_drawn(backend, p):
    x = np.array([[1.0, -2.0, 3e30]], "float32")
    model = fn.Sequential(fn.AlphaDropout(p), backend=backend, seed=2)
    np.testing.assert_array_equal(model.forward(x), (1 - p) * x)
    np.testing.assert_array_equal(model.backward(x), (1 - p) * x)
    np.testing.assert_array_equal(model.predict(x), x)
