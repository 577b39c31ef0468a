"""What is assigned takes effect, or an error names what there is."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, UsageError

X, Y = np.random.default_rng(0).normal(2.0, 3.0, size=(12, 3)), np.arange(12) % 2


def net(**options):
    layers = fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Dropout(0.5), fn.Linear(4, 2)
    return fn.Sequential(*layers, seed=1, **options)


OWN = {
    "layer": (lambda: fn.Linear(3, 2), "biass", "did you mean 'bias'"),
    "dropout": (lambda: fn.Dropout(0.5), "rate", "it has p, training"),
    "loss": (lambda: fn.HuberLoss(), "slope", "it has delta, reduction"),
    "optimizer": (lambda: fn.Adam(), "learning_rate", "it has lr, betas"),
    "stop": (lambda: fn.EarlyStopping(), "patence", "did you mean 'patience'"),
    "plateau": (lambda: fn.ReduceLROnPlateau(), "cool_down", "did you mean 'cooldown'"),
    "trainer": (lambda: fn.Trainer(net(), fn.MSELoss()), "clip_norm", "it has .*optimizer"),
    "model": (net, "optimizer", "it has backend, dtype, layers, precision, seed"),
    "average": (lambda: fn.EMA(0.9), "deccay", "did you mean 'decay'"),
    "average of epochs": (lambda: fn.SWA(2), "step", "it has every, start_epoch"),
    "initialiser": (lambda: fn.init.KaimingUniform(), "gain", "it has a, mode, nonlinearity"),
    "another one": (lambda: fn.init.GlorotNormal(), "gian", "it has gain, nonlinearity"),
    "history": (lambda: fn.History(), "record", "did you mean 'records'"),
    "metric": (lambda: fn.binary_accuracy(), "treshold", "did you mean 'threshold'"),
}


@pytest.mark.parametrize("case", OWN)
def test_a_name_that_is_not_there_is_refused(case):
    make, name, message = OWN[case]
    made = make()
    with pytest.raises(AttributeError, match=f"{type(made).__name__} has no .*{name}.*{message}"):
        setattr(made, name, 1)
    assert name not in vars(made)


@pytest.mark.parametrize("name", ["requires_grad", "trainable"])
def test_freezing_is_told_what_to_write(name):
    with pytest.raises(AttributeError, match=r"Linear has no .*; write layer\.freeze\(\)"):
        setattr(fn.Linear(3, 2), name, False)


READ_ONLY = {
    "backend": (net, r"model\.to\("),
    "training": (net, r"model\.train\(\) or model\.eval\(\)"),
    "dtype": (net, r'Sequential\(\.\.\., dtype="float64"\)'),
    "seed": (net, r"Sequential\(\.\.\., seed=0\)"),
    "layers": (net, r"Sequential\(\.\.\.\)"),
    "grads": (net, r"value_and_grad"),
    "version": (net, "follows from"),
    "in_width": (lambda: fn.Linear(3, 2), "follows from"),
    "metrics": (fn.MSELoss, "follows from"),
    "classes_": (lambda: fn.Trainer(net(), fn.MSELoss()), "follows from"),
}


@pytest.mark.parametrize("name", READ_ONLY)
def test_what_cannot_be_assigned_says_what_to_write(name):
    make, message = READ_ONLY[name]
    made = make()
    before = repr(getattr(made, name))
    with pytest.raises(AttributeError, match=f"{type(made).__name__}.{name} cannot .*{message}"):
        setattr(made, name, "c")
    assert repr(getattr(made, name)) == before


class Mine(fn.EarlyStopping):
    def __init__(self):
        super().__init__()
        self.seen = []


class Doubled(fn.Layer):
    def __init__(self, factor=2.0):
        super().__init__(factor=factor)
        self.calls = 0


@pytest.mark.parametrize(
    ("make", "wrong", "meant"),
    [
        (Mine, "patiense", "patience"),
        (Doubled, "trainning", "training"),
        (Doubled, "facto", "factor"),
    ],
)
def test_classes_of_ones_own_set_what_they_like_but_near_misses(make, wrong, meant):
    made = make()
    made.remark = "mine"
    with pytest.raises(AttributeError, match=f"{wrong!r}; did you mean {meant!r}"):
        setattr(made, wrong, 1)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_what_there_is_can_be_assigned(way):
    stop, trainer, layer = fn.EarlyStopping(), fn.Trainer(net(), fn.MSELoss()), fn.Linear(3, 2)
    stop.patience, trainer.optimizer, layer.training = 3, fn.SGD(0.1), False
    assert way(stop).patience == 3 and way(layer).training is False
    assert way(trainer).optimizer.lr == 0.1


FLAGS = {
    "layer": (lambda: fn.Dropout(0.5), "training"),
    "early stopping": (lambda: fn.EarlyStopping(), "restore_best_weights"),
    "trainer": (lambda: fn.Trainer(net(), fn.MSELoss()), "stop_training"),
    "optimizer": (lambda: fn.SGD(momentum=0.9), "nesterov"),
    "loss": (lambda: fn.MSELoss(), "takes_minus_infinity"),
}


@pytest.mark.parametrize("case", FLAGS)
def test_a_flag_that_is_assigned_is_a_bool(case):
    make, name = FLAGS[case]
    made = make()
    for flag in (True, np.False_):
        setattr(made, name, flag)
        assert getattr(made, name) is bool(flag)
    for bad in ("no", 1, None, np.ones(2, bool)):
        refused(
            lambda bad=bad: setattr(made, name, bad), HyperparameterError, f"^{name} is .*True or"
        )
        assert getattr(made, name) is False


def test_values_within_edit_are_written_not_replaced():
    model = net()
    with model.edit() as p:
        with pytest.raises(AttributeError, match="Drafts has no attribute 'weight'"):
            p.weight = 1
        message = r'^p\["0.weight"\] = … changes nothing.*p\["0.weight"\]\[\.\.\.\] = …'
        refused(lambda: p.__setitem__("0.weight", np.ones((4, 3))), UsageError, message)
        p["0.bias"] += 1
        p["0.weight"][...] = 1
    assert (model.state_dict()["0.weight"] == 1).all()
    with (
        model.edit() as p,
        pytest.raises(UsageError, match=r"no value '0.weigth'; it has 0.weight"),
    ):
        p["0.weigth"] = 1


def test_a_method_that_is_no_hook_is_refused():
    message = "^Log.on_epoch_start is no hook; the hooks are on_train_begin, .*, on_train_end"
    hooks = {"on_epoch_start": lambda self, epoch: None}
    refused(lambda: type("Log", (fn.Callback,), hooks), UsageError, message)


def test_fit_can_respect_the_modes(backend):
    model = net(backend=backend)
    model.layers[1][1].eval()
    model.layers[2][1].eval()
    before = copy.deepcopy(model.state_dict())
    options = {"epochs": 1, "batch_size": 4, "shuffle": False, "verbose": 0}
    twin = copy.deepcopy(model)
    fn.Trainer(model, fn.CrossEntropyLoss(), fn.SGD(0.1)).fit(X, Y, respect_modes=True, **options)
    optimizer = fn.SGD(0.1)
    for begin in range(0, 12, 4):
        twin.value_and_grad(fn.CrossEntropyLoss(), X[begin : begin + 4], Y[begin : begin + 4])
        optimizer.step(twin)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, twin.state_dict()[name])
    still = ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert all(np.array_equal(model.state_dict()[name], before[name]) for name in still)
    fn.Trainer(model, fn.CrossEntropyLoss()).fit(X, Y, **options)
    assert not np.array_equal(model.state_dict()[still[0]], before[still[0]])


def test_a_minibatch_of_one_row_is_fine_where_statistics_are_still():
    model = net()
    model.layers[1][1].eval()
    trainer = fn.Trainer(model, fn.CrossEntropyLoss())
    trainer.fit(X, Y, batch_size=1, respect_modes=True, verbose=0)
    assert trainer.step == 12


WAYS = {
    "fit": lambda t, **flag: t.fit(X, Y, 2, 4, shuffle=False, verbose=0, **flag),
    "find_lr": lambda t, **flag: t.find_lr(X, Y, 4, steps=6, max_lr=0.1, **flag),
    "full batch": lambda t, **flag: t.fit_full_batch(X, Y, "gradient-descent", max_iter=2, **flag),
}


def losses(way, *between, backend="auto", **flag):
    """Of a model with these layers in evaluation mode between two that train, and its buffers."""
    layers = fn.Linear(3, 4), *between, fn.Linear(4, 2)
    model = fn.Sequential(*layers, seed=1, backend=backend, dtype="float64")
    for layer in between:
        layer.eval()
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.SGD(0.1), seed=1)
    found = WAYS[way](trainer, **flag)
    return found.losses if way == "find_lr" else found.history["loss"], model.state_dict()


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_training_can_respect_the_modes(backend, way):
    """Fresh batchnorm and dropout are the identity where they evaluate."""

    def norms():
        return fn.BatchNorm1d(4, eps=1e-12, affine=False), fn.Dropout(0.5)

    expected, _ = losses(way, fn.Identity(), fn.Identity(), backend=backend)
    found, state = losses(way, *norms(), backend=backend, respect_modes=True)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert not state["1.running_mean"].any()
    every, _ = losses(way, *norms(), backend=backend)
    assert abs(every[0] - expected[0]) > 1e-3
    refused(lambda: losses(way, respect_modes="no"), HyperparameterError, "^respect_modes is 'no'")


def test_blocks_of_one_row_are_fine_where_statistics_are_still():
    model = net()
    model.layers[1][1].eval()
    trainer, ways = fn.Trainer(model, fn.CrossEntropyLoss()), {"respect_modes": True}
    assert len(trainer.find_lr(X, Y, 1, steps=3, **ways).losses) == 3
    options = {"method": "gradient-descent", "max_iter": 1, "batch_size": 1}
    assert len(trainer.fit_full_batch(X, Y, **options, **ways)) == 2
