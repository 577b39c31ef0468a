"""State dicts of optimizers, averages, callbacks and trainers: what goes on from them, what is refused."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import StateDictError, UsageError
from fastnet.train.callbacks import KeepBest

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(23, 3)), RNG.normal(size=(23, 2))


def net(backend="c", seed=1):
    layers = fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Tanh(), fn.Dropout(0.3), fn.Linear(4, 2)
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=seed)


def bits(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


def plain(state):
    """A state dict with its arrays as bytes, to be compared."""
    if isinstance(state, dict):
        return {name: plain(value) for name, value in state.items() if name != "seconds"}
    if isinstance(state, list):
        return [plain(record) for record in state]
    return (state.shape, state.tobytes()) if isinstance(state, np.ndarray) else state


def untimed(history):
    return [{n: v for n, v in r.items() if "second" not in n} for r in history.records]


HALF = [{"params": "0.*", "lr": 0.05, "weight_decay": 0.1}]
ALL = {
    "adam": lambda: {"optimizer": fn.Adam(0.01, amsgrad=True), "averaging": fn.EMA(0.9)},
    "adamw, l1": lambda: {"optimizer": fn.AdamW(0.01, l1=0.01), "clip_norm": 0.5},
    "momentum": lambda: {"optimizer": fn.SGD(0.1, 0.9, groups=HALF), "averaging": fn.SWA(1)},
    "sgd": lambda: {"optimizer": fn.SGD(0.1), "averaging": fn.SWA(4)},
    "textbook": lambda: {"optimizer": fn.SGD(0.1, 0.9, form="textbook", nesterov=True)},
    "rmsprop": lambda: {"optimizer": fn.RMSprop(0.01, centered=True, momentum=0.5)},
    "adagrad": lambda: {"optimizer": fn.Adagrad(0.1, initial_accumulator_value=0.5)},
    "adadelta": lambda: {"optimizer": fn.Adadelta(0.5)},
    "adamax": lambda: {"optimizer": fn.Adamax(0.01)},
    "nadam": lambda: {"optimizer": fn.NAdam(0.01)},
    "radam": lambda: {"optimizer": fn.RAdam(0.01)},
    "lion": lambda: {"optimizer": fn.Lion(0.01)},
    "muon": lambda: {"optimizer": fn.Muon(0.01)},
    "learned": lambda: {"optimizer": fn.LearnedOptimizer(lr=0.01, groups=HALF)},
    "rprop": lambda: {"optimizer": fn.Rprop(0.01)},
    "schedule-free": lambda: {"optimizer": fn.ScheduleFreeSGD(0.1, warmup_steps=4)},
    "schedule-free adamw": lambda: {"optimizer": fn.ScheduleFreeAdamW(0.01)},
    "yellowfin": lambda: {"optimizer": fn.YellowFin(), "clip_norm": 0.5},
    "yellowfin, closed": lambda: {"optimizer": fn.YellowFin(closed_loop=True, log_smoothing=True)},
    "sgdhd": lambda: {"optimizer": fn.SGDHD(0.1, 0.9, nesterov=True), "averaging": fn.EMA(0.9)},
    "adamhd": lambda: {"optimizer": fn.AdamHD(0.01, hypergrad_lr=1e-4)},
    "evaluated": lambda: {"optimizer": fn.SGD(0.1), "averaging": fn.EMA(0.9, evaluate=True)},
}


def trainer(backend="c", options="adam", seed=3, **more):
    return fn.Trainer(net(backend), fn.MSELoss(), seed=seed, **ALL[options](), **more)


def fit(one, epochs=2, **more):
    one.fit(X, Y, epochs, 5, verbose=0, **more)
    return one


@pytest.mark.parametrize("epochs", [0, 2])
@pytest.mark.parametrize("options", ALL)
def test_another_trainer_goes_on_to_the_bit(backend, options, epochs):
    first = trainer(backend, options)
    if epochs:
        fit(first, epochs)
    kept, values = first.state_dict(), first.model.state_dict()
    before = plain(kept)
    fit(first, 3)
    assert plain(kept) == before  # which follows no later step
    second = fit(trainer(backend, options, seed=9), 1)
    second.model.load_state_dict(values)
    second.load_state_dict(kept)
    assert plain(second.state_dict()) == before
    fit(second, 3)
    assert bits(second.model) == bits(first.model)
    assert untimed(second.history) == untimed(first.history)
    assert plain(second.state_dict()["optimizer"]) == plain(first.state_dict()["optimizer"])
    if first.state_dict()["averages"]["count"]:
        assert bits(second.averaged_model(X)) == bits(first.averaged_model(X))


def test_names_and_shapes():
    state = fit(trainer("c", "adam")).state_dict()
    named = {n: v.shape for n, v in trainer().model.named_parameters().items()}
    vectors = {f"{v}/{n}": shape for v in ("m", "v", "top") for n, shape in named.items()}
    optimizer = state["optimizer"]
    assert optimizer.pop("steps") == 10 == state["averages"].pop("count") == state["step"]
    assert {optimizer.pop(f"since/{n}") for n in named} == {0}
    assert {n: v.shape for n, v in optimizer.items()} == vectors
    assert {n: v.shape for n, v in state["averages"].items()} == {
        f"average/{n}": shape for n, shape in named.items()
    }
    assert all(v.flags.c_contiguous and v.flags.owndata for v in optimizer.values())
    assert state["epoch"] == 2 and state["seed"] == 3 and len(state["history"]) == 2


class Counting(pickle.Pickler):
    """Notes the bytes of each array."""

    def reducer_override(self, value):
        if isinstance(value, np.ndarray):
            self.sizes.append(value.nbytes)
        return NotImplemented


@pytest.mark.parametrize(("options", "vectors"), [("adam", 3), ("momentum", 1), ("sgd", 0)])
def test_a_pickle_has_values_vectors_and_averages_and_no_padding(options, vectors):
    one = fit(trainer("c", options))
    pickler = Counting(io.BytesIO())
    pickler.sizes = []
    pickler.dump(one)
    values = sum(value.nbytes for value in one.model.state_dict().values())
    trained = sum(value.nbytes for value in one.model.parameters())
    averages = one.state_dict()["averages"]["count"] > 0
    assert sum(pickler.sizes) == values + trained * (vectors + averages)


def test_what_is_made_anew_by_each_step_is_no_state():
    """The gradient with the penalty's."""
    names = fit(trainer("c", "adamw, l1")).state_dict()["optimizer"]
    assert {name.split("/")[0] for name in names} == {"steps", "since", "m", "v"}


def test_a_vector_that_waits_is_kept():
    first = fit(trainer("c", "momentum"))
    first.optimizer.momentum = 0.0
    state, values = first.state_dict(), first.model.state_dict()
    second = trainer("c", "momentum")
    second.optimizer.momentum = 0.0
    second.model.load_state_dict(values)
    second.load_state_dict(state)
    for one in (first, second):
        fit(one, 1)
        one.optimizer.momentum = 0.9
        fit(one, 1)
    assert bits(first.model) == bits(second.model)


def test_an_optimizer_of_ones_own_loop_goes_on(backend):
    one, two = net(backend), net(backend)
    first, second = fn.Adam(0.01), fn.Adam(0.01)
    for _ in range(3):
        one.value_and_grad(fn.MSELoss(), X, Y)
        first.step(one)
    two.load_state_dict(one.state_dict())
    second.load_state_dict(two, first.state_dict(one))
    for model, optimizer in ((one, first), (two, second)):
        model.eval().value_and_grad(fn.MSELoss(), X, Y)
        optimizer.step(model)
    assert bits(one) == bits(two)


def without(*path):
    def change(state):
        for name in path[:-1]:
            state = state[name]
        del state[path[-1]]

    return change


BAD = {
    "no mapping": (lambda s: 3, "^state_dict is 3; expected a mapping"),
    "a count that is missing": (
        without("step"),
        "^state_dict does not fit: missing \\['step'\\]",
    ),
    "an unexpected name": (lambda s: s.update(steps=3), "missing \\[\\], unexpected \\['steps'\\]"),
    "a count": (lambda s: s.update(epoch=-1), r"^state_dict\['epoch'\] is -1; expected an integer"),
    "a float": (lambda s: s.update(step=1.5), r"^state_dict\['step'\] is 1.5; expected an integer"),
    "a seed": (lambda s: s.update(seed=2**64), r"^state_dict\['seed'\] is .*; expected an integer"),
    "a history": (
        lambda s: s.update(history=[3]),
        r"^state_dict\['history'\] is \[3\]; expected a list",
    ),
    "no steps": (
        without("optimizer", "steps"),
        r"^state_dict\['optimizer'\] .* \['steps'\]",
    ),
    "steps alone": (
        lambda s: s.update(optimizer={"steps": 3}),
        "missing .*'since/0.weight', 'm/0.wei",
    ),
    "a vector that is missing": (
        without("optimizer", "v/4.bias"),
        r"missing \['v/4.bias'\], un",
    ),
    "a vector of another rule": (
        lambda s: s["optimizer"].update({"b/0.bias": np.zeros(4)}),
        r"^state_dict\['optimizer'\] does not fit: missing \[\], unexpected \['b/0.bias'\]",
    ),
    "a vector of no parameter": (
        lambda s: s["optimizer"].update({"m/9.bias": np.zeros(4)}),
        r"unexpected \['m/9.bias'\]",
    ),
    "vectors before a step": (
        lambda s: s["optimizer"].update(steps=0),
        "unexpected|expected an integer",
    ),
    "since later": (
        lambda s: s["optimizer"].update({"since/0.bias": 11}),
        r"^state_dict\['optimizer'\]\['since/0.bias'\] is 11; expected an integer in \[0, 10\]",
    ),
    "a shape": (
        lambda s: s["optimizer"].update({"m/0.weight": np.zeros((3, 4))}),
        r"^state_dict\['optimizer'\]\['m/0.weight'\] has shape \(3, 4\), expected \(4, 3\)",
    ),
    "no numbers": (
        lambda s: s["optimizer"].update({"m/0.bias": np.array(list("abcd"))}),
        r"^state_dict\['optimizer'\]\['m/0.bias'\] has dtype",
    ),
    "an average": (
        without("averages", "average/0.weight"),
        r"^state_dict\['averages'\] does not fit: missing \['average/0.weight'\]",
    ),
    "an average's shape": (
        lambda s: s["averages"].update({"average/0.bias": np.zeros(5)}),
        r"^state_dict\['averages'\]\['average/0.bias'\] has shape \(5,\), expected \(4,\)",
    ),
    "averages without a count": (
        lambda s: s["averages"].update(count=0),
        "unexpected .*average/0.wei",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_and_changes_nothing(case):
    change, message = BAD[case]
    one = fit(trainer("c", "adam"))
    before, values = plain(one.state_dict()), bits(one.model)
    state = fit(trainer("c", "adam", seed=9)).state_dict()
    state = change(state) or state
    refused(lambda: one.load_state_dict(state), StateDictError, message)
    assert plain(one.state_dict()) == before and bits(one.model) == values


def test_a_trainer_without_averaging_refuses_an_average():
    state = fit(trainer("c", "adam")).state_dict()
    other = fn.Trainer(net(), fn.MSELoss(), fn.Adam(0.01, amsgrad=True))
    message = (
        r"^state_dict\['averages'\]\['count'\] is 10 for a trainer without averaging; expected 0"
    )
    refused(lambda: other.load_state_dict(state), StateDictError, message)
    assert other.epoch == 0


def test_an_optimizer_of_another_kind_refuses_a_state():
    model, optimizer = net(), fn.SGD(0.1, 0.9)
    state = fit(trainer("c", "adam")).state_dict()["optimizer"]
    refused(
        lambda: optimizer.load_state_dict(model, state), StateDictError, "unexpected .*'m/0.weight'"
    )
    assert optimizer.state_dict(model) == {"steps": 0}


class Loads(fn.Callback):
    def on_epoch_end(self, epoch, logs):
        self.trainer.load_state_dict(self.trainer.state_dict())


def test_nothing_is_loaded_within_a_fit():
    with pytest.raises(UsageError, match="being trained"):
        fit(trainer(), callbacks=[Loads()])


class Watches(fn.Callback):
    def __init__(self, other):
        super().__init__(other=other)
        self.states = []

    def on_epoch_end(self, epoch, logs):
        self.states.append(self.other.state_dict())


SCORES = {
    "plateau": lambda: fn.ReduceLROnPlateau("loss", factor=0.5, patience=1, threshold=1.0),
    "stop": lambda: fn.EarlyStopping("loss", 9, restore_best_weights=True),
    "best": lambda: KeepBest("loss"),
}


@pytest.mark.parametrize("kind", SCORES)
def test_callbacks_have_states(kind):
    made = SCORES[kind]()
    watch, one = Watches(made), trainer()
    fresh = made.state_dict()
    fit(one, 5, callbacks=[made, watch])
    last = watch.states[-1]
    assert last["best"] < fresh["best"] == np.inf and plain(last) != plain(watch.states[0])
    other = SCORES[kind]()
    other.load_state_dict(last)
    assert plain(other.state_dict()) == plain(last)
    if kind != "plateau":
        kept = {n.removeprefix("kept/"): v.tobytes() for n, v in last.items() if "kept/" in n}
        assert kept == bits(one.model)  # which has gone back to these
    before = plain(other.state_dict())
    if kind != "plateau":
        text = {**last, "kept/0.bias": np.array(["a"])}
        refused(lambda: other.load_state_dict(text), StateDictError, r"\['kept/0.bias'\] has dtype")
    for change in ({"wait": -1}, {"best": np.zeros(2)}, {"best": "3"}, {"spam": 1}, {"wait": None}):
        refused(lambda c=change: other.load_state_dict({**last, **c}), StateDictError, "state_dict")
    refused(lambda: other.load_state_dict({"best": 1.0}), StateDictError, "missing .*'wait'")
    assert plain(other.state_dict()) == before
    assert fn.Callback().state_dict() == {}
    refused(lambda: fn.Callback().load_state_dict(last), StateDictError, "unexpected")


def test_a_plateau_goes_on_from_its_state():
    lone = trainer("c", "sgd")
    whole = SCORES["plateau"]()
    fit(lone, 6, callbacks=[whole])
    first, before = trainer("c", "sgd"), SCORES["plateau"]()
    fit(first, 3, callbacks=[before])
    second, after = trainer("c", "sgd", seed=9), SCORES["plateau"]()
    second.optimizer = fn.SGD.from_config(first.optimizer.config())
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    after.load_state_dict(before.state_dict())
    fit(second, 3, callbacks=[after])
    assert bits(second.model) == bits(lone.model)
    assert second.optimizer.lr == lone.optimizer.lr < 0.1
    found = {**after.state_dict(), "trained_key": None}
    assert found == {**whole.state_dict(), "trained_key": None}


@pytest.mark.parametrize("count", [2**53 + 1, 2**63, 2**64, -1])
@pytest.mark.parametrize("name", ["epoch", "step", "optimizer"])
def test_counts_that_no_fit_could_go_on_from_are_refused(name, count):
    model = fn.Sequential(fn.Linear(2, 1), backend="reference", seed=0)
    trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(fn.schedules.StepLR(0.1, 5)), seed=0)
    trainer.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    state = trainer.state_dict()
    if name == "optimizer":
        state["optimizer"]["steps"] = count
    else:
        state[name] = count
    with pytest.raises(
        StateDictError, match=rf"{'steps' if name == 'optimizer' else name}.* is {count}"
    ):
        trainer.load_state_dict(state)
    assert trainer.state_dict()["step"] == 1
