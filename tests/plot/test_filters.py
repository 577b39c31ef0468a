"""The weights of a first layer as images."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, ShapeError


def tiles(figure, height, width):
    """The images in the figure, in order."""
    mosaic = np.asarray(figure.axes[0].images[0].get_array().filled(np.nan))
    gap = max(1, round(0.06 * max(height, width)))
    found = []
    for top in range(0, mosaic.shape[0], height + gap):
        for left in range(0, mosaic.shape[1], width + gap):
            tile = mosaic[top : top + height, left : left + width]
            if not np.isnan(tile).any():
                found.append(tile)
    return found


@pytest.mark.parametrize("units", [1, 2, 7, 40])
@pytest.mark.parametrize("shape", [(2, 3), (6, 1), (3, 2)])
def test_each_unit_is_an_image(units, shape):
    model = fn.Sequential(fn.Tanh(), fn.Linear(6, units), fn.Linear(units, 2), seed=1)
    figure = fn.plot.weights(model, shape)
    found = tiles(figure, *shape)
    assert len(found) == units
    np.testing.assert_array_equal([tile.ravel() for tile in found], model[1].weight)
    assert figure.axes[0].get_title().startswith(f"layer 1 (Linear): {units} of {units} units")
    low, high = figure.axes[0].images[0].get_clim()
    assert low == -high  # 0 is grey
    assert figure.axes[1].get_ylabel() == "weight"


def test_a_layer_alone_and_at_most_so_many_units():
    layer = fn.Linear(784, 300)
    figure = fn.plot.weights(layer, most=16)
    found = tiles(figure, 28, 28)
    np.testing.assert_array_equal([tile.ravel() for tile in found], layer.weight[:16])
    assert figure.axes[0].get_title().startswith("Linear: 16 of 300 units")
    assert len(tiles(fn.plot.weights(layer), 28, 28)) == 100


def test_weights_that_are_all_zero_are_grey():
    layer = fn.Linear(4, 2, weight_init=fn.init.Zeros())
    assert fn.plot.weights(layer, (2, 2)).axes[0].images[0].get_clim() == (-1, 1)


def test_an_outlier_does_not_grey_all_others():
    layer = fn.Linear(64, 64, weight_init=fn.init.Normal(0.0, 1.0))
    state = layer.state_dict()
    state["weight"][0, 0] = 1e6
    layer.load_state_dict(state)
    assert fn.plot.weights(layer, (8, 8)).axes[0].images[0].get_clim()[1] < 10


REFUSED = {
    "no model": ((3,), HyperparameterError, "^model is 3; expected a Sequential or a layer"),
    "no weight": ((fn.ReLU(),), HyperparameterError, "^model is a ReLU without a weight matrix"),
    "no matrix": (
        (fn.Sequential(fn.BatchNorm1d(4)),),
        HyperparameterError,
        "^model is a Sequential without a weight matrix",
    ),
    "another shape": (
        (fn.Linear(64, 3),),
        ShapeError,
        r"^shape is \(28, 28\), and the layer has 64 inputs; .*such as shape=\(8, 8\)",
    ),
    "a prime": (
        (fn.Linear(13, 3), (3, 4)),
        ShapeError,
        r"has 13 inputs; .*such as shape=\(1, 13\)",
    ),
    "one side": ((fn.Linear(13, 3), 13), HyperparameterError, r"^shape is 13; expected \(height"),
    "no side": ((fn.Linear(4, 3), (0, 4)), HyperparameterError, r"^shape\[0\] is 0; expected"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    given, kind, message = REFUSED[case]
    refused(lambda: fn.plot.weights(*given), kind, message)
