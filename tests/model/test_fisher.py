"""Diagonals of Fisher matrices."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import DivergenceError, HyperparameterError, UsageError


def net(backend, *layers, dtype="float64", outputs=3):
    middle = layers or (fn.Tanh(), fn.LayerNorm(6))
    return fn.Sequential(
        fn.Linear(4, 6), *middle, fn.Linear(6, outputs), dtype=dtype, backend=backend, seed=3
    )


def data(kind, rows=25):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows, 4)), rng.integers(0, 3, rows)
    if kind is fn.BCEWithLogitsLoss:
        y = rng.integers(0, 2, (rows, 3)).astype(float)
    elif kind in (fn.MSELoss, fn.HalfMSELoss, fn.L1Loss):
        y = rng.normal(size=(rows, 3))
    return x, y, rng.integers(0, 3, rows).astype(float)


def each(model, loss, x, y):
    """The gradient of each row's loss, by value_and_grad of minibatches of one row."""
    found = []
    for i in range(len(x)):
        model.value_and_grad(loss, x[i : i + 1], y[i : i + 1])
        found.append({name: g.copy() for name, g in model.grads.items()})
    return found


KINDS = [fn.CrossEntropyLoss, fn.MSELoss, fn.BCEWithLogitsLoss, fn.L1Loss]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_mean_of_squared_gradients_of_rows(backend, kind, reduction):
    model, (x, y, w) = net(backend), data(kind, rows=300)
    loss = kind(reduction=reduction)
    gradients = each(model, loss, x, y)
    found = model.fisher_diagonal(loss, x, y)
    weighted = model.fisher_diagonal(loss, x, y, sample_weight=w)
    assert list(found) == list(model.named_parameters())
    for name in found:
        squares = np.stack([g[name] ** 2 for g in gradients])
        mean = squares.sum(axis=0) / (300 if reduction == "mean" else 1)
        np.testing.assert_allclose(found[name], mean, rtol=1e-9, atol=1e-14)
        mean = np.tensordot(w, squares, 1) / (w.sum() if reduction == "mean" else 1)
        np.testing.assert_allclose(weighted[name], mean, rtol=1e-9, atol=1e-14)


def test_ignored_rows_and_weights_of_classes(backend):
    model, (x, y, _) = net(backend), data(fn.CrossEntropyLoss)
    y[::3] = -100
    weight = np.array([0.5, 2.0, 1.0])
    loss, plain = fn.CrossEntropyLoss(weight=weight), fn.CrossEntropyLoss(reduction="sum")
    kept = y >= 0
    gradients, v = each(model, plain, x[kept], y[kept]), weight[y[kept]]
    found = model.fisher_diagonal(loss, x, y)
    for name in found:
        squares = np.stack([(c * g[name]) ** 2 for c, g in zip(v, gradients, strict=True)])
        expected = squares.sum(axis=0) / v.sum()
        np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    "kind", [fn.CrossEntropyLoss, fn.MSELoss, fn.HalfMSELoss, fn.BCEWithLogitsLoss]
)
def test_with_the_models_labels_it_is_the_gauss_newton_matrixs(backend, kind, reduction):
    model, (x, y, w) = net(backend), data(kind)
    loss = kind(reduction=reduction)
    whole = model.hessian(loss, x, y, sample_weight=w, gauss_newton=True)
    found = model.fisher_diagonal(loss, x, y, sample_weight=w, labels="model")
    factor = 3 if kind is fn.BCEWithLogitsLoss and reduction == "mean" else 1
    flat = np.concatenate([f.ravel() for f in found.values()])
    np.testing.assert_allclose(flat * factor, np.diag(whole), rtol=1e-9, atol=1e-14)


def test_with_the_models_labels_it_is_an_expectation(backend):
    model, (x, y, _) = net(backend, fn.Tanh()), data(fn.CrossEntropyLoss)
    loss = fn.CrossEntropyLoss(label_smoothing=0.1, weight=[1.0, 2.0, 3.0], reduction="sum")
    logits = model.predict(x)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = model.fisher_diagonal(loss, x, y, labels="model")
    total = dict.fromkeys(found, 0.0)
    for c in range(3):
        for q, g in zip(p[:, c], each(model, loss, x, np.full(len(x), c)), strict=True):
            total = {name: total[name] + q * g[name] ** 2 for name in total}
    for name in found:
        np.testing.assert_allclose(found[name], total[name], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("probabilities", ["NLLLoss", "BCELoss"])
def test_losses_of_probabilities_are_as_those_of_logits(backend, probabilities):
    last, logits = fn.LogSoftmax(), fn.CrossEntropyLoss
    if probabilities == "BCELoss":
        last, logits = fn.Sigmoid(), fn.BCEWithLogitsLoss
    model, (x, y, _) = net(backend, fn.Tanh()), data(logits)
    ended = fn.Sequential(*net(backend, fn.Tanh()), last, dtype="float64", backend=backend)
    ended.load_state_dict(model.state_dict())
    for labels in ("data", "model"):
        found = ended.fisher_diagonal(getattr(fn, probabilities)(), x, y, labels=labels)
        expected = model.fisher_diagonal(logits(), x, y, labels=labels)
        for name in found:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-12)


def test_frozen_parameters_and_float32(backend):
    model, (x, y, _) = net(backend), data(fn.CrossEntropyLoss)
    exact = model.fisher_diagonal(fn.CrossEntropyLoss(), x, y)
    other = net(backend, dtype="float32")
    other.load_state_dict(model.state_dict())
    other.freeze("0.*")
    found = other.fisher_diagonal(fn.CrossEntropyLoss(), x, y)
    assert list(found) == [name for name in exact if not name.startswith("0.")]
    for name, value in found.items():
        assert value.dtype == np.float64
        np.testing.assert_allclose(value, exact[name], rtol=1e-4, atol=1e-7)


def test_nothing_changes(backend):
    model, (x, y, _) = net(backend, fn.BatchNorm1d(6)), data(fn.CrossEntropyLoss)
    loss = fn.CrossEntropyLoss()
    model.value_and_grad(loss, x, y)
    model.eval()
    gradients, state = {n: g.copy() for n, g in model.grads.items()}, model.state_dict()
    version = model.version
    for labels in ("data", "model"):
        model.fisher_diagonal(loss, x, y, labels=labels)
    for name, g in model.grads.items():
        np.testing.assert_array_equal(g, gradients[name])
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    assert model.version == version and not model.training


@pytest.mark.parametrize("layers", ["BatchNorm1d", "Dropout, LayerNorm"])
def test_rows_that_depend_on_others_are_refused(layers):
    made = [fn.BatchNorm1d(6)] if layers == "BatchNorm1d" else [fn.Dropout(0.5), fn.LayerNorm(6)]
    model = net("reference", *made)
    x, y, _ = data(fn.CrossEntropyLoss)
    with pytest.raises(UsageError, match=r"by model\.eval\(\)"):
        model.fisher_diagonal(fn.CrossEntropyLoss(), x, y)
    model.eval().fisher_diagonal(fn.CrossEntropyLoss(), x, y)


def test_dropout_draws_what_the_next_forward_draws(backend):
    """Two rows, of which the gradients of single ones are those where the other has no weight."""
    model, loss = net(backend, fn.Tanh(), fn.Dropout(0.5)), fn.CrossEntropyLoss(reduction="sum")
    x, y, _ = data(fn.CrossEntropyLoss, rows=2)
    found, total = model.fisher_diagonal(loss, x, y), 0.0
    for i in range(2):
        alike = net(backend, fn.Tanh(), fn.Dropout(0.5))
        alike.value_and_grad(loss, x, y, sample_weight=np.eye(2)[i])
        total = {n: np.square(g) + (total[n] if i else 0) for n, g in alike.grads.items()}
    for name, value in found.items():
        np.testing.assert_allclose(value, total[name], rtol=1e-9, atol=1e-14)


def test_bad_arguments():
    model, (x, y, _) = net("reference"), data(fn.CrossEntropyLoss)
    with pytest.raises(
        HyperparameterError, match=r"^labels is 'true'; expected one of 'data', 'mo"
    ):
        model.fisher_diagonal(fn.CrossEntropyLoss(), x, y, labels="true")
    with pytest.raises(HyperparameterError, match=r"L1Loss tells no distribution.*labels='data'"):
        model.fisher_diagonal(fn.L1Loss(), x, np.eye(3)[y], labels="model")
    with pytest.raises(UsageError, match=r"which Python computes"):
        model.fisher_diagonal(lambda output, y: (0.0, output), x, y)
    with pytest.raises(DivergenceError, match=r"gradient of a row is not finite"):
        model.fisher_diagonal(fn.MSELoss(), 1e200 * x, 1e300 * np.eye(3)[y])


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own calls
@pytest.mark.parametrize("kind", ["CrossEntropyLoss", "MSELoss", "BCEWithLogitsLoss", "L1Loss"])
def test_it_is_pytorchs_by_rows(kind):
    torch = pytest.importorskip("torch")
    model, (x, y, _) = net("reference"), data(getattr(fn, kind))
    module, given, target = model.to_torch(), torch.from_numpy(x), torch.from_numpy(y)
    parameters = {n: p.detach() for n, p in module.named_parameters()}

    def loss_at(p, row, t):
        output = torch.func.functional_call(module, p, (row[None],))
        return getattr(torch.nn, kind)()(output, t[None])

    rows = torch.vmap(torch.func.grad(loss_at), (None, 0, 0))(parameters, given, target)
    found = model.fisher_diagonal(getattr(fn, kind)(), x, y)
    for name, g in rows.items():
        np.testing.assert_allclose(
            found[name], (g.numpy() ** 2).mean(axis=0), rtol=1e-9, atol=1e-14
        )
