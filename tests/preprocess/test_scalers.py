"""Center, StandardScaler, MinMaxScaler and RobustScaler: formulas, constant columns, data far from 0."""

from __future__ import annotations

import math

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import DataError, ShapeError, UsageError
from fastnet.preprocess import base, statistics

P = fn.preprocess
RNG = np.random.default_rng(0)
X = RNG.gamma(2.0, size=(500, 4)) * [1, 10, 0.1, 5] + [0, 100, -3, 1000]
KINDS = {
    "Center": P.Center,
    "StandardScaler": P.StandardScaler,
    "MinMaxScaler": P.MinMaxScaler,
    "range": lambda: P.MinMaxScaler((-2, 3), eps=0.1),
    "RobustScaler": P.RobustScaler,
    "not clipped": lambda: P.RobustScaler(None),
    "QuantileTransformer": P.QuantileTransformer,
    "PCA": P.PCA,
    "whitening PCA": lambda: P.PCA(whiten=True),
    "ZCA": P.ZCA,
}
AFFINE = ("Center", "StandardScaler", "MinMaxScaler", "range", "RobustScaler", "not clipped")


def formula(name, x):
    """What a layer's docstring says."""
    low, high = x.min(0), x.max(0)
    if name == "Center":
        return x - x.mean(0)
    if name == "StandardScaler":
        return (x - x.mean(0)) / x.std(0)
    if name == "MinMaxScaler":
        return (x - low) / (high - low + 1e-8)
    if name == "range":
        return -2 + 5 * (x - low) / (high - low + 0.1)
    q25, median, q75 = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
    z = (x - median) / (q75 - q25)
    return z if name == "not clipped" else z / np.sqrt(1 + (z / 3) ** 2)


@pytest.mark.parametrize("name", AFFINE)
def test_it_is_its_formula(name):
    layer = KINDS[name]()
    y = layer.fit_transform(X)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, formula(name, X), rtol=3e-7, atol=3e-7)


@pytest.mark.parametrize("name", KINDS)
def test_a_float64_model_computes_it_in_float64(name, backend):
    layer = KINDS[name]().fit(X)
    expected = layer._output(X)
    model = fn.Sequential(layer, dtype="float64", backend=backend)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-11, atol=1e-11)
    assert layer.transform(X).dtype == layer.inverse_transform(expected).dtype == np.float64
    if name in AFFINE:
        np.testing.assert_allclose(expected, formula(name, X), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", KINDS)
def test_the_inverse_restores(name):
    layer = KINDS[name]().fit(X)
    model = fn.Sequential(layer, dtype="float64", backend="reference")
    back = layer.inverse_transform(model.predict(X))
    np.testing.assert_allclose(back, X, rtol=1e-10)
    lone = KINDS[name]()
    scale = X.std(0).max() if "PCA" in name else X.std(0)
    # To float32's digits, of which the clip leaves fewer where it is flat.
    worst = np.max(np.abs(lone.inverse_transform(lone.fit_transform(X)) - X) / scale)
    assert worst < (1e-3 if name == "RobustScaler" else 2e-4)


@pytest.mark.parametrize("name", KINDS)
def test_constant_columns_become_finite_numbers(name):
    x = np.column_stack([X[:, 0], np.full(len(X), 0.1), np.zeros(len(X)), np.full(len(X), 1e6)])
    layer = KINDS[name]()
    y = layer.fit_transform(x)
    assert np.isfinite(y).all() and np.isfinite(layer.inverse_transform(y)).all()
    assert np.isfinite(layer.transform(x + 1)).all()
    if "PCA" not in name:
        expected = -2 if name == "range" else 0
        np.testing.assert_allclose(y[:, 1:], expected, atol=1e-6)


def test_what_constant_columns_do_with_other_values():
    x = np.column_stack([np.arange(4.0), np.full(4, 5.0)])
    new = np.array([[1.0, 7.0]])
    assert P.StandardScaler().fit(x).transform(new)[0, 1] == 2
    assert P.MinMaxScaler().fit(x).transform(new)[0, 1] > 1e8
    assert P.MinMaxScaler(clip=True).fit(x).transform(new)[0, 1] == 1
    assert P.RobustScaler().fit(x).transform(new)[0, 1] == 0


def test_robust_scaler_takes_the_range_where_the_quartiles_are_equal():
    x = np.array([[0.0]] * 9 + [[4.0]])
    layer = P.RobustScaler(None).fit(x)
    assert layer.scale_ == 2 and layer.transform(x)[-1] == 2


def test_the_smooth_clip_holds_at_any_size():
    layer = P.RobustScaler(2.5).fit(X)
    far = layer.transform(np.array([[1e30, -1e30, 1e38, 1e20]]))
    np.testing.assert_allclose(far, [[2.5, -2.5, 2.5, 2.5]])
    model = fn.Sequential(layer, backend="reference")
    np.testing.assert_allclose(model.predict(np.float32([[1e30, -1e30, 3e38, 1e20]])), far)


def test_data_far_from_0_lose_no_digits():
    x = 1e8 + RNG.normal(size=(5000, 3))
    layer = P.StandardScaler().fit(x)
    exact = [math.fsum(column) / len(x) for column in x.T]
    np.testing.assert_allclose(layer.mean_, exact, rtol=3e-16)
    z = x - exact
    np.testing.assert_allclose(layer.scale_, np.sqrt(np.mean(z * z, axis=0)), rtol=1e-8)
    np.testing.assert_allclose(layer.transform(x), z / layer.scale_, atol=1e-6)


def test_a_float32_model_subtracts_the_centre_with_twice_its_digits(backend):
    x = (1e4 + RNG.normal(size=(500, 2))).astype(np.float32)
    expected = (x.astype(float) - x.mean(0, dtype=float)) / x.std(0, dtype=float)
    model = fn.Sequential(P.StandardScaler().fit(x), backend=backend)
    np.testing.assert_allclose(model.predict(x), expected, atol=2e-6)


def test_statistics_are_those_of_all_blocks(monkeypatch):
    monkeypatch.setattr(base, "BLOCK", 28)  # 7 rows
    mean, var = statistics.mean_and_var(X)
    np.testing.assert_allclose(mean, X.mean(0), rtol=1e-13)
    np.testing.assert_allclose(var, X.var(0), rtol=1e-12)
    mean, covariance = statistics.mean_and_covariance(X)
    np.testing.assert_allclose(covariance, np.cov(X.T), rtol=1e-11, atol=1e-11)
    layer = P.StandardScaler().fit(X)
    np.testing.assert_allclose(layer.transform(X), formula("StandardScaler", X), atol=1e-5)


def test_fitting_reads_other_kinds_of_data():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcd"))
    of_array = P.StandardScaler().fit(X)
    for given in (frame, X.tolist(), np.asfortranarray(X)):
        layer = P.StandardScaler().fit(given)
        np.testing.assert_array_equal(layer.mean_, of_array.mean_)
        np.testing.assert_array_equal(layer.transform(given), of_array.transform(X))
    bytes_ = RNG.integers(0, 256, (50, 3), np.uint8)
    layer = P.MinMaxScaler(eps=0).fit(bytes_)
    assert layer.data_range_.tolist() == np.ptp(bytes_.astype(float), axis=0).tolist()


@pytest.mark.parametrize("name", KINDS)
def test_what_cannot_be_fitted(name):
    layer = KINDS[name]()
    bad = X.copy()
    bad[7, 2] = np.nan
    message = (
        "^X holds nan in column 2, first in row 7; expected numbers .*: fill such values, or leave"
    )
    refused(lambda: layer.fit(bad), DataError, message)
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(bad, columns=["a", "b", "income", "d"])
    refused(lambda: layer.fit(frame), DataError, "^X holds nan in column 'income'")
    refused(lambda: layer.fit(X[:0]), DataError, "^X has 0 rows; .*fit needs at least [12]$")
    refused(lambda: layer.fit(X[0]), ShapeError, r"^X has shape \(4,\), expected \(n, features\)")
    refused(lambda: layer.fit(X[:, :0]), ShapeError, "at least one feature")
    refused(
        lambda: layer.fit(X * 1e300), DataError, r"^X holds .*e\+30\d in column 0, first in row 0"
    )
    refused(lambda: layer.transform(X), UsageError, r"is not fitted; call it\.fit\(X\)")
    refused(lambda: layer.inverse_transform(X), UsageError, "is not fitted")
    layer.fit(X)
    before = layer.state_dict()
    refused(lambda: layer.fit(X[:, :2]), ShapeError, r"^X has shape \(500, 2\), expected \(n, 4\)$")
    refused(lambda: layer.transform(bad), DataError, "^X holds nan in column 2")
    refused(lambda: layer.inverse_transform(X[:, :2]), ShapeError, "^X has shape")
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    assert layer.transform(X[:0]).shape == (0, 4)


@pytest.mark.parametrize("name", [n for n in KINDS if "PCA" not in n and n != "ZCA"])
def test_one_row_is_data(name):
    layer = KINDS[name]().fit(X[:1])
    assert np.isfinite(layer.transform(X)).all()
