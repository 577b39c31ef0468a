"""Copies of layers, models, losses and optimizers, by copy and by pickle, and what is set free."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import fastnet as fn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3))
LABELS = RNG.integers(0, 2, size=12)
DY = RNG.normal(size=(12, 2))

WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}
copied = pytest.mark.parametrize("way", WAYS)


def net(backend="auto", seed=1):
    inner = fn.Sequential(fn.BatchNorm1d(5), fn.Dropout(0.3))
    layers = fn.Linear(3, 5), inner, fn.Tanh(), fn.Linear(5, 2, bias=False)
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=seed)


def train(model):
    fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(0.01), seed=3).fit(X, LABELS, 2, 5, verbose=0)


def with_draws(model):
    model.forward(X)
    model.value_and_grad(fn.CrossEntropyLoss(), X, LABELS)


STATES = {
    "unused": lambda m: None,
    "after a prediction": lambda m: m.predict(X),
    "after a fit": train,
    "with a pending backward": lambda m: m.forward(X),
    "after draws of dropout": with_draws,
    "with a layer in evaluation mode": lambda m: m[1].eval(),
}


def bits(thing):
    return {name: value.tobytes() for name, value in thing.state_dict().items()}


@copied
@pytest.mark.parametrize("state", STATES)
def test_a_copied_model_is_the_same_and_its_own(backend, way, state):
    model = net(backend)
    STATES[state](model)
    twin = WAYS[way](model)
    assert repr(twin) == repr(model) and twin.seed == model.seed and twin.backend == backend
    assert bits(twin) == bits(model)
    assert [la.training for _, la in twin.layers] == [la.training for _, la in model.layers]
    assert not any(grad.any() for grad in twin.grads.values())
    with pytest.raises(fn.errors.UsageError, match="needs a forward"):
        twin.backward(DY)
    for ours, theirs in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert not np.shares_memory(ours, theirs)
    before = bits(model)
    for change in (train, lambda m: m.forward(X), train):
        change(twin)
        assert bits(model) == before
    assert bits(twin) != before
    for change in (train, lambda m: m.forward(X), train):
        change(model)
    assert bits(twin) == bits(model)
    np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    np.testing.assert_array_equal(twin.forward(X), model.forward(X))  # the same draws of dropout


@copied
def test_a_copy_leaves_a_pending_backward(way):
    model, other = net(), net()
    for each in (model, other):
        each.forward(X)
    WAYS[way](model)
    np.testing.assert_array_equal(model.backward(DY), other.backward(DY))


@copied
def test_an_unseeded_model_and_its_copy_are_equal_before_any_use(way):
    model = net(seed=None)
    assert bits(WAYS[way](model)) == bits(model)


SOURCES = {
    "unused": lambda: fn.Linear(3, 2),
    "used": lambda: used(fn.Linear(3, 2)),
    "of a model": lambda: fn.Sequential(fn.Linear(3, 2))[0],
    "of a model in use": lambda: used(fn.Sequential(fn.Linear(3, 2)))[0],
    "batchnorm of a model": lambda: used(net())[1][0],
}


def used(thing):
    thing.forward(X[:, :3])
    return thing


@copied
@pytest.mark.parametrize("source", SOURCES)
def test_a_copied_layer_works_alone(way, source):
    layer = SOURCES[source]()
    values = bits(layer) if source != "unused" else None
    twin = WAYS[way](layer)
    x = RNG.normal(size=(6, 5 if "batchnorm" in source else 3))
    out = twin.forward(x)
    twin.backward(np.ones_like(out))
    assert set(twin.grads) == {"weight", "bias"}
    assert any(grad.any() for grad in twin.grads.values())
    if values is not None:
        assert bits(layer) == values
        np.testing.assert_array_equal(twin.weight, layer.weight)
        assert not np.shares_memory(twin.weight, layer.weight)


@copied
def test_a_copied_layer_can_join_another_model(way):
    model = net()
    train(model)
    twins = [WAYS[way](part) for part in model]
    other = fn.Sequential(*twins, dtype="float64")
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    before = bits(model)
    train(other)
    assert bits(model) == before


@copied
@pytest.mark.parametrize("loss", [fn.CrossEntropyLoss(), fn.MSELoss()], ids=["nll", "mse"])
def test_a_copied_loss_has_no_pending_backward(way, loss):
    y = LABELS if isinstance(loss, fn.CrossEntropyLoss) else -DY
    value = loss.forward(DY, y)
    twin = WAYS[way](loss)
    assert repr(twin) == repr(loss)
    with pytest.raises(fn.errors.UsageError, match="needs a forward"):
        twin.backward()
    gradient = loss.backward()
    assert twin.forward(DY, y) == value
    np.testing.assert_array_equal(twin.backward(), gradient)


OPTIMIZERS = [fn.SGD(0.2, 0.9, nesterov=True), fn.Adam(0.1, (0.8, 0.9)), fn.AdamW(weight_decay=0.3)]


@copied
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adam", "adamw"])
def test_a_copied_optimizer_starts_afresh(way, optimizer):
    one = net()
    for _ in range(3):
        one.value_and_grad(fn.CrossEntropyLoss(), X, LABELS)
        optimizer.step(one)
    twin = WAYS[way](optimizer)
    assert repr(twin) == repr(optimizer)
    new = type(optimizer)(**{k: v for k, v in vars(optimizer).items() if k[0] != "_"})
    models = [copy.deepcopy(one) for _ in range(2)]
    for model, fresh in zip(models, (twin, new), strict=True):
        model.value_and_grad(fn.CrossEntropyLoss(), X, LABELS)
        fresh.step(model)
    assert bits(models[0]) == bits(models[1]) != bits(one)
    twin.lr = optimizer.lr + 1
    assert optimizer.lr == new.lr


def test_a_model_is_set_free_and_the_optimizers_state_with_it(backend):
    optimizer, loss = fn.Adam(), fn.CrossEntropyLoss()
    model = net(backend)
    trainer = fn.Trainer(model, loss, optimizer)
    trainer.fit(X, LABELS, validation_data=(X, LABELS), restore_best=True, verbose=0)
    model.predict(X)
    model.forward(X)
    parameters = weakref.ref(model.bind().segments["params"])
    state = weakref.ref(optimizer.state(model))
    assert state().steps == 1
    gone = weakref.ref(model)
    runs = [weakref.ref(e) for e in model._runtime.kept.executors.values()]
    runs += [weakref.ref(e) for e in model._runtime.thread.executors.values()]
    assert len(runs) >= 3
    part = model[1]
    gc.collect()
    gc.disable()  # what goes in a circle would stay
    try:
        del model, trainer
        assert gone() is None and state() is None and parameters() is None
        assert not any(run() for run in runs) and part.output_shape((5,)) == (5,)
    finally:
        gc.enable()
    assert len(optimizer._states) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_part_goes_on_without_its_model(backend, dtype):
    part = fn.Sequential(fn.Linear(3, 5), fn.BatchNorm1d(5))
    model = fn.Sequential(part, fn.Linear(5, 2), backend=backend, dtype=dtype, seed=1)
    train(model)
    before, weight = bits(part), model[1].weight.tobytes()
    layer = model[1]
    del model
    assert bits(part) == before and part.dtype == dtype and part.seed == 1
    part.forward(X)
    assert part.predict(X).dtype == dtype
    assert layer.weight.tobytes() == weight
    layer.load_state_dict({"weight": np.ones((2, 5)), "bias": np.ones(2)})
    np.testing.assert_allclose(layer.forward(np.ones((1, 5))), [[6, 6]])


def test_views_outlive_their_model():
    model = net()
    view, expected = model[0].weight, model[0].weight.copy()
    del model
    gc.collect()
    np.testing.assert_array_equal(view, expected)


LARGE = RNG.normal(size=(20, 300)).astype("f")
TARGETS = RNG.normal(size=(20, 200)).astype("f")


def large(**options):
    layers = fn.Linear(300, 200), fn.BatchNorm1d(200), fn.ReLU(), fn.Linear(200, 200)
    model = fn.Sequential(*layers, seed=1)
    return fn.Trainer(model, fn.HuberLoss(), seed=2, **options)


@pytest.mark.parametrize(
    ("options", "fresh", "used"),
    [
        ({}, 1, 3),
        ({"optimizer": fn.SGD(0.1)}, 1, 1),
        ({"optimizer": fn.SGD(0.1, 0.9), "clip_norm": 1.0}, 1, 2),
        ({"averaging": fn.EMA(0.9)}, 1, 4),
    ],
    ids=["adam", "sgd", "momentum, clipped", "averaged"],
)
def test_a_pickle_holds_what_is_needed_to_go_on_and_nothing_else(options, fresh, used):
    trainer = large(**options)
    size = sum(value.nbytes for value in trainer.model.state_dict().values())
    assert size <= len(pickle.dumps(trainer.model)) < size + 4000
    assert fresh * size <= len(pickle.dumps(trainer)) < fresh * size + 8000
    trainer.fit(LARGE, TARGETS, 1, 5, verbose=0)
    trainer.model.backward(np.ones_like(trainer.model.forward(LARGE)))
    assert size <= len(pickle.dumps(trainer.model)) < size + 4000
    assert used * size - 8000 <= len(pickle.dumps(trainer)) < used * size + 8000
    layers = sum(len(pickle.dumps(layer)) for layer in trainer.model)
    assert size <= layers < size + 4000


GO_ON = {
    "adam": lambda: {"optimizer": fn.Adam(0.01, amsgrad=True)},
    "momentum, clipped": lambda: {"optimizer": fn.SGD(0.1, 0.9), "clip_norm": 0.1},
    "rmsprop": lambda: {"optimizer": fn.RMSprop(0.01, centered=True)},
    "nadam": lambda: {"optimizer": fn.NAdam(0.01)},
    "adagrad": lambda: {"optimizer": fn.Adagrad(0.1, initial_accumulator_value=0.5)},
    "ema": lambda: {"averaging": fn.EMA(0.9)},
    "swa": lambda: {"averaging": fn.SWA(1)},
}


@copied
@pytest.mark.parametrize("when", [0, 2])
@pytest.mark.parametrize("options", GO_ON)
def test_a_copied_trainer_and_its_callback_go_on_to_the_bit(way, when, options):
    """With the seventh of a rate on a plateau that the third epoch reaches."""
    model = fn.Sequential(
        *(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Dropout(0.2), fn.Linear(4, 2)), seed=1
    )
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), seed=3, **GO_ON[options]())
    plateau = fn.ReduceLROnPlateau("loss", factor=1 / 7, patience=2, threshold=1.0)
    if when:
        trainer.fit(X, LABELS, when, 5, callbacks=[plateau], verbose=0)
    # Each on its own, as two files would be.
    twin, other = WAYS[way](trainer), WAYS[way](plateau)
    for each, callback in ((trainer, plateau), (twin, other)):
        each.fit(X, LABELS, 3, 5, callbacks=[callback], verbose=0)
    assert repr(twin.optimizer) == repr(trainer.optimizer)
    assert (twin.step, twin.epoch, other.best) == (trainer.step, trainer.epoch, plateau.best)
    assert bits(twin.model) == bits(trainer.model)
    if trainer._chain.averaging:
        with_x = () if "ema" in options else (X,)
        averaged = [bits(each.averaged_model(*with_x)) for each in (twin, trainer)]
        assert averaged[0] == averaged[1]


def test_a_plateau_that_was_copied_goes_on_with_its_counts():
    trainer = fn.Trainer(net(), fn.CrossEntropyLoss(), fn.SGD(0.7), seed=3)
    plateau = fn.ReduceLROnPlateau("loss", factor=1 / 7, patience=2, threshold=1.0)
    trainer.fit(X, LABELS, 3, 5, callbacks=[plateau], verbose=0)
    twin, other = pickle.loads(pickle.dumps(trainer)), pickle.loads(pickle.dumps(plateau))
    twin.fit(X, LABELS, 1, 5, callbacks=[other], verbose=0)
    assert twin.optimizer.lr == pytest.approx(0.1)  # after three epochs in a row that are no better


def test_layers_of_a_model_that_was_dropped_draw_its_values():
    """Before its first use, too: not values of their own."""
    model = fn.Sequential(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2), seed=5)
    dropped = list(fn.Sequential(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2), seed=5))
    for path, place in (("0", 0), ("2", 2)):
        for name, value in dropped[place].state_dict().items():
            np.testing.assert_array_equal(value, model.state_dict()[f"{path}.{name}"])
