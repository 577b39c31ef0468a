"""RBF: accuracy where centres are far from 0, and where its centres and widths come from."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError, ShapeError
from fastnet.layers.centers import nearest_widths

RNG = np.random.default_rng(0)


def bumps(x, centers, widths):
    """The outputs in float64 by the definition."""
    wide = [np.asarray(a, np.float64) for a in (x, centers, widths)]
    x, centers, widths = wide
    distances = np.square(x[:, None] - centers).sum(axis=2)
    return np.exp(-distances / (2 * widths**2))


def net(layer, backend, dtype="float32"):
    return fn.Sequential(layer, dtype=dtype, backend=backend, seed=1)


@pytest.mark.parametrize("constant", [True, False])
def test_outputs_are_bumps_and_a_column_of_ones(backend, constant):
    model = net(fn.RBF(3, 4, constant), backend, "float64")
    x = RNG.normal(size=(9, 3))
    want = bumps(x, model[0].centers, model[0].widths)
    got = model.predict(x)
    np.testing.assert_allclose(got[:, :4], want, rtol=1e-13)
    assert got.shape == (9, 4 + constant) and (got[:, 4:] == 1).all()


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e4, -1e6])
@pytest.mark.parametrize("features", [2, 64, 300])
def test_far_centers_lose_nothing_in_float32(backend, offset, features):
    """Bumps of the rounded inputs, to 1e-5: x·μ alone would be off by 1e8·2⁻²⁴."""
    layer = fn.RBF(features, 37, constant=False)
    spread = RNG.normal(size=(37, features)) / np.sqrt(features)
    centers = (offset + spread).astype("f")
    x = (offset + spread[:20] + 0.1 * RNG.normal(size=(20, features))).astype("f")
    layer.load_state_dict({"centers": centers, "widths": np.full(37, 0.8)})
    model = net(layer, backend)
    want = bumps(x, centers, model[0].widths)
    assert want.max() > 1e-3
    np.testing.assert_allclose(model.predict(x), want, rtol=1e-5, atol=1e-12)
    model.zero_grad()
    model.forward(x)
    dy = RNG.normal(size=want.shape).astype("f")
    dx = model.backward(dy)
    g = dy * want / 0.8**2
    terms = g[..., None] * (x[:, None].astype("d") - centers)
    np.testing.assert_allclose(dx, -terms.sum(axis=1), rtol=0, atol=1e-5 * np.abs(terms).max())
    got = model.grads["0.centers"]
    np.testing.assert_allclose(got, terms.sum(axis=0), rtol=0, atol=1e-5 * np.abs(terms).max())


def gradients(x, dy, y, centers, widths):
    """Those of x, the centres and the widths in float64, by the definition, and the largest terms."""
    x, dy, y, centers, widths = (np.asarray(a, np.float64) for a in (x, dy, y, centers, widths))
    g = dy * y / widths**2
    terms = g[..., None] * (x[:, None] - centers)
    of_widths = g * np.square(x[:, None] - centers).sum(axis=2) / widths
    return (-terms.sum(axis=1), terms.sum(axis=0), of_widths.sum(axis=0)), (
        np.abs(terms).max(),
        np.abs(of_widths).max(),
    )


@pytest.mark.parametrize("offset", [0.0, 3.0, 1e3, 1e4])
@pytest.mark.parametrize("rows", [3, 40, 600])
@pytest.mark.parametrize("features", [8, 16, 100])
def test_unit_widths_within_a_few_of_them_in_float32(backend, features, rows, offset):
    """Half of the centres far from 0, and rows within a few widths of one of them."""
    random = np.random.default_rng([features, rows, int(offset)])
    centers = random.normal(size=(150, features)) / np.sqrt(features)
    centers[::2] += offset / np.sqrt(features)
    x = centers[random.integers(0, 150, rows)] + random.normal(size=(rows, features)) / np.sqrt(
        features
    )
    x, centers = x.astype("f"), centers.astype("f")
    layer = fn.RBF(features, 150, constant=False)
    layer.load_state_dict({"centers": centers, "widths": np.ones(150)})
    model = net(layer, backend)
    want = bumps(x, centers, np.ones(150))
    assert (want > 0.1).any()
    np.testing.assert_allclose(model.predict(x), want, rtol=0, atol=2e-6)
    np.testing.assert_allclose(model.predict(x), want, rtol=2e-5, atol=1e-30)
    model.zero_grad()
    model.forward(x)
    dy = random.normal(size=want.shape).astype("f")
    (dx, *others), (most, most_widths) = gradients(x, dy, want, centers, np.ones(150))
    np.testing.assert_allclose(model.backward(dy), dx, rtol=0, atol=1e-5 * most)
    np.testing.assert_allclose(model.grads["0.centers"], others[0], rtol=0, atol=1e-5 * most)
    np.testing.assert_allclose(model.grads["0.widths"], others[1], rtol=0, atol=1e-5 * most_widths)


def test_gradients_are_added_up(backend):
    """A second backward doubles what the first one wrote."""
    model = net(fn.RBF(40, 70), backend, "float64")
    x, dy = RNG.normal(size=(30, 40)) / 6, RNG.normal(size=(30, 71))
    for _ in range(2):
        model.forward(x)
        model.backward(dy)
    got, (layer,) = model.grads, model
    (_, *want), _ = gradients(
        x, dy[:, :70], bumps(x, layer.centers, layer.widths), layer.centers, 1
    )
    for name, value in zip(("0.centers", "0.widths"), want, strict=True):
        np.testing.assert_allclose(got[name], 2 * value, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("features", [2, 40])
def test_norms_that_overflow_do_no_harm(backend, features):
    layer = fn.RBF(features, 70)
    layer.load_state_dict({"centers": np.full((70, features), 1e19), "widths": np.ones(70)})
    model = net(layer, backend)
    x = np.zeros((7, features), "f")
    x[2], x[3, -1], x[4] = 3e38, -3e38, 1e19
    got = model.forward(x)
    np.testing.assert_array_equal(got[4], 1)
    np.testing.assert_array_equal(np.delete(got, 4, 0)[:, :70], 0)


def test_rows_far_from_all_centers_give_0(backend):
    model = net(fn.RBF(2, 3), backend)
    got = model.predict(np.full((4, 2), 1e19, "f"))
    np.testing.assert_array_equal(got, np.tile([0, 0, 0, 1], (4, 1)))


def test_initial_centers_and_widths():
    layer = fn.RBF(7, 500)
    layer.reset_parameters(seed=3)
    assert layer.centers.shape == (500, 7) and layer.widths.shape == (500,)
    assert -1 <= layer.centers.min() < -0.9 and 0.9 < layer.centers.max() <= 1
    assert (layer.widths == 1).all()
    box = fn.RBF(7, 500, centers_init=fn.init.Uniform(2, 5), widths_init=fn.init.Constant(3))
    box.reset_parameters(seed=3)
    assert 2 <= box.centers.min() < 2.1 and 4.9 < box.centers.max() <= 5 and (box.widths == 3).all()


CLUSTERS = np.concatenate([RNG.normal(m, 0.05, (40, 2)) for m in (-4.0, 0.0, 3.0)])


def test_kmeans_finds_clusters():
    pytest.importorskip("sklearn")
    layer = fn.RBF(2, 3).place_centers(CLUSTERS, seed=5)
    np.testing.assert_allclose(np.sort(layer.centers[:, 0]), [-4, 0, 3], atol=0.1)
    again = fn.RBF(2, 3).place_centers(CLUSTERS, seed=5)
    np.testing.assert_array_equal(again.centers, layer.centers)
    few = np.repeat(CLUSTERS[:2], 9, axis=0)
    message = "^X has 2 distinct rows; expected at least n_centers = 3$"
    refused(lambda: fn.RBF(2, 3).place_centers(few), DataError, message)


def test_a_sample_has_rows_each_once():
    layer = fn.RBF(2, 100).place_centers(CLUSTERS.astype("f"), "sample", seed=1)
    rows = {tuple(row) for row in CLUSTERS.astype("f")}
    chosen = [tuple(row) for row in layer.centers]
    assert len(set(chosen)) == 100 and set(chosen) <= rows
    message = "^X has 120 rows; expected at least n_centers = 121$"
    refused(lambda: fn.RBF(2, 121).place_centers(CLUSTERS, "sample"), DataError, message)


def test_a_box_spans_the_columns():
    layer = fn.RBF(2, 400).place_centers([[0, 10], [2, 30]], "box", widths=0.5, seed=1)
    low, high = layer.centers.min(axis=0), layer.centers.max(axis=0)
    assert (low >= [0, 10]).all() and (high <= [2, 30]).all()
    np.testing.assert_allclose(high - low, [2, 20], rtol=0.05)
    assert (layer.widths == 0.5).all()


def test_widths_are_mean_distances_to_the_nearest_centers():
    centers = np.array([[0.0, 0], [3, 4], [0, 1], [0, 1]])
    by_hand = [(1 + 1) / 2, (18**0.5 + 18**0.5) / 2, 0.5, 0.5]
    np.testing.assert_allclose(nearest_widths(centers, 2), by_hand)
    np.testing.assert_allclose(nearest_widths(centers, 99)[0], (5 + 1 + 1) / 3)
    np.testing.assert_array_equal(nearest_widths(centers, 1)[2:], [1, 1])  # 0 otherwise
    np.testing.assert_array_equal(nearest_widths(np.zeros((3, 2)), 1), [1, 1, 1])
    np.testing.assert_array_equal(nearest_widths(np.zeros((1, 2)), 1), [1])
    layer = fn.RBF(2, 4).place_centers(centers, "sample", neighbours=2)
    np.testing.assert_allclose(np.sort(layer.widths), np.sort(by_hand), rtol=1e-6)


def test_centers_of_a_layer_in_a_model(backend):
    inner = fn.Sequential(fn.RBF(3, 2), fn.Linear(3, 1))
    model = fn.Sequential(fn.Linear(2, 3), inner, backend=backend, seed=1)
    x = RNG.normal(size=(5, 3))
    model.predict(x[:, :2])
    weight = model.state_dict()["0.weight"]
    layer = inner[0]
    assert layer.place_centers(x, "sample", widths=[1, 2], seed=1) is layer
    np.testing.assert_array_equal(model.state_dict()["1.0.centers"], layer.centers)
    np.testing.assert_array_equal(layer.widths, [1, 2])
    np.testing.assert_array_equal(model.state_dict()["0.weight"], weight)
    want = bumps(model[0].forward(x[:, :2]), layer.centers, layer.widths)
    got = inner[0].forward(model[0].forward(x[:, :2]))
    np.testing.assert_allclose(got[:, :2], want, rtol=1e-5)


WRONG = {
    "method": ({"method": "median"}, HyperparameterError, "^method is 'median'; expected"),
    "widths": ({"widths": "wide"}, HyperparameterError, '^widths is .wide.; expected "nearest"'),
    "a width": ({"widths": 0}, HyperparameterError, "^widths is 0; expected a finite number"),
    "some widths": ({"widths": [1, -1]}, HyperparameterError, "^widths is .*; expected"),
    "widths of others": ({"widths": [1, 1, 1]}, HyperparameterError, r"\(2,\) of such$"),
    "neighbours": ({"neighbours": 0}, HyperparameterError, "^neighbours is 0"),
    "rows": ({"X": np.zeros((3, 4))}, ShapeError, r"^X has shape \(3, 4\)"),
    "no rows": ({"X": np.zeros((0, 3))}, DataError, "^X is empty; expected at least one row$"),
    "NaN": ({"X": np.full((5, 3), np.nan)}, DataError, "^X holds 15 values that are NaN"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_placed_is_refused_and_changes_nothing(case):
    layer = fn.RBF(3, 2)
    before = layer.state_dict()
    given, kind, message = WRONG[case]
    good = {"X": RNG.normal(size=(5, 3)), "method": "sample"}
    refused(lambda: layer.place_centers(**{**good, **given}), kind, message)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_other_widths_are_refused():
    message = r"^layer 0 \(RBF\): rows of shape \(4,\) came, expected in_features = 3$"
    refused(lambda: fn.Sequential(fn.RBF(3, 2)).predict(np.zeros((2, 4))), ShapeError, r"expected")
    refused(lambda: fn.Sequential(fn.RBF(3, 2)).output_shape((4,)), ShapeError, message)
