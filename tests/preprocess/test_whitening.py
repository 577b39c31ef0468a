"""PCA and ZCA: covariance, closeness to the input, directions without variance."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError
from fastnet.preprocess import base

P = fn.preprocess
RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(5, 5))
X = RNG.normal(size=(4000, 5)) @ MIX + 100 * RNG.normal(size=5)
WHITEN = {"PCA": lambda: P.PCA(whiten=True, eps=0), "ZCA": lambda: P.ZCA(eps=0)}


def whitened(layer, x):
    """The layer's output in float64."""
    return fn.Sequential(layer.fit(x), dtype="float64", backend="reference").predict(x)


@pytest.mark.parametrize("name", WHITEN)
def test_the_covariance_becomes_the_identity(name):
    y = whitened(WHITEN[name](), X)
    np.testing.assert_allclose(np.cov(y.T), np.eye(5), atol=1e-12)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-12)
    in_float32 = WHITEN[name]().fit_transform(X)
    np.testing.assert_allclose(np.cov(in_float32.T.astype(float)), np.eye(5), atol=1e-6)


@pytest.mark.parametrize("name", WHITEN)
def test_the_covariance_of_data_far_from_0(name):
    far = X + 1e7
    np.testing.assert_allclose(np.cov(whitened(WHITEN[name](), far).T), np.eye(5), atol=1e-6)


def test_zca_is_the_closest_to_the_input_of_all_that_whiten():
    centred = X - X.mean(0)
    z = whitened(WHITEN["ZCA"](), X)
    closest = np.mean((z - centred) ** 2)
    others = [whitened(WHITEN["PCA"](), X)]
    for _ in range(50):
        rotation, _ = np.linalg.qr(RNG.normal(size=(5, 5)))
        others.append(z @ rotation)
    small = RNG.normal(size=(5, 5)) * 1e-2  # close to the identity
    rotation, _ = np.linalg.qr(np.eye(5) + small - small.T)
    others.append(z @ (rotation * np.sign(np.diag(rotation))))
    for other in others:
        np.testing.assert_allclose(np.cov(other.T), np.eye(5), atol=1e-10)
        assert np.mean((other - centred) ** 2) > closest * (1 + 1e-7)


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_regularised(eps):
    values = np.linalg.eigvalsh(np.cov(X.T))
    for layer in (P.PCA(whiten=True, eps=eps), P.ZCA(eps)):
        found = np.linalg.eigvalsh(np.cov(whitened(layer, X).T))
        np.testing.assert_allclose(np.sort(found), np.sort(values / (values + eps)), rtol=1e-9)
        np.testing.assert_allclose(np.sort(layer.explained_variance_), values, rtol=1e-9)


def test_some_components_are_those_with_the_largest_variance():
    all_ = P.PCA().fit(X)
    some = P.PCA(2).fit(X)
    np.testing.assert_array_equal(some.components_, all_.components_[:2])
    np.testing.assert_allclose(some.transform(X), all_.transform(X)[:, :2], atol=1e-6)
    assert (np.diff(all_.explained_variance_) < 0).all()
    back = some.inverse_transform(some.transform(X))
    lost = np.sum((back - X) ** 2) / (len(X) - 1)
    np.testing.assert_allclose(lost, all_.explained_variance_[2:].sum(), rtol=1e-5)
    assert fn.Sequential(some, fn.Linear(2, 1)).output_shape((5,)) == (1,)
    refused(lambda: P.PCA(6).fit(X), HyperparameterError, "^n_components is 6 and the data have 5")
    refused(lambda: P.PCA(6, num_features=5), HyperparameterError, "^n_components is 6")


@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_directions_without_variance(eps):
    x = np.column_stack([X, X[:, 0] + X[:, 1], np.full(len(X), 0.1)])
    for layer in (P.PCA(whiten=True, eps=eps), P.ZCA(eps)):
        y = whitened(layer, x)
        kept = np.linalg.eigvalsh(np.cov(y.T))
        np.testing.assert_allclose(kept, [0, 0, 1, 1, 1, 1, 1], atol=1e-3)
        np.testing.assert_allclose(layer.inverse_transform(y), x, rtol=1e-5, atol=1e-4)


def test_fewer_rows_than_features_and_one_row():
    x = X[:3]
    for layer in (P.PCA(whiten=True), P.ZCA()):
        y = whitened(layer, x)
        assert np.isfinite(y).all()
        np.testing.assert_allclose(layer.inverse_transform(y), x, atol=1e-3)
    refused(lambda: P.ZCA().fit(X[:1]), DataError, "^X has 1 rows; ZCA.fit needs at least 2$")


def test_tall_data_are_read_in_one_pass_over_blocks(monkeypatch):
    whole = P.ZCA().fit(X)
    monkeypatch.setattr(base, "BLOCK", 1)
    read = []

    class Counted(np.ndarray):
        def astype(self, *given, **named):
            read.append(self.shape)
            return np.asarray(self).astype(*given, **named)

    layer = P.ZCA()
    found = layer._fitted(X.view(Counted))
    assert sum(rows for rows, *columns in read if columns) == len(X)
    assert max(rows for rows, *columns in read if columns) == 5
    np.testing.assert_allclose(found["weight_"], whole.weight_, rtol=1e-9, atol=1e-9)
