"""The L2 penalty as part of a loss: value and gradient, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.losses.penalty import penalized

RNG = np.random.default_rng(4)


class Penalized(fn.CrossEntropyLoss):
    """Cross-entropy with a penalty of 1.5."""

    def emit(self, g, output, target, weight=None, *, by_rows=False):
        loss = super().emit(g, output, target, weight, by_rows=by_rows)
        return penalized(g, loss, 1.5)


def net(backend, dtype="float64"):
    layers = fn.Linear(4, 6), fn.Tanh(), fn.BatchNorm1d(6), fn.Linear(6, 3)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=3)


@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_has_the_squares_of_all_matrices(backend, rows, weighted):
    x, y = RNG.normal(size=(rows, 4)), RNG.integers(0, 3, rows)
    w = RNG.uniform(0.5, 2, rows) if weighted else None
    model = net(backend).eval()
    value = model.value_and_grad(Penalized(), x, y, sample_weight=w)
    penalized_gradients = {n: g.copy() for n, g in model.grads.items()}
    model.zero_grad()
    plain = model.value_and_grad(fn.CrossEntropyLoss(), x, y, sample_weight=w)
    for name, p in model.named_parameters().items():
        more = 1.5 / rows * p if p.ndim == 2 else 0 * p
        np.testing.assert_allclose(penalized_gradients[name], model.grads[name] + more, atol=1e-14)
    squares = sum((p**2).sum() for p in model.named_parameters().values() if p.ndim == 2)
    assert value == pytest.approx(plain + 1.5 / (2 * rows) * squares, rel=1e-13)


def test_frozen_matrices_have_no_penalty_and_training_reports_it(backend):
    x, y = RNG.normal(size=(20, 4)), RNG.integers(0, 3, 20)
    model = net(backend)
    model.freeze("0.weight")
    squares = (model.named_parameters()["3.weight"] ** 2).sum()
    trainer = fn.Trainer(model, Penalized(), fn.SGD(lr=0.0), seed=1)
    twin = fn.Trainer(net(backend), fn.CrossEntropyLoss(), fn.SGD(lr=0.0), seed=1)
    mine = trainer.fit(x, y, 1, 20, verbose=0).records[0]["loss"]
    plain = twin.fit(x, y, 1, 20, verbose=0).records[0]["loss"]
    assert mine == pytest.approx(plain + 1.5 / 40 * squares, rel=1e-12)


def test_steps_do_not_add_up(backend):
    x, y = RNG.normal(size=(20, 4)), RNG.integers(0, 3, 20)
    ends = []
    for loss, decay in ((Penalized(), 0.0), (fn.CrossEntropyLoss(), 1.5 / 20)):
        model = net(backend)
        optimizer = fn.SGD(lr=0.1, weight_decay=decay, decay_biases_and_norms=False)
        fn.Trainer(model, loss, optimizer, seed=1).fit(x, y, 5, 20, verbose=0)
        ends.append(model.state_dict())
    for name in ends[0]:
        np.testing.assert_allclose(ends[0][name], ends[1][name], rtol=1e-10, atol=1e-12)


def test_outside_a_model_the_loss_is_as_it_was():
    y, t = RNG.normal(size=(5, 3)), RNG.integers(0, 3, 5)
    assert Penalized().forward(y, t) == fn.CrossEntropyLoss().forward(y, t)
