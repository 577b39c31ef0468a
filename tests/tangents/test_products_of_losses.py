"""Curvatures of losses: those that no other package has, weights, blocks of rows, penalties."""

from __future__ import annotations

from typing import Any

import directions
import numpy as np
import pytest
from directions import close

import fastnet as fn
from fastnet.model import curvature

N, K = 13, 4
LABELS, T = np.arange(N) % K, np.random.default_rng(1).normal(size=(N, K))
SHARES = np.abs(T) / np.abs(T).sum(axis=1, keepdims=True)
V = np.array([0.3, 2.0, 0.5, 1.5])
IGNORING = {"ignore_index": 1}
# Losses and their targets; the last column tells whether they are convex in the outputs.
LOSSES: list[Any] = [
    (fn.CrossEntropyLoss, {}, LABELS, True),
    (fn.CrossEntropyLoss, {"weight": V, "label_smoothing": 0.3, **IGNORING}, LABELS, True),
    (fn.CrossEntropyLoss, {"weight": V, "label_smoothing": 0.3}, SHARES, True),
    (fn.MSELoss, {}, T, True),
    (fn.HalfMSELoss, {}, T, True),
    (fn.LogCoshLoss, {}, T, True),
    (fn.L1Loss, {}, T, True),
    (fn.PinballLoss, {"quantile": [0.1, 0.5, 0.7, 0.9]}, T, True),
    (fn.HuberLoss, {"delta": 0.7}, T, True),
    (fn.RBFLoss, {"beta": 1.3}, T, False),
    (fn.PoissonNLLLoss, {}, np.floor(2 * np.abs(T)), True),
    (fn.BCEWithLogitsLoss, {"pos_weight": V}, SHARES, True),
    *((fn.OneVsRestHingeLoss, {"p": p, "margin": 0.6, "weight": V}, LABELS, True) for p in (1, 2)),
    *((fn.MultiMarginLoss, {"p": p, "margin": 0.6, "weight": V}, LABELS, True) for p in (1, 2)),
    (fn.GaussianNLLLoss, {}, T[:, :2], False),
]
IDS = [f"{kind.__name__}-{number}" for number, (kind, *_) in enumerate(LOSSES)]
KINKED = fn.L1Loss, fn.PinballLoss, fn.HuberLoss, fn.OneVsRestHingeLoss, fn.MultiMarginLoss
losses = pytest.mark.parametrize(("kind", "options", "target", "convex"), LOSSES, ids=IDS)


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def net(backend: str, *last: Any, **options: Any) -> fn.Sequential:
    layers = fn.Linear(5, 6), fn.Tanh(), fn.Linear(6, K), *last
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=0, **options)


def inner(a: Any, b: Any) -> float:
    return sum(float((a[n] * b[n]).sum()) for n in a)


@losses
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss(backend, kind, options, target, convex, reduction, weighted):
    model = net(backend, *([fn.Softplus()] if kind is fn.GaussianNLLLoss else []))
    loss, x = kind(**options, reduction=reduction), normal(2, N, 5)
    w = np.arange(N) % 3 * 0.7 if weighted else None
    v, u = directions.direction(model, 4), directions.direction(model, 5)
    got = model.hvp(loss, x, target, v, sample_weight=w)
    step, tol = (2e-5, 1e-8) if kind in KINKED else (2e-3, 1e-9)  # so small that no kink is met
    close(got, directions.hessian_product(model, loss, x, target, v, w, step), tol)
    other = model.hvp(loss, x, target, u, sample_weight=w)
    assert inner(got, u) == pytest.approx(inner(other, v), rel=1e-10, abs=1e-12)
    flat = model.gnvp(loss, x, target, v, sample_weight=w)
    assert not convex or inner(flat, v) >= 0
    close(flat, by_outputs(model, loss, x, target, v, w, step), tol)


def by_outputs(model: Any, loss: Any, x: Any, target: Any, v: Any, w: Any, step: float) -> Any:
    """Jᵀ·H_L·J·v from forward mode, differences of the loss's own slopes, and backward."""
    y, moved = model.jvp(x, None, v)

    def slope(t: float) -> Any:
        loss.forward(y + t * moved, target, w)
        return loss.backward()

    curved = directions.slope(slope, step)
    model.zero_grad()
    model.forward(x)
    model.backward(curved)
    return {n: np.array(model.grads[n]) for n in v}


@losses
def test_blocks_of_rows_add_up(backend, kind, options, target, convex):
    model = net(backend, *([fn.Softplus()] if kind is fn.GaussianNLLLoss else []))
    x, w = normal(2, N, 5), np.arange(N) % 3 * 0.7
    v = directions.direction(model, 4)
    flat = np.concatenate([a.ravel() for a in v.values()])
    for reduction in ("mean", "sum"):
        loss = kind(**options, reduction=reduction)
        data = model.data(loss, x, target, "X", "y", w, by_rows=True)
        found = [
            curvature.Curvature(model, loss, data, rows=rows, kept=kept, gauss_newton=flatly)
            for flatly in (False, True)
            for rows in (N, 5)
            for kept in (False, True)
        ]
        products = [one.product(flat) for one in found]
        for k, product in enumerate(products):
            whole = products[k // 4 * 4]
            np.testing.assert_allclose(product, whole, rtol=0, atol=1e-12 * np.abs(whole).max())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ensembles(backend, reduction, training):
    """The mean of the members' losses in training, the loss of their average in evaluation."""
    loss = fn.EnsembleLoss(fn.CrossEntropyLoss([1, 2, 0.5], ignore_index=1, reduction=reduction))
    layers = fn.EnsembleView(3), fn.LinearBatchEnsemble(5, 6, 3, r_init=fn.init.Normal()), fn.SiLU()
    layers += fn.LinearEnsemble(6, 3, 3), fn.EnsembleMean(3, "probabilities")
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=0).train(training)
    x, labels, w = normal(0, N, 5), np.arange(N) % 3, np.arange(N) * 0.1
    v = directions.direction(model, 1)
    got = model.hvp(loss, x, labels, v, sample_weight=w)
    close(got, directions.hessian_product(model, loss, x, labels, v, w, 2e-3), 1e-9)
    assert inner(model.gnvp(loss, x, labels, v, sample_weight=w), v) >= 0


def test_hierarchical_softmax_is_cross_entropy_of_its_logits(backend):
    """A tree of one decision is a softmax: the Gauss–Newton matrix is that of its logits."""
    classes, found = 4, []
    x, labels = normal(0, N, 5), np.arange(N) % classes
    tree = [4, 4, 4, 4, -1]
    layers = fn.HierarchicalSoftmax(5, classes, tree=tree), fn.Linear(5, classes)
    losses = fn.HierarchicalSoftmaxLoss(ignore_index=2), fn.CrossEntropyLoss(ignore_index=2)
    for layer, loss in zip(layers, losses, strict=True):
        model = fn.Sequential(layer, dtype="float64", backend=backend, seed=0)
        with model.edit() as values:
            values["0.weight"][...] = normal(1, classes, 5)
            values["0.bias"][...] = normal(2, classes)
        v = directions.direction(model, 3)
        found.append([p(loss, x, labels, v) for p in (model.hvp, model.gnvp)])
    for a, b in zip(*found, strict=True):
        close(a, b, 1e-12)


def test_the_negative_log_likelihood_is_curved_in_the_logits(backend):
    """It is linear in log-probabilities."""
    models = net(backend, fn.LogSoftmax()), net(backend)
    x, v = normal(0, N, 5), directions.direction(models[0], 1)
    for name in ("hvp", "gnvp"):
        a = getattr(models[0], name)(fn.NLLLoss(V), x, LABELS, v)
        close(a, getattr(models[1], name)(fn.CrossEntropyLoss(V), x, LABELS, v), 1e-12)
    tree = net(backend, fn.HierarchicalSoftmax(K, K, tree=[5, 4, 4, 5, 5, -1]))
    v = directions.direction(tree, 1)
    for name in ("hvp", "gnvp"):
        a = getattr(tree, name)(fn.NLLLoss(), x, LABELS, v)
        close(a, getattr(tree, name)(fn.HierarchicalSoftmaxLoss(), x, LABELS, v), 1e-12)


def test_penalties(backend):
    """alpha/B times each weight, of the rows of all blocks together."""
    pytest.importorskip("sklearn")
    from fastnet.sklearn import objective

    model, x = net(backend), normal(0, N, 5)
    loss = objective._CrossEntropy(0.7)
    v = directions.direction(model, 1)
    got = model.hvp(loss, x, LABELS, v)
    close(got, directions.hessian_product(model, loss, x, LABELS, v, None, 2e-3), 1e-9)
    data = model.data(loss, x, LABELS, "X", "y", None, by_rows=True)
    flat = np.concatenate([a.ravel() for a in v.values()])
    products = [curvature.Curvature(model, loss, data, rows=r).product(flat) for r in (N, 4, 5)]
    for product in products[1:]:
        np.testing.assert_allclose(product, products[0], rtol=1e-12)


def test_sparse_rows(backend):
    sparse = pytest.importorskip("scipy.sparse")
    model, x = net(backend), normal(0, N, 5) * (normal(1, N, 5) > 0)
    v = directions.direction(model, 1)
    for product in (model.hvp, model.gnvp):
        want = product(fn.CrossEntropyLoss(), x, LABELS, v)
        close(product(fn.CrossEntropyLoss(), sparse.csr_matrix(x), LABELS, v), want, 1e-13)
    rows = sparse.csr_matrix(x)
    np.testing.assert_array_equal(model.jvp(rows, None, v)[1], model.jvp(x, None, v)[1])
