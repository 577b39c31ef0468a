"""Frozen layers: nothing moves them, their gradient costs nothing, and unfrozen they train on."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError, UsageError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(36, 4))
Y = RNG.normal(size=(36, 2))


def net(backend="reference"):
    inner = fn.Sequential(fn.BatchNorm1d(5), fn.Tanh(), fn.Linear(5, 5))
    layers = fn.Linear(4, 5), inner, fn.PReLU(), fn.Linear(5, 2)
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=1)


def trainer(model, **more):
    return fn.Trainer(model, fn.MSELoss(), fn.AdamW(0.05, weight_decay=0.1), seed=2, **more)


def moved(model, before):
    return [n for n, value in model.state_dict().items() if not np.array_equal(value, before[n])]


FROZEN = [
    "0.weight",
    "0.bias",
    *(f"1.0.{n}" for n in ("weight", "bias", "running_mean", "running_var")),
]
FROZEN += ["1.0.num_batches_tracked"]


@pytest.mark.parametrize(
    "way", ["fit", "one epoch in one call", "train_on_batch", "loop", "full batch"]
)
def test_parameters_and_statistics_never_move(backend, way):
    model = net(backend)
    if way == "full batch":
        pytest.importorskip("scipy")
    trainer(model).fit(X, Y, verbose=0)
    model[0].freeze()
    model[1][0].freeze()
    assert model[0].frozen and model[1][0].frozen and not model[3].frozen
    assert sorted(model.frozen) == sorted(FROZEN)
    before, one = model.state_dict(), trainer(model, averaging=fn.EMA(0.5))
    if way == "fit":
        one.fit(X, Y, 2, 8, verbose=0)
    elif way == "one epoch in one call":
        one.fit(X, Y, 20, 36, verbose=0)
    elif way == "train_on_batch":
        for _ in range(3):
            one.train_on_batch(X, Y)
    elif way == "full batch":
        one.fit_full_batch(X, Y, max_iter=3, weight_decay=0.1)
    else:
        optimizer, loss = fn.SGD(0.1, l1=0.1), fn.MSELoss()
        for _ in range(3):
            loss.forward(model.forward(X), Y)
            model.zero_grad()
            model.backward(loss.backward())
            optimizer.step(model)
    assert sorted(moved(model, before)) == sorted(set(before) - set(FROZEN))
    assert all(not model.grads[name].any() for name in FROZEN if name in model.grads)


def test_a_frozen_norm_works_as_in_evaluation(backend):
    model = net(backend)
    trainer(model).fit(X, Y, 3, verbose=0)
    model.freeze()
    expected = model.predict(X)
    np.testing.assert_allclose(model.train().forward(X), expected, rtol=1e-12)
    model[1][0].unfreeze()
    assert np.abs(model.forward(X) - expected).max() > 1e-3
    assert model.forward(X[:2]).shape == (2, 2)
    model.freeze("1.0.*")
    assert model.forward(X[:1]).shape == (1, 2)  # no statistics, so one row will do


def test_frozen_and_unfrozen_is_as_if_nothing_had_been(backend):
    found = []
    for freezes in (False, True):
        model = net(backend)
        one = trainer(model)
        one.fit(X, Y, 2, verbose=0)
        if freezes:
            model.freeze("0.*", "*.bias").unfreeze()
            assert model.frozen == []
        one.fit(X, Y, 2, verbose=0)
        found.append(model.predict(X).tobytes())
    assert found[0] == found[1]


def test_backward_stops_below_the_lowest_trained_layer():
    from fastnet.op import KERNELS

    model = net()
    model[0].freeze()
    model[1].freeze()
    loss = fn.MSELoss()
    executor = model.training_executor(model.data(loss, X, Y, "X", "y"), 8, loss)
    names = [list(KERNELS)[k] for k in executor.plan.step["kernel"] if k >= 0]
    assert names.count("linear_vjp") == 1 and "prelu_vjp" in names
    assert not {"tanh_vjp", "batchnorm_vjp", "batchnorm_forward"} & set(names)


def test_gradients_of_inputs_go_through_frozen_layers():
    free, frozen = net(), net()
    frozen.freeze()
    for model in (free, frozen):
        model.eval()
        model.forward(X)
    np.testing.assert_allclose(frozen.backward(Y), free.backward(Y), rtol=1e-12)
    assert not any(g.any() for g in frozen.grads.values())


def test_a_model_of_frozen_layers_alone_trains_nothing(backend):
    model = net(backend).freeze()
    before = model.state_dict()
    history = trainer(model).fit(X, Y, 2, verbose=0)
    assert moved(model, before) == [] and len(history) == 2


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_frozen_too(way):
    model = net().freeze("0.*")
    assert way(model).frozen == ["0.weight", "0.bias"]


def test_files_keep_it(tmp_path):
    path, model = tmp_path / "net", net().freeze("0.*")
    model.save(path)
    assert fn.load(path).frozen == ["0.weight", "0.bias"]
    one = trainer(net().freeze("3.bias"))
    one.fit(X, Y, 2, verbose=0)
    one.save(path)
    assert fn.Trainer.load(path).model.frozen == ["3.bias"]


def test_a_layer_alone_and_in_a_model():
    layer = fn.Linear(4, 2).freeze()
    assert layer.frozen and not fn.ReLU().freeze().frozen
    model = fn.Sequential(layer, fn.Linear(2, 2))
    assert model.frozen == ["0.weight", "0.bias"]
    layer.unfreeze()
    assert model.frozen == [] and not layer.frozen


def test_names_that_fit_nothing_change_nothing():
    model = net().freeze("0.*")
    for bad, match in (
        ("5.*", "which fits nothing in the model; it has 0.weight, 0.bias"),
        (3, "names has 3"),
    ):
        with pytest.raises(HyperparameterError, match=match):
            model.freeze("3.*", bad)
        with pytest.raises(HyperparameterError, match=match):
            model.unfreeze(bad)
    assert model.frozen == ["0.weight", "0.bias"]
    with pytest.raises(AttributeError, match=r"write layer.freeze\(\)"):
        model[0].trainable = False


def test_within_a_fit_it_is_refused():
    class Freezes(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            self.trainer.model[0].freeze()

    with pytest.raises(UsageError, match="being trained"):
        trainer(net()).fit(X, Y, callbacks=[Freezes()], verbose=0)


def test_many_nets(backend):
    models = [net(backend).freeze("0.*"), net(backend)]
    before = [m.state_dict() for m in models]
    fn.fit_many(models, X, Y, losses=fn.MSELoss(), epochs=2, seeds=[0, 0])
    alone = net(backend).freeze("0.*")
    fn.Trainer(alone, fn.MSELoss(), seed=0).fit(X, Y, 2, verbose=0)
    assert "0.weight" not in moved(models[0], before[0]) and "0.weight" in moved(
        models[1], before[1]
    )
    assert alone.predict(X).tobytes() == models[0].predict(X).tobytes()
