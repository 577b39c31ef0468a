"""Ops that see several rows for each row of the minibatch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import ShapeError
from fastnet.layers.joining import add
from fastnet.layers.members import linear_ensemble
from fastnet.op import ROWS
from fastnet.plan.graph import Graph, Structure, Tensor, signature_of
from fastnet.tape import Tape, Value

RNG = np.random.default_rng(3)


def shaped(times):
    graph = Graph()
    x = Tensor((ROWS, 12), segment="x")
    y = graph.apply(add, a=graph.reshape(x, (12 // times,), times), b=graph.reshape(x, (4,), 3))
    return graph, x, y


def test_a_result_has_the_rows_of_its_inputs():
    graph, x, y = shaped(3)
    assert (y.shape, y.times, y.elements(5)) == ((ROWS, 4), 3, 60)
    assert graph.nodes[0].times == 3 and graph.nodes[0].inputs() == [("a", x), ("b", x)]
    assert graph.reshape(y, (12,)).times == 1 and graph.reshape(y, (12,)).elements(5) == 60


def test_other_numbers_of_rows_are_refused():
    graph, x = Graph(), Tensor((ROWS, 4), segment="x")
    message = r"^add: its inputs have {'a': 1, 'b': 2} rows for one; expected equal numbers$"
    both = {"a": x, "b": Tensor((ROWS, 4), times=2)}
    refused(lambda: graph.apply(add, **both), ShapeError, message)
    tape, a = Tape("float64"), Value(np.ones((3, 4)))
    given = {"a": tape.reshape(a, (2,), 2), "b": Value(np.ones((6, 2)))}
    refused(lambda: tape.apply(add, **given), ShapeError, "rows for one; expected equal")


def test_plans_differ_by_the_number_of_rows():
    def key(times):
        graph, x = Graph(), Tensor((ROWS, 12), segment="x")
        y = graph.reshape(x, (1,), times)
        out = graph.apply(add, a=y, b=y)
        return signature_of(Structure(graph, x, out), id)

    assert key(2) == key(2) != key(3)


def ends(kind):
    last = {
        "own weights": fn.LinearEnsemble(6, 2, 3),
        "shared weights": fn.LinearBatchEnsemble(6, 2, 3, bias=False),
        "a rectifier": fn.ReLU(),
    }[kind]
    layers = fn.EnsembleView(3), fn.LinearBatchEnsemble(4, 6, 3, r_init=fn.init.Normal()), last
    return fn.Sequential(*layers, dtype="float64", backend="reference", seed=5)


@pytest.mark.parametrize("kind", ["own weights", "shared weights", "a rectifier"])
def test_a_model_may_end_with_the_rows_of_members(backend, kind):
    """Its outputs are recorded and shown as rows of the minibatch."""
    x = RNG.normal(size=(50, 4))
    width = ends(kind).output_shape((4,))[0]
    t, found = np.abs(RNG.normal(size=(50, width))), []
    for name in ("reference", backend):
        model = ends(kind).to(name)
        trainer = fn.Trainer(model, fn.MSELoss(), seed=1, metrics=["r2"])
        trainer.fit(x, t, epochs=3, batch_size=16, validation_data=(x, t), verbose=0)
        numbers = [trainer.history.records[-1][n] for n in ("loss", "r2", "val_loss", "val_r2")]
        found.append([*numbers, *model.predict(x).ravel(), *model.forward(x[:7]).ravel()])
        found[-1] += model.backward(t[:7]).ravel().tolist()
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9, atol=1e-12)


def test_large_ones_are_fused_alike(backend):
    """Elementwise ops behind the products, where tensors exceed the first caches."""
    layers = fn.EnsembleView(4), fn.LinearBatchEnsemble(5, 64, 4), fn.ReLU()
    more = fn.LinearBatchEnsemble(64, 70, 4), fn.ReLU(), fn.LinearEnsemble(70, 1, 4), fn.Tanh()
    model = fn.Sequential(*layers, *more, fn.EnsembleMean(4), dtype="float64", seed=2)
    one, other = copy.deepcopy(model).to("reference"), model.to(backend)
    x, dy = RNG.normal(size=(300, 5)), RNG.normal(size=(300, 1))
    for each in (one, other):
        each.zero_grad()
    np.testing.assert_allclose(other.forward(x), one.forward(x), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(other.backward(dy), one.backward(dy), rtol=0, atol=1e-11)
    for name, grad in one.grads.items():
        np.testing.assert_allclose(other.grads[name], grad, rtol=0, atol=1e-10, err_msg=name)


def test_members_of_rows_that_are_no_multiple():
    """The op takes any number of rows."""
    x, w = RNG.normal(size=(7, 3)), RNG.normal(size=(4, 3, 2))
    y = np.empty((7, 2))
    linear_ensemble.forward(y, x, w, np.empty(0))
    np.testing.assert_allclose(y, [x[r] @ w[r % 4] for r in range(7)])
