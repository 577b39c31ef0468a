"""What people type first, by habit from other libraries, is answered by what to write here."""

import inspect

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import FastnetError, HyperparameterError

X, Y = np.ones((8, 3)), np.ones((8, 1))
LARGE = np.arange(5000.0) + 0.125


def model():
    return fn.Sequential(fn.Linear(3, 100), fn.ReLU(), fn.Linear(100, 1), seed=0)


def fit(**options):
    return fn.Trainer(model(), fn.MSELoss()).fit(X, Y, verbose=0, **options)


OPTIMIZERS = [v for v in vars(fn.optim).values() if isinstance(v, type)]
OPTIMIZERS = [v for v in OPTIMIZERS if issubclass(v, fn.Optimizer) and v is not fn.Optimizer]


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("given", [lambda: (0.1,), tuple], ids=["0.1", "nothing"])
@pytest.mark.parametrize("how", [list, iter, dict, np.array, "generator"])
def test_optimizers_take_no_parameters(kind, given, how):
    first = [v.ravel()[:1] for v in model().parameters()]
    if how == "generator":
        first = (v for v in first)
    else:
        first = how(dict(enumerate(first)) if how is dict else first)
    message = rf"take no parameters here: write {kind.__name__}\(lr=\.\.\.\)"
    with pytest.raises(HyperparameterError, match=message):
        kind(first, *given())
    with pytest.raises(HyperparameterError, match=message):
        kind(first, lr=0.1)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_signatures_are_those_of_the_constructor(kind):
    first = "weights" if kind is fn.LearnedOptimizer else "lr"  # which needs no rate
    assert next(iter(inspect.signature(kind).parameters)) == first


def test_an_object_that_is_called_has_the_signature_of_its_call():
    assert list(inspect.signature(fn.schedules.StepLR(0.1, 2)).parameters) == ["step"]
    assert list(inspect.signature(fn.binary_accuracy()).parameters) == ["y", "output"]


CASES = {
    "the base of optimizers": (
        lambda: fn.Optimizer(0.1),
        r"Optimizer is the base of all optimizers; .* such as SGD\(lr=0\.1\)",
    ),
    "the base of optimizers, by names": (
        lambda: fn.Optimizer(l1=0.1),
        r"Optimizer is the base of all optimizers; .* such as SGD\(lr=0\.1\)",
    ),
    "a class for an optimizer": (
        lambda: fn.Trainer(model(), fn.MSELoss(), fn.Adam),
        r"an Optimizer, such as Adam\(",
    ),
    "a class for a loss": (lambda: fn.Trainer(model(), fn.MSELoss), r"a loss, such as MSELoss\("),
    "a class for a layer": (
        lambda: fn.Sequential(fn.Linear(3, 1), fn.ReLU),
        r"a layer, such as ReLU\(",
    ),
    "a class for a callback": (
        lambda: fit(callbacks=[fn.EarlyStopping]),
        r"a Callback, such as EarlyStopping\(",
    ),
    "a list of layers": (lambda: fn.Sequential([fn.Linear(3, 1)]), r"write Sequential\(\*layers\)"),
    "an argument of a layer without any": (
        lambda: fn.ReLU(3),
        r"^argument 1 of ReLU is 3; it takes",
    ),
    "an array for one": (lambda: fn.ReLU(X), r"^argument 1 of ReLU is an array of shape \(8, 3\)"),
    "an argument of a callback": (
        lambda: fn.Callback(3),
        r"^argument 1 of Callback is 3; it takes",
    ),
    "the base of schedules": (lambda: fn.schedules.Schedule(3), r"^argument 1 of Schedule is 3; "),
    "more than there are": (
        lambda: fn.Dropout(0.5, 3),
        r"^argument 2 of Dropout is 3; by position it takes p$",
    ),
    "by position what has a name": (
        lambda: fn.Trainer(model(), fn.MSELoss(), fn.SGD(0.1), None, 0, 0.5),
        r"^argument 6 of Trainer is 0\.5; by position it takes .*, by name alone clip_value, ",
    ),
    "no records": (lambda: fn.History(3), r"^records is 3; expected a list of dicts"),
    "a metric nobody knows": (
        lambda: fn.Trainer(model(), fn.MSELoss(), metrics=["mea"]),
        r"^metrics has 'mea'; did you mean 'mae'\?$",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_error_says_what_to_write(case):
    call, message = CASES[case]
    with pytest.raises(HyperparameterError, match=message):
        call()


@pytest.mark.parametrize("index", [2, -3, 10**20])
def test_an_index_beyond_the_layers_names_those_that_there_are(index):
    two = fn.Sequential(fn.Linear(3, 1), fn.ReLU())
    with pytest.raises(IndexError, match=rf"layer is {index}; expected an integer in \[-2, 1\]$"):
        two[index]


class Own(fn.Layer):
    """A layer of one's own that keeps what it is given."""

    def __init__(self, *sizes, scale=1.0):
        super().__init__()
        self.sizes, self.scale = sizes, scale


def test_own_classes_take_what_their_constructor_takes():
    assert Own(1, 2, 3, scale=2.0).sizes == (1, 2, 3)
    with pytest.raises(TypeError, match="scales"):
        Own(scales=2.0)


LARGE_ONES = {
    "lr": lambda a: fn.SGD(lr=a),
    "momentum": lambda a: fn.SGD(0.1, momentum=a),
    "betas": lambda a: fn.Adam(betas=a),
    "groups": lambda a: fn.Adam(groups=[{"params": "*", "lr": a}]),
    "in_features": lambda a: fn.Linear(a, 2),
    "weight_init": lambda a: fn.Linear(2, 2, weight_init=a),
    "p": fn.Dropout,
    "weight": lambda a: fn.CrossEntropyLoss(weight=a * np.nan),
    "weights of a loss": lambda a: fn.Trainer(model(), fn.CrossEntropyLoss(a, reduction="none")),
    "reduction": fn.MSELoss,
    "loss": lambda a: fn.Trainer(model(), a),
    "optimizer": lambda a: fn.Trainer(model(), fn.MSELoss(), a),
    "metrics": lambda a: fn.Trainer(model(), fn.MSELoss(), metrics={"a": a}),
    "seed": lambda a: fn.Trainer(model(), fn.MSELoss(), seed=a),
    "layer": fn.Sequential,
    "dtype": lambda a: fn.Sequential(fn.ReLU(), dtype=a),
    "batch_size": lambda a: fit(batch_size=a),
    "validation_data": lambda a: fit(validation_data=a),
    "callbacks": lambda a: fit(callbacks=[a]),
    "callbacks, alone": lambda a: fit(callbacks=a),
    "monitor": fn.EarlyStopping,
    "state_dict": lambda a: model().load_state_dict(a),
    "state_dict's": lambda a: model().load_state_dict({"0.weight": a}, strict=False),
    "model": lambda a: fn.SGD(0.1).step(a),
    "threads": fn.set_num_threads,
    "milestones": lambda a: fn.schedules.MultiStepLR(0.1, -a),
    "milestones, descending": lambda a: fn.schedules.MultiStepLR(0.1, a[::-1].astype(int)),
    "schedules": lambda a: fn.schedules.SequentialLR(a, [1]),
}


@pytest.mark.parametrize("name", LARGE_ONES)
@pytest.mark.parametrize(
    "make", [np.array, list, tuple, lambda a: dict(enumerate(a)), lambda a: {0: a}]
)
def test_no_message_prints_an_array(name, make):
    given = make(LARGE) if name not in ("weight", "weights of a loss") else LARGE
    if name.startswith("milestones"):
        given = LARGE
    with pytest.raises(FastnetError) as caught:
        LARGE_ONES[name](given)
    assert len(str(caught.value)) < 500 and "1.125" not in str(caught.value)
