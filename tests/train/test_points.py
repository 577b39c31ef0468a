"""Averages that are evaluated: where the parameters are, and that training goes on to the bit."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, UsageError

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(48, 3))
Y = np.sin(X[:, :2]) + 0.1 * RANDOM.normal(size=(48, 2))
VALID = X[:11], Y[:11]
HALF = [{"params": "0.*", "lr": 0.03, "momentum": 0.7}]
ALL = {
    "sgd": lambda: {"optimizer": fn.ScheduleFreeSGD(0.1, warmup_steps=7, groups=HALF)},
    "adamw": lambda: {"optimizer": fn.ScheduleFreeAdamW(0.01, weight_decay=0.1, r=1.0)},
    "ema": lambda: {"optimizer": fn.Adam(0.01), "averaging": fn.EMA(0.9, evaluate=True)},
}
SCHEDULE_FREE = ["sgd", "adamw"]
every = pytest.mark.parametrize("options", ALL)


def net(backend="c", norm=True, dtype="float64"):
    norms = [fn.BatchNorm1d(4), fn.Dropout(0.2)] if norm else []
    layers = fn.Linear(3, 4), *norms, fn.Tanh(), fn.Linear(4, 2)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=1)


def trainer(backend, options, norm=True, dtype="float64", **more):
    return fn.Trainer(net(backend, norm, dtype), fn.MSELoss(), seed=3, **ALL[options](), **more)


def fit(one, epochs=2, **more):
    return one.fit(X, Y, epochs, 5, verbose=0, **more)


def bits(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


def of(model):
    return np.concatenate([p.ravel() for p in model.parameters()])


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("validated", [False, True])
def test_two_fits_are_one(backend, options, dtype, validated):
    one, two = (trainer(backend, options, dtype=dtype) for _ in range(2))
    more = {"validation_data": VALID} if validated else {}
    fit(one, 4, **more)
    fit(two, 2, **more), fit(two, 2, **more)
    assert bits(one.model) == bits(two.model)


@every
@pytest.mark.parametrize("batch_size", [16, 48])
def test_two_fits_of_whole_epochs_in_one_call_are_one(backend, options, batch_size):
    one, two = (trainer(backend, options) for _ in range(2))
    for each, parts in ((one, [40]), (two, [13, 27])):
        for epochs in parts:
            each.fit(X, Y, epochs, batch_size, verbose=0)
    assert bits(one.model) == bits(two.model)
    losses = [[record["loss"] for record in each.history.records] for each in (one, two)]
    assert losses[0] == losses[1]


@every
def test_a_validation_changes_nothing(backend, options):
    one, two = (trainer(backend, options) for _ in range(2))
    fit(one, 4), fit(two, 4, validation_data=VALID)
    assert bits(one.model) == bits(two.model)
    assert [r["loss"] for r in one.history.records] == [r["loss"] for r in two.history.records]


@every
def test_a_validation_and_callbacks_see_what_the_fit_returns(backend, options):
    one, seen = trainer(backend, options), []

    class Look(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            seen.append((self.trainer.evaluate(*VALID)["loss"], logs["val_loss"]))

    fit(one, 3, validation_data=VALID, callbacks=[Look()])
    assert [a for a, _ in seen] == [b for _, b in seen]
    assert one.evaluate(*VALID)["loss"] == seen[-1][0]
    for epochs, (loss, _) in enumerate(seen, 1):
        other = trainer(backend, options)
        fit(other, epochs)
        assert other.evaluate(*VALID)["loss"] == loss


def test_the_average_is_that_of_another_trainer(backend):
    """EMA: what evaluate=True shows is what `averaged_model` has without it."""
    one = trainer(backend, "ema", norm=False)
    two = fn.Trainer(
        net(backend, False), fn.MSELoss(), fn.Adam(0.01), seed=3, averaging=fn.EMA(0.9)
    )
    fit(one), fit(two)
    assert bits(one.model) == bits(two.averaged_model()) == bits(one.averaged_model())
    trained = one.state_dict()["averages"]
    for name, value in two.model.named_parameters().items():
        np.testing.assert_array_equal(trained[f"trained/{name}"], value)


@every
def test_train_on_batch_is_a_fit(backend, options):
    one, two = (trainer(backend, options, norm=False) for _ in range(2))
    fit(one, 2, shuffle=True)
    for epoch in range(2):
        for x, y in fn.batches(X, Y, batch_size=5, seed=3, epoch=epoch):
            two.train_on_batch(x, y)
    assert bits(one.model) == bits(two.model)


@every
@pytest.mark.parametrize("way", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_copy_goes_on_to_the_bit(backend, options, way):
    one = trainer(backend, options)
    fit(one)
    two = way(one)
    assert bits(one.model) == bits(two.model)
    fit(one), fit(two)
    assert bits(one.model) == bits(two.model)


@every
@pytest.mark.parametrize("model_first", [False, True])
def test_state_dicts_go_on_to_the_bit(backend, options, model_first):
    one, two = (trainer(backend, options) for _ in range(2))
    fit(one), fit(two, 1)
    values, state = one.model.state_dict(), one.state_dict()
    if model_first:
        two.model.load_state_dict(values)
    two.load_state_dict(state)
    if not model_first:
        two.model.load_state_dict(values)
    fit(one), fit(two)
    assert bits(one.model) == bits(two.model)


@every
def test_the_training_goes_on_from_changed_parameters(backend, options):
    one = trainer(backend, options, norm=False)
    fit(one)
    changed = {name: value + 1.0 for name, value in one.model.state_dict().items()}
    one.model.load_state_dict(changed)
    loss = one.evaluate(X, Y)["loss"]
    one._to_training()
    assert one.evaluate(X, Y)["loss"] == pytest.approx(loss, rel=0.3)
    got = of(one.model)
    want = np.concatenate([v.ravel() for v in changed.values()])
    np.testing.assert_allclose(got, want, atol=0.2)


@every
def test_the_best_epoch_comes_back_with_all_that_belongs_to_it(backend, options):
    one, seen = trainer(backend, options), []

    class Look(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            state = self.trainer.state_dict()
            seen.append((logs["val_loss"], bits(self.trainer.model), state))

    far = X[:11], Y[:11] + 5 * of(one.model).mean()
    fit(one, 6, validation_data=far, callbacks=[Look()], restore_best=True)
    best = int(np.argmin([loss for loss, _, _ in seen]))
    assert bits(one.model) == seen[best][1]
    now, then = one.state_dict(), seen[best][2]
    for part, vectors in (("optimizer", ("y/", "gap/")), ("averages", ("average/", "trained/"))):
        for name, value in then[part].items():
            if name.startswith(vectors):
                np.testing.assert_array_equal(now[part][name], value, err_msg=name)


@every
def test_statistics_are_those_of_the_averages(backend, options):
    one = trainer(backend, options)
    one.fit(X, Y, 3, 24, shuffle=False, verbose=0)
    values = one.model.state_dict()
    hidden = X @ values["0.weight"].T + values["0.bias"]
    mean = np.mean([part.mean(axis=0) for part in (hidden[:24], hidden[24:])], axis=0)
    var = np.mean([part.var(axis=0, ddof=1) for part in (hidden[:24], hidden[24:])], axis=0)
    np.testing.assert_allclose(values["1.running_mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(values["1.running_var"], var, rtol=1e-12)


@every
def test_respected_modes_keep_statistics(backend, options):
    one = trainer(backend, options)
    one.model.eval()
    before = one.model.state_dict()["1.running_mean"]
    fit(one, 2, respect_modes=True, validation_data=VALID)
    np.testing.assert_array_equal(one.model.state_dict()["1.running_mean"], before)


@every
def test_a_range_test_leaves_everything(backend, options):
    one = trainer(backend, options)
    fit(one)
    before = bits(one.model), str(one.state_dict())
    one.find_lr(X, Y, 5, steps=20)
    assert (bits(one.model), str(one.state_dict())) == before


@every
def test_reset_starts_over(backend, options):
    one = trainer(backend, options)
    fit(one)
    first = bits(one.model)
    one.reset()
    fit(one)
    assert bits(one.model) == first


def freeze(model, *names):
    model.bind().freeze(p for name, p in model._named().items() if name in names)


@pytest.mark.parametrize("options", SCHEDULE_FREE)
def test_a_loop_of_ones_own_is_a_fit(backend, options):
    one, two = trainer(backend, options, norm=False), net(backend, False)
    fit(one, 2)
    optimizer, loss = ALL[options]()["optimizer"], fn.MSELoss()
    for epoch in range(2):
        optimizer.train(two)
        for x, y in fn.batches(X, Y, batch_size=5, seed=3, epoch=epoch):
            two.value_and_grad(loss, x, y)
            optimizer.step(two)
        optimizer.eval(two)
        optimizer.eval(two)
    assert bits(one.model) == bits(two)
    two.value_and_grad(loss, X, Y)
    refused(lambda: optimizer.step(two), UsageError, r"averages, .* call optimizer.train\(model\)")
    optimizer.train(two)
    two.value_and_grad(loss, X, Y)
    optimizer.step(two)


@pytest.mark.parametrize("options", SCHEDULE_FREE)
def test_freezing_leaves_the_average(backend, options):
    one = trainer(backend, options, norm=False)
    fit(one)
    before = one.model.state_dict()["0.weight"]
    freeze(one.model, "0.weight")
    fit(one)
    np.testing.assert_array_equal(one.model.state_dict()["0.weight"], before)
    freeze(one.model)
    fit(one)
    assert (one.model.state_dict()["0.weight"] != before).all()


def test_averages_of_averages_are_refused():
    for averaging in (fn.EMA(0.9), fn.SWA(1)):
        refused(
            lambda a=averaging: fn.Trainer(net(), fn.MSELoss(), fn.ScheduleFreeSGD(), averaging=a),
            HyperparameterError,
            "averaging is .*; expected None with ScheduleFreeSGD",
        )
        one = fn.Trainer(net(), fn.MSELoss(), fn.SGD(), averaging=averaging)
        one.optimizer = fn.ScheduleFreeAdamW()
        for call in (lambda o=one: fit(o), lambda o=one: o.train_on_batch(X, Y)):
            refused(call, HyperparameterError, "averaging is .*; expected None with")
