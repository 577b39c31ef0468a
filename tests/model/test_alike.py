"""Models of one structure: what is found of the first serves the others, and holds no arrays."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import fastnet as fn
from fastnet.model import runtime

X = np.random.default_rng(0).normal(size=(12, 3)).astype("f")
Y = np.arange(12) % 2


def net(seed=0, **options):
    return fn.Sequential(fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 2), seed=seed, **options)


def fit(model, loss=None):
    trainer = fn.Trainer(model, loss or fn.CrossEntropyLoss(), fn.Adam(1e-2), seed=1)
    trainer.fit(X, Y, epochs=3, batch_size=5, verbose=0)
    return model.state_dict(), [record["loss"] for record in trainer.history.records]


@pytest.fixture
def graphs(monkeypatch):
    """How many graphs have been made."""
    made, graph_of = [], runtime.graph_of
    monkeypatch.setattr(runtime, "_alike", {})
    monkeypatch.setattr(
        runtime, "graph_of", lambda *given, **named: made.append(1) or graph_of(*given, **named)
    )
    return made


def test_a_second_model_makes_no_graph_and_trains_to_its_own_bits(backend, graphs):
    alone = fit(net(seed=7, backend=backend))
    runtime._alike.clear()
    fit(net(seed=3, backend=backend))
    before = len(graphs)
    state, losses = fit(net(seed=7, backend=backend))
    assert len(graphs) == before
    assert losses == alone[1]
    for name, value in state.items():
        np.testing.assert_array_equal(value, alone[0][name])


@pytest.mark.parametrize(
    "other",
    [
        lambda: fn.Sequential(fn.Linear(3, 5), fn.ReLU(), fn.Linear(5, 2), seed=0),
        lambda: fn.Sequential(fn.Linear(3, 5, bias=False), fn.Tanh(), fn.Linear(5, 2), seed=0),
        lambda: fn.Sequential(fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 2), fn.LeakyReLU(), seed=0),
        lambda: net(dtype="float64"),
        lambda: net().freeze("0.*"),
    ],
)
def test_another_structure_makes_its_own(graphs, other):
    fit(net())
    before = len(graphs)
    fit(other())
    assert len(graphs) > before


def test_another_loss_makes_its_own(graphs):
    fit(net())
    before = len(graphs)
    fit(net(), fn.CrossEntropyLoss(label_smoothing=0.1))
    assert len(graphs) > before


def test_a_loss_of_ones_own_shares_nothing(graphs):
    class Halved(fn.CrossEntropyLoss):
        pass

    fit(net(), Halved())
    assert not any("Halved" in repr(key) for key in runtime._alike)


def test_what_is_kept_holds_no_model():
    model = net(seed=5)
    fit(model)
    parameter = weakref.ref(model._named()["0.weight"])
    del model
    gc.collect()
    assert parameter() is None


def test_optimizers_of_such_models_share_programs_and_no_memory():
    one, other, adam = net(seed=1), net(seed=2), fn.Adam()
    rule, another = one.optimizer_state(adam).rule, other.optimizer_state(adam).rule
    assert rule.program is another.program
    assert not np.shares_memory(rule.segment, another.segment)
    other.freeze("0.*")
    assert other.optimizer_state(adam).rule.program is not rule.program
