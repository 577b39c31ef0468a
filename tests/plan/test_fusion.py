"""Batchnorm folded into the linear layer before it, for prediction; a rectifier and dropout as one op."""

from __future__ import annotations

import gradcheck
import numpy as np
import pytest

import fastnet as fn
from fastnet.model import structure
from fastnet.op import KERNELS, ROWS
from fastnet.plan.fusion import fold_batchnorm, join_dropout
from fastnet.plan.graph import Graph, Tensor


def normal(seed, shape):
    return gradcheck.normal(np.random.default_rng(seed), shape)


def fill(model, seed=0):
    """Give every parameter and buffer a value of its own; variances are positive."""
    with model.edit() as values:
        for i, (name, value) in enumerate(values.items()):
            drawn = normal(seed + i, value.shape)
            value[...] = np.abs(drawn) if name.endswith("running_var") else drawn
    return model


def instructions(model, width=5):
    plan = model._runtime.predictor((width,), 4).plan
    return [list(KERNELS)[k] for k in plan.forward["kernel"]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_folded_is_unfolded(backend, dtype, bias, affine):
    layers = fn.Linear(5, 7, bias=bias), fn.BatchNorm1d(7, affine=affine, eps=0.01), fn.Tanh()
    model = fill(fn.Sequential(*layers, dtype=dtype, backend=backend)).eval()
    x = normal(9, (6, 5))
    unfolded = model.forward(x)
    tol = {"float32": 5e-6, "float64": 1e-14}[dtype]
    np.testing.assert_allclose(model.predict(x), unfolded, rtol=0, atol=tol)
    assert instructions(model) == ["linear_forward", "tanh_forward"]


def test_a_second_batchnorm_is_not_folded(backend):
    layers = fn.Linear(5, 7), fn.BatchNorm1d(7), fn.BatchNorm1d(7)
    model = fill(fn.Sequential(*layers, dtype="float64", backend=backend)).eval()
    x = normal(9, (6, 5))
    np.testing.assert_allclose(model.predict(x), model.forward(x), rtol=0, atol=1e-13)
    assert instructions(model) == ["linear_forward", "batchnorm_inference_forward"]


def test_batchnorm_after_something_else_is_not_folded(backend):
    layers = fn.BatchNorm1d(5), fn.Linear(5, 7), fn.Tanh(), fn.BatchNorm1d(7)
    model = fill(fn.Sequential(*layers, dtype="float64", backend=backend)).eval()
    x = normal(9, (6, 5))
    np.testing.assert_array_equal(model.predict(x), model.forward(x))
    assert len(instructions(model)) == 4


@pytest.mark.parametrize(
    "part", ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
)
def test_a_fold_follows_every_change(backend, part):
    layers = fn.Linear(5, 7), fn.BatchNorm1d(7)
    model = fill(fn.Sequential(*layers, dtype="float64", backend=backend)).eval()
    x = normal(9, (6, 5))
    before = model.predict(x)
    with model.edit() as values:
        values[part][...] += 0.5
        during = model.predict(x)
    after = model.predict(x)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_array_equal(during, after)
    np.testing.assert_allclose(after, model.forward(x), rtol=0, atol=1e-13)


def graph_of(model):
    """The evaluation graph of Linear and BatchNorm1d, with both of its tensors."""
    graph, x = Graph(), Tensor((ROWS, 5), segment="x")
    graph.training = False
    h = model[0].emit(graph, x)
    return graph, h, model[1].emit(graph, h)


@pytest.fixture
def pair():
    model = fn.Sequential(fn.Linear(5, 7), fn.BatchNorm1d(7), backend="reference")
    model.bind()
    return model


def test_a_linear_whose_output_is_used_again_is_not_folded(pair, product):
    graph, h, y = graph_of(pair)
    output = graph.apply(product, a=h, b=y)
    assert fold_batchnorm(graph, output).nodes == graph.nodes


def test_a_linear_whose_output_is_the_models_is_not_folded(pair):
    graph, h, _ = graph_of(pair)
    assert fold_batchnorm(graph, h).nodes == graph.nodes


def test_folding_leaves_the_graph_as_it_was(pair):
    graph, _, y = graph_of(pair)
    before = list(graph.nodes)
    folded = fold_batchnorm(graph, y)
    assert graph.nodes == before
    assert [node.op.name for node in folded.nodes] == ["linear"]
    assert folded.nodes[0].output is y


def bits(p, dtype, backend, x):
    """Bits of a net's outputs, of its gradients, and of what it has learnt after three steps."""
    layers = fn.ReLU(), fn.Dropout(p), fn.Linear(33, 9), fn.ReLU(), fn.Dropout(0.5), fn.Linear(9, 2)
    model = fill(fn.Sequential(*layers, dtype=dtype, backend=backend, seed=3))
    y = model.forward(x)
    found = [y, model.backward(np.cos(y)), *model.grads.values()]
    target = np.ones((len(x), 2))
    trainer = fn.Trainer(model, fn.MSELoss(), seed=1)
    trainer.fit(x, target, epochs=3, batch_size=len(x), verbose=0)
    return [np.array(a).tobytes() for a in [*found, *model.parameters()]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [1e-9, 0.3, 0.999, 1.0])
def test_a_rectifier_joined_with_dropout_gives_the_same_bits(backend, monkeypatch, p, dtype):
    x = normal(4, (17, 33)).astype(dtype)
    x[:, :3] = 0.0, -0.0, np.finfo(dtype).smallest_subnormal
    joined = bits(p, dtype, backend, x)
    monkeypatch.setattr(structure, "join_dropout", lambda graph, output: graph)
    assert joined == bits(p, dtype, backend, x)


def test_what_is_joined_with_dropout():
    def ops(*layers):
        graph, x = Graph(), Tensor((ROWS, 5), segment="x")
        model = fn.Sequential(*layers, backend="reference")
        model.bind()
        tensors = [x]
        for layer in model:
            tensors.append(layer.emit(graph, tensors[-1]))
        return [node.op.name for node in join_dropout(graph, tensors[-1]).nodes]

    assert ops(fn.ReLU(), fn.Dropout()) == ["relu_dropout"]
    assert ops(fn.Dropout(), fn.ReLU(), fn.Dropout()) == ["dropout", "relu_dropout"]
    assert ops(fn.ReLU(), fn.Dropout(), fn.Dropout()) == ["relu_dropout", "dropout"]
    assert ops(fn.Tanh(), fn.Dropout()) == ["tanh", "dropout"]
    assert ops(fn.Dropout(), fn.ReLU()) == ["dropout", "relu"]


def test_a_rectifier_whose_output_is_used_again_is_not_joined(product):
    graph, x = Graph(), Tensor((ROWS, 5), segment="x")
    h = fn.ReLU().emit(graph, x)
    y = fn.Sequential(fn.Dropout())[0].emit(graph, h)
    assert join_dropout(graph, h).nodes == graph.nodes
    output = graph.apply(product, a=h, b=y)
    assert join_dropout(graph, output).nodes == graph.nodes


def test_nodes_know_the_layer_that_applied_them():
    norm, residual = fn.BatchNorm1d(5), fn.Residual(fn.Linear(5, 5), fn.Tanh())
    model = fn.Sequential(fn.Sequential(fn.Linear(5, 5), norm), residual, fn.ReLU(), fn.Dropout())
    model.bind()
    modes = {id(layer): layer is not norm for _, layer in model.layers}
    graph = structure.graph_of(model, (5,), modes, fold=True).graph
    assert [(node.op.name, node.label) for node in graph.nodes] == [
        ("linear", "layer 0.0 (Linear)"),  # with the batchnorm after it
        ("linear", "layer 1.0 (Linear)"),
        ("tanh", "layer 1.1 (Tanh)"),
        ("add", "layer 1 (Residual)"),
        ("relu_dropout", "layer 2 (ReLU)"),
    ]
