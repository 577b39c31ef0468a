"""A model describes itself by ops, as its layers do; a layer that is used again draws anew."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import fastnet as fn
from fastnet import random
from fastnet.errors import ShapeError, UsageError
from fastnet.layers.base import Layer
from fastnet.model.structure import Ending, graph_of
from fastnet.plan.graph import Graph


class Twice(Layer):
    """y = layer(layer(x)): a layer that holds another."""

    def __init__(self, inner):
        super().__init__(inner=inner)

    def emit(self, g, x):
        """The inner layer, twice."""
        return g.enter(self.inner, g.enter(self.inner, x))


def names(graph):
    return [node.op.name for node in graph.nodes]


def test_a_model_is_walked_before_anything_is_compiled():
    inner = fn.Sequential(fn.Linear(4, 3), fn.BatchNorm1d(3), fn.ReLU(), fn.Dropout(0.5))
    model = fn.Sequential(inner, fn.Linear(3, 2), seed=0)
    trains = graph_of(model, (4,), {}, Ending(fn.HuberLoss(), labels=False))
    assert names(trains.graph)[:4] == ["linear", "batchnorm", "relu_dropout", "linear"]
    assert trains.output.shape == ("B", 2) == trains.target.shape
    assert trains.loss is trains.graph.nodes[-1].output
    modes = {id(layer): False for _, layer in model.layers}
    assert names(graph_of(model, (4,), modes).graph) == [
        "linear",
        "batchnorm_inference",
        "relu",
        "linear",
    ]
    assert names(graph_of(model, (4,), modes, fold=True).graph) == ["linear", "relu", "linear"]
    modes = {id(layer): isinstance(layer, fn.Dropout) for _, layer in model.layers}
    assert "relu_dropout" in names(graph_of(model, (4,), modes).graph)
    assert model._running is None  # nothing was


def test_layers_within_layers_have_modes_of_their_own():
    drop = fn.Dropout(0.5)
    assert names(graph_of(Twice(drop), (4,), {}).graph) == ["dropout", "dropout"]
    assert names(graph_of(Twice(drop), (4,), {id(drop): False}).graph) == []
    with pytest.raises(ShapeError, match="4"):
        graph_of(Twice(fn.Linear(4, 3)), (4,), {})


def test_a_layer_that_is_used_again_draws_from_another_stream():
    drop = fn.Dropout(0.5)
    first, second = (node.stream for node in graph_of(Twice(drop), (4,), {}).graph.nodes)
    assert first == random.stream_of(random.DROPOUT, 0)
    assert second == random.stream_of_use(first, 1) != first
    kinds = [random.stream_of(kind, (1 << 24) - 1) for kind in range(4)]
    assert random.stream_of_use(0, 1) > max(kinds)
    assert random.stream_of_use(max(kinds), 63) < 2**32
    with pytest.raises(UsageError, match="more than 64 times"):
        random.stream_of_use(first, 64)


def test_uses_are_counted_for_each_layer_and_graph():
    one, two = fn.Dropout(0.5), fn.Dropout(0.5)
    for _ in range(2):
        graph = Graph()
        x = graph_of(fn.Tanh(), (4,), {}).x
        for layer in (one, two, one):
            x = graph.enter(layer, x)
        streams = [node.stream for node in graph.nodes]
        assert streams[0] == streams[1] and streams[2] == random.stream_of_use(streams[0], 1)


@pytest.mark.parametrize("p", [0.3, 0.7])
def test_masks_of_two_uses_differ(p):
    ones = np.ones((64, 8))
    layer = Twice(fn.Dropout(p))
    layer.reset_parameters(0)
    twice = np.count_nonzero(layer.forward(ones)) / ones.size
    assert twice == pytest.approx((1 - p) ** 2, abs=0.08)  # not 1 − p, as of equal masks


def test_models_of_such_layers_train(backend):
    X = np.random.default_rng(0).normal(size=(64, 4))
    layers = fn.Linear(4, 8), Twice(fn.Dropout(0.5)), fn.Linear(8, 1)
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=1)
    copies = [copy.deepcopy(layer) for layer in layers]
    twin = fn.Sequential(*copies, dtype="float64", backend="reference", seed=1)
    np.testing.assert_allclose(model.forward(X), twin.forward(X), rtol=1e-12)
    losses = [m.value_and_grad(fn.MSELoss(), X, X[:, :1]) for m in (model, twin)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
