"""PiecewiseLinear: places in bins, beyond them, and bins from quantiles."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError, ShapeError
from fastnet.layers.piecewise import quantile_bins

RNG = np.random.default_rng(0)
BINS = [[0.0, 1, 3, 7], [-2, 2]]


def net(layer, backend, dtype="float64"):
    return fn.Sequential(layer, dtype=dtype, backend=backend, seed=1)


def test_places_in_the_bins(backend):
    x = np.array([[0.5, 0], [2, -2], [6, 1], [1, 2]])
    want = [[0.5, 0, 0, 0.5], [1, 0.5, 0, 0], [1, 1, 0.75, 0.75], [1, 0, 0, 1]]
    np.testing.assert_allclose(net(fn.PiecewiseLinear(BINS), backend).predict(x), want)


def test_beyond_the_bins_the_line_goes_on_for_a_width(backend):
    x = np.array([[-0.5, -4], [-1e30, -7], [9, 5], [1e30, 1e30]])
    want = [[-0.5, 0, 0, -0.5], [-1, 0, 0, -1], [1, 1, 1.5, 1.75], [1, 1, 2, 2]]
    for dtype in ("float32", "float64"):
        got = net(fn.PiecewiseLinear(BINS), backend, dtype).predict(x)
        np.testing.assert_allclose(got, want)


def test_slopes(backend):
    model = net(fn.PiecewiseLinear(BINS), backend)
    x = np.array([[0.5, 0], [2, 1.9], [-0.5, -7], [12, 5]])
    model.forward(x)
    dy = RNG.normal(size=(4, 4))
    want = [[dy[0, 0], dy[0, 3] / 4], [dy[1, 1] / 2, dy[1, 3] / 4], [dy[2, 0], 0]]
    want.append([0, dy[3, 3] / 4])
    want[3][0] = 0
    np.testing.assert_allclose(model.backward(dy), want)


def test_a_tail_of_many_equal_numbers_explodes_nowhere(backend):
    """A bin of 1e-9 between two quantiles, and rows far outside: TabM's trap."""
    column = np.concatenate([RNG.uniform(0, 1, 50), np.full(500, 1.0), [1 + 1e-9, 1 + 2e-9]])
    layer = fn.PiecewiseLinear.from_quantiles(column[:, None], 16)
    assert np.diff(layer.bins[0]).min() > 1e-6
    model = net(layer, backend, "float32")
    far = np.array([[1e6], [-1e6], [1.5], [1e30]])
    got = model.predict(far)
    assert got.min() == -1 and got.max() == 2


def test_with_an_embedding(backend):
    layer = fn.PiecewiseLinear(BINS, 3)
    model = net(layer, backend)
    x = RNG.normal(size=(9, 2)) * 3
    places = net(fn.PiecewiseLinear(BINS), backend).predict(x)
    parts = [places[:, :3] @ layer.weight[:3], places[:, 3:] @ layer.weight[3:]]
    want = np.concatenate(parts, axis=1) + layer.bias
    np.testing.assert_allclose(model.predict(x), want, rtol=1e-12)
    assert layer.weight.shape == (4, 3) and layer.bias.shape == (6,)
    bound = 1 / np.sqrt(3)
    assert np.abs(layer.weight).max() <= bound and np.abs(layer.bias).max() <= bound


def test_quantiles_have_equally_many_rows_between_them():
    x = np.exp(RNG.normal(size=(4800, 2)))
    for column, edges in zip(x.T, quantile_bins(x, 48), strict=True):
        assert len(edges) == 49 and edges[0] == column.min() and edges[-1] == column.max()
        counts = np.histogram(column, edges)[0]
        assert (np.abs(counts - 100) <= 2).all()


@pytest.mark.parametrize(
    ("column", "edges"),
    [
        ([3, 3, 3], [1.5, 4.5]),
        ([0, 0], [-0.5, 0.5]),
        ([1e9, 1e9 + 1], [0.5e9, 1.5e9]),
        ([0, 1, 1, 1, 2], [0, 1, 2]),
        ([5], [2.5, 7.5]),
    ],
)
def test_quantiles_of_few_values(column, edges):
    (found,) = quantile_bins(np.array(column, float)[:, None], 4)
    np.testing.assert_allclose(found, edges, rtol=1e-8)


def test_a_file_keeps_the_bins(tmp_path):
    model = fn.Sequential(fn.PiecewiseLinear.from_quantiles(RNG.normal(size=(99, 2)), 7, 3), seed=1)
    model.save(tmp_path / "net")
    again = fn.load(tmp_path / "net")
    assert again[0].bins == model[0].bins
    np.testing.assert_array_equal(again.predict(np.eye(2)), model.predict(np.eye(2)))


def test_version_b_adds_a_line_and_begins_as_this(backend):
    model = net(fn.PiecewiseLinear(BINS, 3, "B"), backend)
    x = np.array([[0.5, 0], [2, -2], [-9, 1]])
    p = {name.partition(".")[2]: value for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in p.items()} == {
        "weight": (4, 3),
        "bias": (6,),
        "linear_weight": (2, 3),
    }
    line = (x[:, :, None] * p["linear_weight"]).reshape(3, 6) + p["bias"]
    np.testing.assert_allclose(model.predict(x), line, atol=1e-15)
    for name in ("linear_weight", "bias"):
        assert 0.1 < np.abs(p[name]).max() <= 1 / np.sqrt(3), name
    weight = RNG.normal(size=(4, 3))
    model.load_state_dict({"0.weight": weight}, strict=False)
    places = net(fn.PiecewiseLinear(BINS), backend).predict(x)
    more = np.concatenate([places[:, :3] @ weight[:3], places[:, 3:] @ weight[3:]], axis=1)
    np.testing.assert_allclose(model.predict(x), line + more, atol=1e-14)


WRONG = {
    "no list": (3, "^bins is 3; expected a list with a list of edges for each feature$"),
    "no lists": ([1, 2], "^bins is .*; expected a list with a list of edges"),
    "nothing": ([], "^bins is .*; expected a list with"),
    "one edge": ([[0, 1], [2]], r"^bins\[1\] is .*; expected at least two finite edges"),
    "words": ([["a", "b"]], r"^bins\[0\] has dtype"),
    "NaN": ([[0, np.nan]], r"^bins\[0\] is .*; expected at least two finite edges"),
    "falling": (
        [[0, 2, 1]],
        r"^bins\[0\] has edges 1 and 2 at 2 and 1; expected edges that increase",
    ),
    "equal": ([[0, 0]], r"^bins\[0\] has edges 0 and 1 at 0 and 0; expected edges that increase"),
    "narrow": ([[0, 1, 1 + 1e-9]], r"^bins\[0\] has edges 1 and 2 at 1 and 1; .* leave one out$"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bins_that_are_none(case):
    bins, message = WRONG[case]
    refused(lambda: fn.PiecewiseLinear(bins), HyperparameterError, message)


def test_quantiles_of_bad_data():
    make = fn.PiecewiseLinear.from_quantiles
    refused(lambda: make([[np.nan]]), DataError, "^X holds 1 values that are NaN")
    refused(lambda: make(np.zeros((0, 2))), DataError, r"^X has shape \(0, 2\); expected at least")
    refused(lambda: make([[1.0]], 0), HyperparameterError, "^n_bins is 0; expected an integer")
    message = r"^layer 0 \(PiecewiseLinear\): rows of shape \(3,\) came, expected 2 features"
    layer = fn.PiecewiseLinear(BINS)
    refused(lambda: fn.Sequential(layer).output_shape((3,)), ShapeError, message)
