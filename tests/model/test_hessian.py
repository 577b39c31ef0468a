"""Whole Hessians and Gauss–Newton matrices."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError, UsageError
from fastnet.model import matrices


def vector(arrays):
    """Arrays by name as one vector in the order of a Hessian."""
    return np.concatenate([np.asarray(a).ravel() for a in arrays.values()])


def net(backend, *layers, dtype="float64"):
    middle = layers or (fn.Tanh(), fn.LayerNorm(6))
    return fn.Sequential(
        fn.Linear(4, 6), *middle, fn.Linear(6, 3), dtype=dtype, backend=backend, seed=3
    )


def data(rows=25, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 4)), rng.integers(0, 3, rows), rng.uniform(0.2, 2, rows)


@pytest.mark.parametrize("gauss_newton", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_its_columns_are_products(backend, gauss_newton, reduction):
    model, (x, y, w) = net(backend), data()
    loss = fn.CrossEntropyLoss(weight=[1.0, 2.0, 0.5], reduction=reduction)
    found = model.hessian(loss, x, y, sample_weight=w, gauss_newton=gauss_newton)
    assert found.dtype == np.float64 and np.array_equal(found, found.T)
    times = model.gnvp if gauss_newton else model.hvp
    rng = np.random.default_rng(1)
    v = {name: rng.normal(size=p.shape) for name, p in model.named_parameters().items()}
    expected = times(loss, x, y, v, sample_weight=w)
    np.testing.assert_allclose(found @ vector(v), vector(expected), rtol=1e-9, atol=1e-12)
    if gauss_newton:
        assert np.linalg.eigvalsh(found).min() > -1e-12 * found.max()


def test_it_is_the_slope_of_the_gradient(backend):
    model, (x, y, _) = net(backend), data()
    loss = fn.CrossEntropyLoss()
    found = model.hessian(loss, x, y)
    start = model.state_dict()
    for name, part in fn.curvature.slices(model).items():
        for i in range(part.start, part.stop, 5):
            ends = []
            for h in (1e-5, -1e-5):
                with model.edit() as p:
                    p[name].flat[i - part.start] += h
                model.value_and_grad(loss, x, y)
                ends.append(vector(model.grads))
                model.load_state_dict(start)
            slope = (ends[0] - ends[1]) / 2e-5
            np.testing.assert_allclose(found[i], slope, rtol=1e-6, atol=1e-8)


def test_slices_are_in_the_order_of_the_parameters():
    model = net("reference")
    found, begin = fn.curvature.slices(model), 0
    for name, p in model.named_parameters().items():
        assert found[name] == slice(begin, begin + p.size)
        begin += p.size
    assert list(found) == list(model.named_parameters())
    model.freeze("0.*")
    assert next(iter(fn.curvature.slices(model))) == "2.weight"
    with pytest.raises(HyperparameterError, match=r"^model is 3; expected a Sequential"):
        fn.curvature.slices(3)


def test_frozen_parameters_have_no_rows(backend):
    model, (x, y, _) = net(backend), data()
    whole, parts = model.hessian(fn.CrossEntropyLoss(), x, y), fn.curvature.slices(model)
    model.freeze("0.*")
    begin = parts["2.weight"].start
    found = model.hessian(fn.CrossEntropyLoss(), x, y)
    np.testing.assert_allclose(found, whole[begin:, begin:], rtol=1e-12, atol=1e-15)
    with pytest.raises(UsageError, match=r"no trainable parameters.*model\.unfreeze"):
        model.freeze().hessian(fn.CrossEntropyLoss(), x, y)


def test_blocks_of_rows_and_what_is_kept_make_no_difference(backend, monkeypatch):
    model, (x, y, w) = net(backend), data(rows=700)
    loss = fn.CrossEntropyLoss()
    whole = model.hessian(loss, x, y, sample_weight=w)
    monkeypatch.setattr("fastnet.model.curvature.WORKSPACE_BYTES", 1)
    for kept in (1 << 30, 0):
        monkeypatch.setattr("fastnet.model.curvature.KEPT_BYTES", kept)
        found = model.hessian(loss, x, y, sample_weight=w)
        np.testing.assert_allclose(found, whole, rtol=1e-10, atol=1e-13)
    monkeypatch.setattr(matrices, "TILE", 7)
    np.testing.assert_array_equal(model.hessian(loss, x, y, sample_weight=w), found)


def test_batch_statistics_are_of_all_rows(backend):
    model, (x, y, _) = net(backend, fn.BatchNorm1d(6), fn.Tanh()), data()
    loss, start = fn.CrossEntropyLoss(), model.state_dict()
    found = model.hessian(loss, x, y)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, start[name])
    v = {name: np.ones(p.shape) for name, p in model.named_parameters().items()}
    expected = vector(model.hvp(loss, x, y, v))
    np.testing.assert_allclose(found.sum(axis=1), expected, rtol=1e-9, atol=1e-12)


def test_float32_is_near(backend):
    (x, y, _), loss = data(), fn.CrossEntropyLoss()
    exact = net(backend).hessian(loss, x, y)
    model = net(backend, dtype="float32")
    model.load_state_dict(net(backend).state_dict())
    found = model.hessian(loss, x, y)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, exact, atol=2e-6 * np.abs(exact).max())


def test_a_matrix_that_is_too_large_is_refused(monkeypatch):
    model, (x, y, _) = net("reference"), data()
    monkeypatch.setattr(matrices, "MATRIX_BYTES", 8 * 40 * 40)
    with pytest.raises(UsageError, match=r"63 trainable.*at most 40: freeze some.*eigenvalues"):
        model.hessian(fn.CrossEntropyLoss(), x, y)
    with pytest.raises(UsageError, match=r"^eigenvalues: the model has 63 trainable parameters"):
        fn.curvature.eigenvalues(model, fn.CrossEntropyLoss(), x, y)


def test_bad_arguments():
    model, (x, y, _) = net("reference"), data()
    with pytest.raises(HyperparameterError, match=r"^gauss_newton is 1; expected True or False"):
        model.hessian(fn.CrossEntropyLoss(), x, y, gauss_newton=1)
    with pytest.raises(HyperparameterError, match=r"reduction='none'"):
        model.hessian(fn.CrossEntropyLoss(reduction="none"), x, y)
    with pytest.raises(UsageError, match=r"which Python computes"):
        model.hessian(lambda output, y: (0.0, output), x, y)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own calls
@pytest.mark.parametrize("middle", ["Tanh", "SiLU", "Softplus", "Sigmoid"])
@pytest.mark.parametrize("kind", ["CrossEntropyLoss", "MSELoss", "BCEWithLogitsLoss"])
def test_it_is_pytorchs(middle, kind):
    torch = pytest.importorskip("torch")
    model, (x, y, _) = net("reference", getattr(fn, middle)()), data()
    if kind != "CrossEntropyLoss":
        y = np.eye(3)[y]
    module, given, target = model.to_torch(), torch.from_numpy(x), torch.from_numpy(y)
    parameters = {n: p.detach() for n, p in module.named_parameters()}

    def loss_at(p):
        output = torch.func.functional_call(module, p, (given,))
        return getattr(torch.nn, kind)()(output, target)

    expected = torch.func.hessian(loss_at)(parameters)
    found, parts = model.hessian(getattr(fn, kind)(), x, y), fn.curvature.slices(model)
    for a, of_a in expected.items():
        for b, block in of_a.items():
            mine = found[parts[a], parts[b]]
            np.testing.assert_allclose(
                mine, block.numpy().reshape(mine.shape), rtol=1e-9, atol=1e-12
            )
