"""Eigenvalues and traces of Hessians."""

from __future__ import annotations

import numpy as np
import pytest
from missing import hide

import fastnet as fn
from fastnet.errors import DivergenceError, HyperparameterError, MissingExtra, UsageError

LOSS = fn.CrossEntropyLoss()


def net(backend="reference", hidden=8, dtype="float64"):
    layers = fn.Linear(5, hidden), fn.Tanh(), fn.LayerNorm(hidden), fn.Linear(hidden, 3)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=3)


def data(rows=40):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 5)), rng.integers(0, 3, rows), rng.uniform(0.2, 2, rows)


def vector(arrays):
    return np.concatenate([np.asarray(a).ravel() for a in arrays.values()])


CHOSEN = {
    "largest": lambda w, k: w[len(w) - k :],
    "smallest": lambda w, k: w[:k],
    "both": lambda w, k: np.concatenate([w[: k // 2], w[len(w) - (k - k // 2) :]]),
    "magnitude": lambda w, k: np.sort(w[np.argsort(abs(w))[len(w) - k :]]),
}


def compare(model, which, k, **given):
    x, y, w = data()
    given["sample_weight"] = w
    whole = np.linalg.eigvalsh(model.hessian(LOSS, x, y, **given))
    found = fn.curvature.eigenvalues(model, LOSS, x, y, k, which, **given)
    np.testing.assert_allclose(found.values, CHOSEN[which](whole, k), atol=1e-6 * abs(whole).max())
    times = model.gnvp if given.get("gauss_newton") else model.hvp
    assert len(found.vectors) == k
    for value, v in zip(found.values, found.vectors, strict=True):
        assert list(v) == list(model.named_parameters())
        assert vector(v) @ vector(v) == pytest.approx(1)
        product = vector(times(LOSS, x, y, v, sample_weight=w))
        np.testing.assert_allclose(product, value * vector(v), atol=1e-5 * abs(whole).max())
    assert repr(found).startswith(f"<Eigen of {k} values: ")


@pytest.mark.parametrize("which", CHOSEN)
def test_they_are_those_of_the_whole_matrix(backend, which):
    pytest.importorskip("scipy")
    compare(net(backend), which, 3)


@pytest.mark.parametrize("which", CHOSEN)
def test_so_are_those_of_few_parameters(which):
    compare(net(hidden=3), which, 5)


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_so_are_those_of_gauss_newton_matrices_whose_rank_is_low(which):
    pytest.importorskip("scipy")
    compare(net(), which, 2, gauss_newton=True)


def test_a_loss_without_curvature():
    pytest.importorskip("scipy")
    model, (x, _, _) = fn.Sequential(fn.Linear(5, 20), backend="reference", seed=0), data()
    found = fn.curvature.eigenvalues(model, fn.L1Loss(), x, np.zeros((40, 20)), 2)
    np.testing.assert_array_equal(found.values, [0, 0])
    assert vector(found.vectors[1]).sum() == 1


def test_one_is_the_largest_and_all_are_all():
    pytest.importorskip("scipy")
    model, (x, y, _) = net(), data()
    whole = np.linalg.eigvalsh(model.hessian(LOSS, x, y))
    found = fn.curvature.eigenvalues(model, LOSS, x, y, tol=0)
    np.testing.assert_allclose(found.values, whole[-1:], rtol=1e-12)
    every = fn.curvature.eigenvalues(model, LOSS, x, y, len(whole), "both")
    np.testing.assert_allclose(every.values, whole, rtol=1e-9, atol=1e-12)


def test_float32_is_near(backend):
    pytest.importorskip("scipy")
    model, (x, y, _) = net(backend, dtype="float32"), data()
    whole = np.linalg.eigvalsh(model.hessian(LOSS, x, y))
    found = fn.curvature.eigenvalues(model, LOSS, x, y, 4, "both")
    np.testing.assert_allclose(found.values, whole[[0, 1, -2, -1]], atol=1e-5 * whole[-1])
    assert all(a.dtype == np.float32 for a in found.vectors[0].values())


def test_a_seed_repeats_them():
    pytest.importorskip("scipy")
    model, (x, y, _) = net(), data()
    one, two = (fn.curvature.eigenvalues(model, LOSS, x, y, 2, seed=7) for _ in range(2))
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(vector(one.vectors[0]), vector(two.vectors[0]))


def test_without_scipy_the_whole_matrix_is_the_remedy(monkeypatch):
    hide(monkeypatch, "scipy")
    x, y, _ = data()
    with pytest.raises(MissingExtra, match=r"fastnet-engine\[scipy\].*np\.linalg\.eigh\(model\.h"):
        fn.curvature.eigenvalues(net(), LOSS, x, y)
    assert len(fn.curvature.eigenvalues(net(hidden=3), LOSS, x, y).values) == 1


def test_too_few_restarts_are_told(monkeypatch):
    pytest.importorskip("scipy")
    monkeypatch.setattr("fastnet.curvature.eigen.BASIS", 1)
    x, y, _ = data()
    with pytest.raises(DivergenceError, match=r"of 5 have converged to tol=0; take a larger max_i"):
        fn.curvature.eigenvalues(net(), LOSS, x, y, 5, "smallest", tol=0.0, max_iter=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 0}, "^k is 0; expected an integer in"),
        ({"k": 1, "which": "both"}, "^k is 1; expected an integer in"),
        ({"k": 10**6}, "^k is 1000000; expected an integer in"),
        ({"which": "LA"}, "^which is 'LA'; expected one of 'largest', 'smallest'"),
        ({"tol": -1}, "^tol is -1"),
        ({"max_iter": 0}, "^max_iter is 0"),
        ({"seed": -1}, "^seed is -1"),
        ({"gauss_newton": "yes"}, "^gauss_newton is 'yes'"),
        ({"model": 3}, "^model is 3; expected a Sequential"),
    ],
)
def test_bad_arguments(given, message):
    x, y, _ = data()
    with pytest.raises(HyperparameterError, match=message):
        fn.curvature.eigenvalues(**{"model": net(), "loss": LOSS, "X": x, "y": y, **given})


@pytest.mark.parametrize("gauss_newton", [False, True])
def test_the_mean_of_many_samples_is_the_trace(backend, gauss_newton):
    model, (x, y, w) = net(backend), data()
    given = {"sample_weight": w, "gauss_newton": gauss_newton}
    whole = model.hessian(LOSS, x, y, **given)
    found = fn.curvature.hutchinson_trace(model, LOSS, x, y, samples=200, seed=1, **given)
    assert abs(found.estimate - np.trace(whole)) < 3.5 * found.standard_error
    off = whole - np.diag(np.diag(whole))
    expected = np.sqrt(2 * (off**2).sum() / 200)
    assert found.standard_error == pytest.approx(expected, rel=0.3)
    assert tuple(found) == (found.estimate, found.standard_error)


def test_a_diagonal_hessian_needs_two_samples():
    model = fn.Sequential(fn.Linear(1, 4, bias=False), dtype="float64", seed=0, backend="reference")
    x, y = np.ones((3, 1)), np.zeros((3, 4))
    found = fn.curvature.hutchinson_trace(model, fn.HalfMSELoss(), x, y, samples=2)
    assert found.estimate == pytest.approx(4) and found.standard_error == pytest.approx(0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"samples": 1}, "^samples is 1; expected an integer ≥ 2"),
        ({"samples": 2.5}, "^samples is 2.5"),
        ({"seed": "0"}, "^seed is '0'"),
        ({"gauss_newton": None}, "^gauss_newton is None"),
        ({"model": fn.Linear(5, 3)}, "^model is .*expected a Sequential"),
    ],
)
def test_bad_arguments_of_a_trace(given, message):
    x, y, _ = data()
    with pytest.raises(HyperparameterError, match=message):
        fn.curvature.hutchinson_trace(**{"model": net(), "loss": LOSS, "X": x, "y": y, **given})


def test_nothing_changes_and_the_lock_is_free_after_an_error(backend):
    model, (x, y, _) = net(backend), data()
    model.value_and_grad(LOSS, x, y)
    state, gradients = model.state_dict(), {n: g.copy() for n, g in model.grads.items()}
    version = model.version
    fn.curvature.hutchinson_trace(model, LOSS, x, y, samples=3)
    with pytest.raises(DivergenceError, match=r"no finite second derivatives"):
        fn.curvature.hutchinson_trace(model, fn.MSELoss(), x, 1e308 * np.eye(3)[y], samples=3)
    with pytest.raises(HyperparameterError):
        fn.curvature.eigenvalues(model, LOSS, x, y, 0)
    with pytest.raises(UsageError, match=r"no trainable parameters"):
        fn.curvature.hutchinson_trace(model.freeze(), LOSS, x, y)
    model.unfreeze()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    assert model.version == version
    model.value_and_grad(LOSS, x, y)
    for name, g in model.grads.items():
        np.testing.assert_array_equal(g, gradients[name])
