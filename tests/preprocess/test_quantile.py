"""QuantileTransformer: its table against the formula, ties, what lies outside, its op in every backend."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.random import normal_quantile

P = fn.preprocess
RNG = np.random.default_rng(0)
X = RNG.gamma(2.0, size=(5000, 3)) * [1, 10, 0.1]


def formula(x, quantiles, levels):
    """Φ⁻¹(F(x)) for a column without ties."""
    share = np.interp(x, quantiles, levels)
    return normal_quantile(np.clip(share, 1e-7, 1 - 1e-7))


@pytest.mark.parametrize("count", [2, 10, 1000])
def test_the_table_is_close_to_the_formula(count):
    levels = np.linspace(0, 1, count)
    y = P.QuantileTransformer(count).fit_transform(X)
    for column in range(3):
        q = np.quantile(X[:, column], levels)
        np.testing.assert_allclose(y[:, column], formula(X[:, column], q, levels), atol=3e-3)
        at = np.repeat(q[:, None], 3, axis=1)
        layer = P.QuantileTransformer(count).fit(X)
        found = layer.transform(at)[:, column]
        np.testing.assert_allclose(found, formula(q, q, levels), atol=1e-5)


def test_the_result_is_nearly_normal():
    y = P.QuantileTransformer().fit_transform(X)
    np.testing.assert_allclose(y.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(y.std(0), 1, atol=0.03)
    share = [np.mean(np.abs(y) < 1.96), np.mean(np.abs(y) < 0.6745)]
    np.testing.assert_allclose(share, [0.95, 0.5], atol=0.005)


def test_equal_values_get_the_normal_score_of_their_middle_rank():
    x = np.repeat([0.0, 1.0, 5.0], [600, 300, 101])[:, None]
    layer = P.QuantileTransformer(1001).fit(x)
    found = layer.transform(np.array([[0.0], [1.0], [5.0]]))[:, 0]
    ranks = np.array([599 / 2, (600 + 899) / 2, (900 + 1000) / 2]) / 1000
    np.testing.assert_allclose(found, normal_quantile(ranks), atol=1e-6)
    between = layer.transform(np.linspace(0, 5, 99)[:, None])[:, 0]
    assert (np.diff(between) > 0).all()


def test_outside_of_the_fitted_range_the_ends_hold(backend):
    layer = P.QuantileTransformer(50).fit(X)
    ends = np.array([[-1e30] * 3, [1e30] * 3])
    y = layer.transform(ends)
    np.testing.assert_allclose(np.abs(y), normal_quantile(np.array([1 - 1e-7]))[0], rtol=1e-6)
    np.testing.assert_allclose(fn.Sequential(layer, backend=backend).predict(ends), y)
    np.testing.assert_allclose(layer.inverse_transform(y), [X.min(0), X.max(0)], rtol=1e-6)


def test_every_backend_reads_ties_and_knots_alike(backend):
    values = RNG.integers(0, 5, (300, 2)).astype(float)
    layer = P.QuantileTransformer(20).fit(values)
    expected = layer.transform(values)
    model = fn.Sequential(layer, backend=backend)
    np.testing.assert_allclose(model.predict(values), expected, atol=1e-6)
    grid = np.linspace(-1, 5, 101)[:, None].repeat(2, axis=1)
    np.testing.assert_allclose(model.predict(grid), layer.transform(grid), atol=1e-5)


def test_nan_goes_through_a_layer_alone():
    layer = P.QuantileTransformer(20).fit(X)
    given = np.array([[np.nan, 1.0, 0.1]])
    found = layer.forward(given)
    assert np.isnan(found[0, 0]) and np.isfinite(found[0, 1:]).all()
