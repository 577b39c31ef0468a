"""Newton's methods with exact products: what they reach, and what they keep over the products."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.model.curvature import Curvature

DECAY = 1e-3


def data():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(500, 4)), rng.normal(size=(4, 3))
    return x, np.tanh(x @ w / 2) @ rng.normal(size=(3, 1)) + 0.1 * rng.normal(size=(500, 1))


def net(dtype, backend):
    layers = fn.Linear(4, 6), fn.Tanh(), fn.Linear(6, 1)
    return fn.Sequential(*layers, dtype=dtype, seed=1, backend=backend)


def fit(model, method="Newton-CG", **options):
    x, y = data()
    trainer = fn.Trainer(model, fn.MSELoss(), seed=0)
    return trainer.fit_full_batch(x, y, method, weight_decay=DECAY, **options)


def objective(model):
    """The loss with the weight decay, in float64."""
    x, y = data()
    twin = net("float64", "reference")
    twin.load_state_dict({n: v.astype("float64") for n, v in model.state_dict().items()})
    decayed = sum(np.sum(p**2) for p in twin.named_parameters().values() if p.ndim > 1)
    return np.mean((twin.predict(x) - y) ** 2) + 0.5 * DECAY * decayed


@pytest.mark.parametrize("method", ["Newton-CG", "trust-ncg", "trust-krylov"])
def test_float32_reaches_the_optimum_of_float64(backend, method):
    pytest.importorskip("scipy")
    near = net("float64", backend)
    fit(near, "BFGS", max_iter=60)
    reached = {}
    for dtype, tol in (("float64", 1e-10), ("float32", 1e-7)):
        model = net(dtype, backend)
        model.load_state_dict(near.state_dict())
        fit(model, method, max_iter=100, tol=tol)
        reached[dtype] = objective(model)
    assert reached["float32"] == pytest.approx(reached["float64"], rel=1e-5)


@pytest.mark.parametrize("method", ["Newton-CG", "trust-ncg", "hessian-free"])
def test_an_iterate_is_linearized_once_for_all_products(backend, method, monkeypatch):
    pytest.importorskip("scipy")
    counts = {"linearize": 0, "product": 0}

    def counted(name, own):
        def call(self, *given):
            counts[name] += 1
            return own(self, *given)

        return call

    for name in counts:
        monkeypatch.setattr(Curvature, name, counted(name, getattr(Curvature, name)))
    history = fit(net("float64", backend), method, max_iter=10)
    assert counts["linearize"] <= len(history) < counts["product"]
    assert history.records[-1]["evaluations"] < counts["product"]
