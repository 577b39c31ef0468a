"""Periodic: its columns, phases, and angles of many turns."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import ShapeError

RNG = np.random.default_rng(0)


def test_columns_are_cosines_and_sines_of_each_feature(backend):
    model = fn.Sequential(fn.Periodic(3, 5, sigma=0.7), dtype="float64", backend=backend, seed=1)
    x = RNG.normal(size=(9, 3))
    z = 2 * np.pi * x[:, :, None] * model[0].weight
    want = np.concatenate([np.cos(z), np.sin(z)], axis=2).reshape(9, 30)
    np.testing.assert_allclose(model.predict(x), want, rtol=0, atol=1e-14)
    assert model.output_shape((3,)) == (30,)


def test_with_phases(backend):
    layer = fn.Periodic(3, 5, phases=True)
    model = fn.Sequential(layer, dtype="float64", backend=backend, seed=1)
    x = RNG.normal(size=(9, 3))
    z = 2 * np.pi * x[:, :, None] * layer.weight + layer.bias.reshape(3, 5)
    np.testing.assert_allclose(model.predict(x), np.cos(z).reshape(9, 15), rtol=0, atol=1e-14)


def test_initial_frequencies_and_phases():
    layer = fn.Periodic(20, 500, sigma=3.0, phases=True)
    layer.reset_parameters(seed=2)
    assert layer.weight.shape == (20, 500) and layer.bias.shape == (10_000,)
    assert layer.weight.std() == pytest.approx(3, rel=0.03)
    assert -np.pi <= layer.bias.min() < -3.1 and 3.1 < layer.bias.max() <= np.pi


@pytest.mark.parametrize("turns", [1, 100, 1e4])
def test_many_turns_lose_nothing_in_float32(backend, turns):
    """Results of the rounded inputs in float64, to 1e-6; 2π·w·x in float32 is off by turns·4e-7."""
    if backend == "reference":
        pytest.skip("it multiplies in float32")
    model = fn.Sequential(fn.Periodic(4, 8), backend=backend, seed=3)
    x = (turns * RNG.normal(size=(50, 4))).astype("f")
    exact = x[:, :, None].astype("d") * model[0].weight
    z = 2 * np.pi * (exact - np.rint(exact))
    want = np.concatenate([np.cos(z), np.sin(z)], axis=2).reshape(50, 64)
    np.testing.assert_allclose(model.predict(x), want, rtol=0, atol=1e-6)


def test_huge_inputs_give_finite_results(backend):
    model = fn.Sequential(fn.Periodic(1, 4, phases=True), backend=backend, seed=3)
    got = model.predict(np.array([[1e30], [-1e38], [3e7]], "f"))
    assert (np.abs(got) <= 1).all()


def test_another_width_is_refused():
    message = r"^layer 0 \(Periodic\): rows of shape \(4,\) came, expected in_features = 3$"
    refused(lambda: fn.Sequential(fn.Periodic(3, 2)).output_shape((4,)), ShapeError, message)


def test_training_finds_a_wave(backend):
    x = RNG.uniform(-1, 1, size=(400, 1))
    y = np.sin(2 * np.pi * 1.7 * x + 0.4)
    layers = fn.Periodic(1, 16), fn.Linear(32, 1)
    model = fn.Sequential(*layers, backend=backend, seed=1)
    trainer = fn.Trainer(model, fn.MSELoss(), fn.Adam(0.01), seed=1)
    trainer.fit(x, y, epochs=60, verbose=0)
    assert trainer.history.records[-1]["loss"] < 1e-3
