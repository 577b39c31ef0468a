"""Bad values for every argument of every public call: refused by an error of fastnet, or taken.

No error leaves a public call that is not ours or names no argument; what was refused has changed
nothing.
"""

from __future__ import annotations

import copy
import importlib.util
import inspect
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import fastnet as fn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3)).astype("f")
Y = RNG.normal(size=(6, 2)).astype("f")
LABELS = np.array([0, 1, 0, 1, 1, 0])


def nested(depth):
    found = 1.0
    for _ in range(depth):
        found = [found]
    return found


LARGE = 2**70, 1e300
BAD = [
    *LARGE,
    *(None, True, "no", b"x", "", 1j, float("nan"), float("inf"), -1, 0, 1.5, -(2**70)),
    *([], (), {}, set(), [None], ["a"], [[1.0], [1.0, 2.0]], {"a": 1}, [True, "x"], range(3)),
    *(
        object(),
        int,
        len,
        lambda *a: None,
        lambda: None,
        Path("nowhere"),
        slice(2),
        NotImplemented,
        ...,
    ),
    *(
        np.float64("nan"),
        np.float16(3),
        np.int8(-3),
        np.bool_(True),
        np.datetime64("2020"),
        np.ma.masked,
    ),
    *(
        np.timedelta64(3, "s"),
        np.complex128(1j),
        np.str_("a"),
        np.void(b"ab"),
        np.dtype("f4"),
        np.random,
    ),
    *(
        np.empty(0),
        np.empty((0, 3)),
        np.array(2.0),
        np.array([0.5]),
        np.array([1, 2]),
        np.zeros((3, 0)),
    ),
    *(
        X[0],
        X.T,
        X[:, :, None],
        X.astype(complex),
        X.astype(object),
        X.astype(str),
        X.astype("m8[s]"),
    ),
    *(np.full((6, 3), np.nan), np.full((6, 2), np.inf), np.ma.masked_less(X, 0), X.astype(">f8")),
    *(
        X.astype("g"),
        np.zeros(6, "i,f"),
        np.array([None] * 6),
        np.array([2**70] * 6),
        LABELS.astype(bool),
    ),
    *(nested(40), nested(70), iter([1.0]), (i for i in range(3)), memoryview(b"abc"), bytearray(3)),
    *(fn.Linear, fn.MSELoss, fn.Adam, fn.Sequential, fn.Linear(3, 2), fn.MSELoss(), fn.Adam()),
    *(
        fn.EMA(0.9),
        fn.EarlyStopping(),
        fn.schedules.StepLR(0.1, 2),
        fn.init.Zeros(),
        Exception("no"),
    ),
]


def net():
    layers = fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Dropout(0.5), fn.Linear(4, 2)
    return fn.Sequential(*layers, backend="reference", seed=1)


def sequential(dtype="float32", backend="auto", seed=None):
    return fn.Sequential(fn.Linear(2, 2), dtype=dtype, backend=backend, seed=seed)


def split(arrays, test_size=None, train_size=None, stratify=None, seed=None):
    more = {"test_size": test_size, "train_size": train_size, "stratify": stratify, "seed": seed}
    return fn.train_test_split(arrays, **more)


def product(factor=0.5):
    return fn.schedules.ProductLR(factor, fn.schedules.StepLR(0.1, 2))


def residual(shortcut=None):
    fn.Residual(fn.Linear(2, 3), shortcut=shortcut)


def fit_rbf(X, y, n_centers=2, phases=3, ridge=0.5, method="sample", neighbours=1, seed=None):
    more = {"phases": phases, "ridge": ridge, "method": method, "neighbours": neighbours}
    made = {"epochs": 1, "backend": "reference", "seed": seed, "verbose": 0}
    fn.recipes.fit_rbf(X, y, n_centers, fn.MSELoss(), **more, **made)


def realmlp(
    n_numeric=3,
    n_outputs=2,
    task="regression",
    preset="full",
    total_steps=9,
    n_onehot=0,
    categories=(),
    X=None,
    hidden=(4,),
    lr=None,
    dropout=None,
    weight_decay=None,
    label_smoothing=None,
    seed=None,
    dtype="float32",
    backend="reference",
):
    fn.recipes.realmlp(**locals())


RECORD = [
    {
        "epoch": 1,
        "step": 1,
        "activations": {"0": {"layer": "Linear", "p15": 0, "p50": 1, "p85": 2}},
    }
]


class World:
    """What is called, with a backward pending and an optimizer that has stepped."""

    def __init__(self):
        self.model = net()
        self.trainer = fn.Trainer(self.model, fn.MSELoss(), fn.Adam(), seed=1)
        self.trainer.fit(X, Y, verbose=0)
        self.model.forward(X)
        self.classifier = net()
        self.trainer_of_classes = fn.Trainer(self.classifier, fn.CrossEntropyLoss(), seed=1)
        self.layer = fn.Linear(3, 2)
        self.layer.reset_parameters(seed=1)
        self.layer.forward(X)
        self.loss = fn.MSELoss()
        self.loss.forward(X, X)
        self.scaler = fn.preprocess.StandardScaler().fit(X)

    def fit_of_classes(self, y=LABELS, class_weight=None, validation_split=None):
        more = {"class_weight": class_weight, "validation_split": validation_split}
        self.trainer_of_classes.fit(X, y, verbose=0, **more)

    def bits(self):
        named = (
            self.model.state_dict(),
            self.classifier.state_dict(),
            self.model.grads,
            self.layer.state_dict(),
            self.layer.grads,
            self.scaler.state_dict(),
        )
        kept = [{name: array.tobytes() for name, array in each.items()} for each in named]
        modes = [layer.training for _, layer in self.model.layers]
        return (
            kept,
            modes,
            repr(self.trainer.optimizer),
            self.trainer.step,
            len(self.trainer.history),
        )

    def calls(self):
        """Methods by name, each with arguments that are good."""
        m, t, data = self.model, self.trainer, {"X": X, "y": Y}
        return {
            "forward": (m.forward, {"x": X}),
            "backward": (m.backward, {"dy": Y}),
            "predict": (m.predict, {"x": X}),
            "predict_proba": (self.classifier.predict_proba, {"x": X}),
            "predict_classes": (self.classifier.predict_classes, {"x": X}),
            "fit of classes": (self.fit_of_classes, {}),
            "value_and_grad": (m.value_and_grad, {"loss": fn.MSELoss(), "x": X, "y": Y}),
            "load_state_dict": (m.load_state_dict, {"state": m.state_dict()}),
            "load": (
                lambda v: m.load_state_dict({"0.weight": v}, strict=False),
                {"v": np.ones((4, 3))},
            ),
            "reset_parameters": (m.reset_parameters, {}),
            "summary": (m.summary, {}),
            "to": (m.to, {"backend": "reference"}),
            "train": (m.train, {}),
            "layer.forward": (self.layer.forward, {"x": X}),
            "layer.backward": (self.layer.backward, {"dy": Y}),
            "layer.load_state_dict": (
                self.layer.load_state_dict,
                {"state": self.layer.state_dict()},
            ),
            "layer.reset_parameters": (self.layer.reset_parameters, {}),
            "layer.train": (self.layer.train, {}),
            **{
                f"scaler.{name}": (getattr(self.scaler, name), {"X": X})
                for name in ("fit", "fit_transform", "transform", "inverse_transform")
            },
            "place_centers": (fn.RBF(3, 2).place_centers, {"X": X, "method": "sample"}),
            "from_quantiles": (fn.PiecewiseLinear.from_quantiles, {"X": X}),
            "fit_rbf": (fit_rbf, {"X": X, "y": Y}),
            "realmlp": (realmlp, {}),
            "init_from_data": (fn.recipes.init_from_data, {"model": m, "X": X}),
            "Residual": (residual, {"shortcut": fn.Linear(2, 3)}),
            "loss.backward": (self.loss.backward, {}),
            "step": (t.optimizer.step, {"model": m}),
            "evaluate": (t.evaluate, data),
            "model.save": (m.save, {"path": "net"}),
            "trainer.save": (t.save, {"path": "run"}),
            "fn.load": (fn.load, {"path": "nowhere"}),
            "load_weights": (m.load_weights, {"path": "nowhere"}),
            "Trainer.load": (fn.Trainer.load, {"path": "nowhere"}),
            "fit": (t.fit, {**data, "verbose": 0}),
            "fit on minibatches": (lambda given: t.fit(given, verbose=0), {"given": [(X, Y)]}),
            "fit on minibatches, with": (partial(t.fit, [(X, Y), (X, Y)], verbose=0), {}),
            "train_on_batch": (t.train_on_batch, data),
            "lerp": (m.lerp, {"other": copy.deepcopy(m), "weight": 0.5}),
            "find_lr": (t.find_lr, {**data, "batch_size": 2, "steps": 12}),
            "fit_full_batch": (
                t.fit_full_batch,
                {**data, "method": "gradient-descent", "max_iter": 1},
            ),
            "clip_grad_norm_": (fn.clip_grad_norm_, {"model": m, "max_norm": 1.0}),
            "clip_grad_value_": (fn.clip_grad_value_, {"model": m, "limit": 1.0}),
            "batches": (fn.batches, {"X": X, "y": Y}),
            "train_test_split": (split, {"arrays": X}),
            "KFold.split": (lambda X: list(fn.KFold(2).split(X)), {"X": X}),
            "StratifiedKFold.split": (
                lambda X, y: list(fn.StratifiedKFold(2).split(X, y)),
                {"X": X, "y": LABELS},
            ),
            **{
                f"check.{check.__name__}": (
                    check,
                    {"model": m, "loss": fn.MSELoss(), **data, **few},
                )
                for check, few in (
                    (fn.check.gradients, {"samples": 1}),
                    (fn.check.initial_loss, {}),
                    (fn.check.overfit, {"steps": 2}),
                )
            },
            **{f"plot.{name}": call for name, call in self.plots().items()},
            "read_idx": (fn.datasets.read_idx, {"path": "nowhere"}),
            "mnist": (fn.datasets.mnist, {"folder": "nowhere"}),
            "california_housing": (fn.datasets.california_housing, {"path": "nowhere"}),
            "threads": (fn.threads, {"n": 1}),
            "set_num_threads": (fn.set_num_threads, {"n": 1}),
            "schedule": (fn.schedules.StepLR(0.1, 2), {"step": 1}),
            "ignore": (fn.CrossEntropyLoss(ignore_index=-1).forward, {"output": Y, "y": LABELS}),
            "Sequential": (sequential, {}),
            "ProductLR": (product, {}),
            **{
                f"loss {n}": (
                    each.forward,
                    {"output": Y, "y": LABELS if n in OF_LABELS else np.abs(Y) / 9},
                )
                for n, each in LOSSES.items()
            },
        }

    def plots(self):
        """Those of fn.plot, where there is matplotlib."""
        if importlib.util.find_spec("matplotlib") is None:
            return {}
        return {
            "history": (self.trainer.history.plot, {}),
            "confusion_matrix": (fn.plot.confusion_matrix, {"y_true": LABELS, "y_pred": LABELS}),
            "weights": (fn.plot.weights, {"model": self.model, "shape": (1, 3)}),
            "activations": (fn.plot.activations, {"record": RECORD}),
        }


# What is run, but for as long as it says or as the user's own code: not tried.
LONG = {"epochs", "steps", "max_iter", "weight_decay"}
CODE = {"given", "loss", "callback", "callbacks", "function", "metrics", "lr_lambda", "schedule"}
TOLD = {"verbose"}
LOSSES = {
    name: kind()
    for name in fn.losses.__all__
    if isinstance(kind := getattr(fn, name), type)
    and issubclass(kind, fn.Loss)
    and name not in ("Loss", "EnsembleLoss", "FunctionLoss", "GaussianNLLLoss")
}
OF_LABELS = {"CrossEntropyLoss", "NLLLoss", "MultiMarginLoss", "OneVsRestHingeLoss"}
OF_LABELS.add("HierarchicalSoftmaxLoss")
CALLED = {"v": "0.weight", "given": "X", "validation_data": "validation"}  # by messages
GOOD = {  # what makers need beside the argument in question
    fn.Linear: {"in_features": 2, "out_features": 2},
    fn.NTKLinear: {"in_features": 2, "out_features": 2},
    fn.BatchNorm1d: {"num_features": 2},
    fn.HierarchicalSoftmax: {"in_features": 2, "n_classes": 2},
    **{kind: {"shape": (4, 5)} for kind in (fn.RandomTranslation, fn.RandomFlip)},
    fn.LayerNorm: {"normalized_shape": 2},
    fn.RMSNorm: {"normalized_shape": 2},
    fn.Scale: {"num_features": 2},
    fn.Bias: {"num_features": 2},
    fn.GaussianNoise: {"stddev": 0.5},
    fn.Embedding: {"num_embeddings": 3, "embedding_dim": 2},
    fn.Periodic: {"in_features": 2, "n_frequencies": 2},
    fn.PBLD: {"in_features": 2},
    fn.ParametricActivation: {"activation": "relu", "num_features": 2},
    fn.PiecewiseLinear: {"bins": [[0, 1]]},
    fn.RBF: {"in_features": 2, "n_centers": 2},
    fn.Columns: {"columns": [0]},
    fn.EnsembleView: {"k": 2},
    fn.EnsembleMean: {"k": 2},
    **{
        kind: {"in_features": 2, "out_features": 2, "k": 2}
        for kind in (fn.LinearBatchEnsemble, fn.LinearEnsemble)
    },
    fn.EnsembleLoss: {"loss": fn.MSELoss()},
    fn.FunctionLoss: {"function": lambda y, t: (0.0, y)},
    fn.Trainer: {"model": net(), "loss": fn.MSELoss()},
    fn.SWA: {"start_epoch": 1},
    **{key: {"path": "log"} for key in (fn.CSVLogger, fn.JSONLLogger, fn.ModelCheckpoint)},
    fn.LearningRateScheduler: {"schedule": lambda epoch: 0.1},
    fn.Snapshots: {"every": 1},
    fn.Ensemble: {"models": [net(), net()]},
    fn.Scaled: {"X": np.eye(2), "scale": 0.5},
    fn.MixUp: {"X": X, "y": LABELS},
    fn.init.Constant: {"value": 0.5},
    fn.init.Sparse: {"sparsity": 0.5},
    **{
        getattr(fn.schedules, name): good
        for names, good in {
            "ConstantLR InverseSqrtLR InverseTimeLR LinearLR PolynomialLR": {"lr": 0.1},
            "CosineAnnealingLR": {"lr": 0.1, "T_max": 9},
            "CosineAnnealingWarmRestarts": {"lr": 0.1, "T_0": 9},
            "CosLogLR FlatCosLR": {"lr": 0.1, "total_steps": 9},
            "CyclicLR": {"base_lr": 0.1, "max_lr": 1.0},
            "ExponentialLR": {"lr": 0.1, "gamma": 0.5},
            "LambdaLR": {"lr": 0.1, "lr_lambda": lambda t: 1.0},
            "MultiStepLR": {"lr": 0.1, "milestones": [3]},
            "OneCycleLR": {"max_lr": 1.0, "total_steps": 9},
            "OneCycleMomentum": {"total_steps": 9},
            "PerEpoch": {"schedule": fn.schedules.StepLR(0.1, 2), "steps_per_epoch": 3},
            "ProductLR": {"factor": 0.5},
            "SequentialLR": {"schedules": [0.1, 0.2], "milestones": [3]},
            "StepLR": {"lr": 0.1, "step_size": 3},
            "WarmupLR": {"schedule": 0.1, "warmup_steps": 3},
        }.items()
        for name in names.split()
    },
}


def makers():
    """Every public class that a user makes things of."""
    for module in (fn.layers, fn.losses, fn.optim, fn.init, fn.preprocess, fn.schedules, fn):
        for name in module.__all__:
            kind = getattr(module, name)
            if (
                inspect.isclass(kind)
                and not issubclass(kind, Exception)
                and kind is not fn.init.Draw
            ):
                yield kind


# What takes any number of arguments, and the base that is never made.
TAKING_LAYERS = {fn.Sequential, fn.Residual, fn.Concat, fn.Add, fn.Multiply}
OTHERS = {*TAKING_LAYERS, fn.schedules.ProductLR, fn.Optimizer}
MAKERS = sorted({*makers()} - OTHERS, key=lambda k: k.__name__)
# Of files that are not there.
FOREIGN = dict.fromkeys(
    ("read_idx", "mnist", "california_housing", "fn.load", "load_weights", "Trainer.load"), OSError
) | {"LearnedOptimizer": OSError}


def trials(call):
    """Names of arguments with values to try. Flags have a table in test_hyperparameters.py."""
    kinds = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
    for name, p in inspect.signature(call).parameters.items():
        if p.kind in kinds or "bool" in str(p.annotation) or name in TOLD:
            continue
        for value in BAD:
            is_code = callable(value) or isinstance(value, fn.EarlyStopping)
            if not (is_code and name in CODE) and not (
                name in LONG and any(value is v for v in LARGE)
            ):
                yield name, value


def attempt(call, good, name, value, allowed=()):
    """The error of ours that a call raises with one bad argument, or None; another one is a fault."""
    found = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call(**{**good, name: value})
    except (fn.FastnetError, *allowed) as error:
        found = error
    except Exception as error:
        raise AssertionError(f"{name}={value!r:.80}: {type(error).__name__}: {error}") from error
    told = not isinstance(found, fn.FastnetError) or CALLED.get(name, name) in str(found)
    assert told, f"{name}={value!r:.80}: {found}"
    return found


@pytest.fixture
def threads():
    """As many threads afterwards as before."""
    before = fn.get_num_threads()
    yield
    fn.set_num_threads(before)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder where any string is a good path."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", MAKERS, ids=lambda kind: kind.__name__)
def test_makers(kind):
    good = GOOD.get(kind, {})
    for name, value in trials(kind):
        allowed = FOREIGN.get(kind.__name__) if name == "weights" else None
        attempt(kind, good, name, value, (allowed,) if allowed else ())


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", World().calls())
def test_calls(name):
    world = World()
    before = world.bits()
    call, good = world.calls()[name]
    for argument, value in list(trials(call)):
        error = attempt(call, good, argument, value, (FOREIGN[name],) if name in FOREIGN else ())
        if error is not None:
            assert world.bits() == before, f"{argument}={value!r:.80}: {error}"
        elif world.bits() != before:
            world = World()
            call, good = world.calls()[name]
