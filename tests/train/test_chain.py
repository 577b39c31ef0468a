"""A new pass around an optimizer's is an op, and a line where it is placed; its memory comes by itself."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

import fastnet as fn
from fastnet.formulas.language import Real, each, madd
from fastnet.op import Op
from fastnet.train.chain import Chain, Pass

X = np.random.default_rng(0).normal(size=(24, 3))
Y = np.random.default_rng(1).normal(size=(24, 2))


@pytest.fixture
def heavy_ball(passing_ops):
    """g ← pull·seen + g, seen ← that: a pass with a vector and a number of its own."""

    class HeavyBall(Op):
        state: ClassVar = {"seen": "N", "g": "N"}
        dims = ("N",)
        hyper = ("pull",)

        @each
        def update(seen: Real, g: Real, pull: float) -> tuple[Real, Real]:
            """Gradients pile up."""
            piled = madd(pull, seen, g)
            return piled, piled

    return HeavyBall


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1e9, "averaging": fn.EMA(0.5)}])
def test_a_pass_of_ones_own(backend, heavy_ball, monkeypatch, options):
    if backend in ("c", "cuda"):
        pytest.skip("its kernels come with the package")
    places = Chain._passes

    def passes(self, span):
        before, after = places(self, span)
        return [*before, Pass(heavy_ball, pull=0.5)], after

    def fit(optimizer):
        layers = fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2)
        model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=1)
        trainer = fn.Trainer(model, fn.MSELoss(), optimizer, seed=2, **options)
        trainer.fit(X, Y, epochs=3, batch_size=5, verbose=0)
        return model.parameters()

    want = fit(fn.SGD(0.1, momentum=0.5))
    plain = fit(fn.SGD(0.1))
    monkeypatch.setattr(Chain, "_passes", passes)
    got = fit(fn.SGD(0.1))
    for ours, theirs, other in zip(got, want, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
        assert np.abs(ours - other).max() > 1e-4


def test_memory_grows_and_keeps_what_it_has(backend):
    """A fit with an average, then one that sums gradients too: the average goes on."""
    averages = []
    for several in (1, 2):
        model = fn.Sequential(fn.Linear(3, 2), dtype="float64", backend=backend, seed=1)
        trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(0.1), averaging=fn.EMA(0.9), seed=2)
        trainer.fit(X, Y, epochs=2, batch_size=4, verbose=0)
        before = trainer.averaged_model().parameters()
        with model.edit() as values:
            for value in values.values():
                value[...] = 0
        trainer.optimizer.lr = 0.0
        trainer.fit(X, Y, epochs=1, batch_size=24, accumulation_steps=several, verbose=0)
        after = trainer.averaged_model().parameters()
        averages.append(after)
        for old, new in zip(before, after, strict=True):
            np.testing.assert_allclose(new, 0.9 * old, rtol=1e-12)
    for one, other in zip(*averages, strict=True):
        np.testing.assert_array_equal(one, other)
