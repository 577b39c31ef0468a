"""Preprocessing against scikit-learn's transformers, in float64."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn

pytest.importorskip("sklearn")
from sklearn import preprocessing as theirs
from sklearn.decomposition import PCA

P = fn.preprocess
RNG = np.random.default_rng(0)
X = RNG.gamma(2.0, size=(3000, 5)) @ (np.eye(5) + 0.3 * RNG.normal(size=(5, 5))) + 50
NEW = X[:100] * 1.3 - 10


def output(layer, x):
    return fn.Sequential(layer, dtype="float64", backend="reference").predict(x)


PAIRS = {
    "Center": (P.Center, lambda: theirs.StandardScaler(with_std=False)),
    "StandardScaler": (P.StandardScaler, theirs.StandardScaler),
    "MinMaxScaler": (lambda: P.MinMaxScaler(eps=0), theirs.MinMaxScaler),
    "clip": (
        lambda: P.MinMaxScaler((-1, 2), 0, clip=True),
        lambda: theirs.MinMaxScaler((-1, 2), clip=True),
    ),
    "RobustScaler": (lambda: P.RobustScaler(None), theirs.RobustScaler),
    "PCA": (P.PCA, PCA),
    "three": (lambda: P.PCA(3), lambda: PCA(3, svd_solver="full")),
    "whitened": (lambda: P.PCA(3, True, 0), lambda: PCA(3, whiten=True, svd_solver="full")),
}
NAMES = ("mean_", "var_", "scale_", "data_min_", "data_max_", "data_range_", "center_")
NAMES += ("components_", "explained_variance_", "n_features_in_", "n_samples_seen_")


@pytest.mark.parametrize("name", PAIRS)
def test_numbers_and_outputs_agree(name):
    ours, other = PAIRS[name][0]().fit(X), PAIRS[name][1]().fit(X)
    compared = 0
    for attribute in NAMES:
        if hasattr(other, attribute) and getattr(other, attribute) is not None:
            if name == "Center" and attribute != "mean_":
                continue
            found = getattr(ours, attribute)
            np.testing.assert_allclose(found, getattr(other, attribute), rtol=1e-9, atol=1e-10)
            compared += 1
    assert compared
    y, expected = ours._output(NEW), other.transform(NEW)
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(ours._inverse(y), other.inverse_transform(expected), rtol=1e-9)
    np.testing.assert_allclose(output(ours, NEW), expected, rtol=1e-9, atol=1e-10)


def test_quantiles():
    ours = P.QuantileTransformer(200).fit(X)
    other = theirs.QuantileTransformer(
        n_quantiles=200, output_distribution="normal", subsample=None
    )
    expected = other.fit(X).transform(X)
    np.testing.assert_allclose(output(ours, X), expected, atol=3e-3)
    # At the quantiles themselves both are exact.
    at = other.quantiles_
    np.testing.assert_allclose(ours._output(at), other.transform(at), atol=1e-5)
    back = ours.inverse_transform(expected)
    np.testing.assert_allclose(back, other.inverse_transform(expected), rtol=1e-2)


def test_categories():
    x = RNG.integers(0, 5, (100, 3)).astype(float)
    ours, other = P.OneHot().fit(x), theirs.OneHotEncoder(handle_unknown="ignore").fit(x)
    new = RNG.integers(0, 7, (50, 3)).astype(float)
    y = output(ours, new)
    ends = np.cumsum([len(c) + 1 for c in ours.categories_]) - 1
    np.testing.assert_array_equal(np.delete(y, ends, axis=1), other.transform(new).toarray())
    known = [np.isin(new[:, j], c) for j, c in enumerate(other.categories_)]
    np.testing.assert_array_equal(y[:, ends], 1.0 - np.stack(known, axis=1))
