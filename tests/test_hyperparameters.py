"""Hyper-parameters, seeds and choices: what each takes, and how the rest is refused."""

from __future__ import annotations

import inspect
import re
from itertools import product

import numpy as np
import pytest
from refusals import NOT_FINITE, NOT_INTEGERS, NOT_NUMBERS, arguments, refused

import fastnet as fn
from fastnet.errors import HyperparameterError, shown

X = np.zeros((6, 3), "f")
MSE = fn.MSELoss()
P = fn.preprocess

# Intervals, with numbers outside and inside.
ANY = ("(-inf, inf)", [], [0, -3, 7.5, np.int8(2)])
POSITIVE = ("(0, inf)", [0, 0.0, -1e-5, -1], [1e-300, 2])
NOT_NEGATIVE = ("[0, inf)", [-1e-300, -1e-9, -3], [0, 3])
EPS = ("[1.17549e-38, inf)", [0, -1e-8, 1e-39], [1e-30, 1])
SHARE = ("[0, 1]", [-0.1, 1.1, -1e-300, 2], [0, 1, 0.5, np.float32(0.5)])
PART = ("(0, 1]", [0, -0.1, 1.1], [1e-3, 1, np.float32(0.5)])
BETA = ("[0, 1)", [-0.1, 1, 1.5], [0, 0.999])
SHARE_OR_NONE, EPS_OR_NONE = ((*row[:2], [*row[2], None]) for row in (SHARE, EPS))
DEFAULT_NONE = "max_norm", "clip_value", "clip_norm", "limit"
BETAS = {"betas[0]": BETA, "betas[1]": BETA}
STEPS = {
    "etas[0]": ("(0, 1)", [0, 1, -0.5, 1.5], [1e-9, 0.999]),
    "etas[1]": ("(1, inf)", [1, 0.5, -2], [1.0001, 3]),
    "step_sizes[0]": ("[1.17549e-38, inf)", [0, -1e-8, 1e-39], [1e-30, 1]),
    "step_sizes[1]": ("[1.17549e-38, inf)", [0, -1e-8, 1e-39], [1e-30, 1]),
}
WEIGHTS = {"r": NOT_NEGATIVE, "weight_lr_power": NOT_NEGATIVE}
COEFFICIENTS = [f"ns_coefficients[{i}]" for i in range(3)]
PAIRS = {  # the number that stands beside each of a pair
    "betas[0]": 0.5,
    "betas[1]": 0.5,
    "etas[0]": 2.0,
    "etas[1]": 0.5,
    "step_sizes[0]": 2.0,
    "step_sizes[1]": 1e-37,
}
OPTIMIZERS = {  # what each takes beside lr, weight_decay, l1 and max_norm
    fn.SGD: {"momentum": NOT_NEGATIVE, "dampening": ("(-inf, inf)", [], [0, -1, 2])},
    fn.Adagrad: {"lr_decay": NOT_NEGATIVE, "initial_accumulator_value": NOT_NEGATIVE, "eps": EPS},
    fn.Adadelta: {"rho": SHARE, "eps": EPS},
    fn.RMSprop: {"alpha": SHARE, "eps": EPS, "momentum": NOT_NEGATIVE},
    fn.Adam: {"eps": EPS, **BETAS},
    fn.AdamW: {"eps": EPS, **BETAS},
    fn.Adamax: {"eps": EPS, **BETAS},
    fn.NAdam: {"eps": EPS, **BETAS, "momentum_decay": NOT_NEGATIVE},
    fn.RAdam: {"eps": EPS, **BETAS},
    fn.Lion: BETAS,
    fn.Rprop: STEPS,
    fn.ScheduleFreeSGD: {"momentum": BETA, **WEIGHTS},
    fn.ScheduleFreeAdamW: {"eps": EPS, **BETAS, **WEIGHTS},
    fn.Muon: {"momentum": BETA, "eps": EPS, **BETAS, **dict.fromkeys(COEFFICIENTS, ANY)},
    fn.YellowFin: {"beta": BETA, "gamma": NOT_NEGATIVE, "eps": EPS},
    fn.SGDHD: {"momentum": NOT_NEGATIVE, "hypergrad_lr": NOT_NEGATIVE},
    fn.AdamHD: {"eps": EPS, **BETAS, "hypergrad_lr": NOT_NEGATIVE},
}
EVERY = {"lr": NOT_NEGATIVE, "weight_decay": NOT_NEGATIVE, "l1": NOT_NEGATIVE}
EVERY["max_norm"] = ("(0, inf)", [0, -1], [1e-9, 3])
LABEL = (-(2**53), 2**53)  # integers: the least, and the greatest if there is one
COUNT, MANY = (0, None), (1, None)
GAIN = {"gain": POSITIVE}
SLOPE = {"a": ANY}
OTHERS = {
    fn.Linear: {"in_features": MANY, "out_features": MANY},
    fn.HierarchicalSoftmax: {"in_features": MANY, "n_classes": (2, 2**31 - 1)},
    fn.NTKLinear: {"in_features": MANY, "out_features": MANY},
    fn.BatchNorm1d: {"num_features": MANY, "eps": EPS, "momentum": SHARE_OR_NONE},
    fn.LayerNorm: {"normalized_shape": MANY, "eps": EPS},
    fn.RMSNorm: {"normalized_shape": MANY, "eps": EPS_OR_NONE},
    fn.Scale: {"num_features": MANY},
    fn.Bias: {"num_features": MANY},
    fn.Periodic: {"in_features": MANY, "n_frequencies": MANY, "sigma": POSITIVE},
    fn.PBLD: {
        **dict.fromkeys(("in_features", "n_frequencies"), MANY),
        "embedding_dim": (2, None),
        "sigma": POSITIVE,
        "others": COUNT,
    },
    fn.ParametricActivation: {"num_features": MANY},
    fn.PiecewiseLinear: {"embedding_dim": MANY},
    fn.RBF: {"in_features": MANY, "n_centers": MANY},
    fn.EnsembleView: {"k": MANY},
    fn.EnsembleMean: {"k": MANY},
    fn.LinearBatchEnsemble: {"in_features": MANY, "out_features": MANY, "k": MANY},
    fn.LinearEnsemble: {"in_features": MANY, "out_features": MANY, "k": MANY},
    fn.Dropout: {"p": SHARE},
    fn.AlphaDropout: {"p": SHARE},
    fn.GaussianNoise: {"stddev": NOT_NEGATIVE},
    fn.LeakyReLU: {"negative_slope": ANY},
    fn.RandomTranslation: {"height": COUNT, "width": COUNT},
    fn.RandomContrast: {"factor": SHARE},
    fn.PReLU: {"num_parameters": MANY, "init": ANY},
    fn.ELU: {"alpha": ANY},
    fn.ScaledTanh: {"amplitude": POSITIVE, "slope": POSITIVE},
    fn.LinearTanh: SLOPE,
    fn.Softplus: {"beta": EPS, "threshold": ANY},
    fn.Hardtanh: {"min_val": ("(-inf, inf)", [], [0, -3]), "max_val": ANY},
    **{kind: {"num_features": MANY} for kind in (P.Center, P.StandardScaler, P.OneHot)},
    P.MinMaxScaler: {"eps": NOT_NEGATIVE, "num_features": MANY},
    P.RobustScaler: {"clip": POSITIVE, "num_features": MANY},
    P.QuantileTransformer: {"n_quantiles": (2, 2**20), "num_features": MANY},
    P.PCA: {"n_components": MANY, "eps": NOT_NEGATIVE, "num_features": MANY},
    P.ZCA: {"eps": NOT_NEGATIVE, "num_features": MANY},
    fn.CrossEntropyLoss: {"ignore_index": LABEL, "label_smoothing": SHARE},
    fn.NLLLoss: {"ignore_index": LABEL},
    fn.HierarchicalSoftmaxLoss: {"ignore_index": LABEL},
    fn.MultiMarginLoss: {"p": (1, 2), "margin": ANY},
    fn.OneVsRestHingeLoss: {"p": (1, 2), "margin": ANY},
    fn.HuberLoss: {"delta": EPS},
    fn.SmoothL1Loss: {"beta": NOT_NEGATIVE},
    fn.PoissonNLLLoss: {"eps": EPS},
    fn.GaussianNLLLoss: {"eps": EPS},
    fn.Scaled: {"scale": POSITIVE},
    fn.MixUp: {
        "alpha": ("[0.01, 1000]", [0, 0.009, 1001, -1], [0.01, 1000, 1]),
        "batch_size": MANY,
        "classes": (2, 65536),
    },
    fn.init.Constant: {"value": ANY},
    fn.init.Uniform: {"a": ("(-inf, inf)", [], [0, -1.5]), "b": ("(-9, inf)", [-9, -10], [-8, 1])},
    fn.binary_accuracy: {"threshold": ANY},
    fn.quantize: {"percentile": ("[50, 100]", [49.9, 100.1, -1], [50, 99.9, 100])},
    fn.TopK: {"k": MANY},
    fn.init.Normal: {"mean": ANY, "std": NOT_NEGATIVE},
    fn.init.Orthogonal: GAIN,
    fn.init.Sparse: {"sparsity": SHARE, "std": NOT_NEGATIVE},
    fn.init.GlorotUniform: GAIN,
    fn.init.GlorotNormal: GAIN,
    fn.init.KaimingUniform: SLOPE,
    fn.init.KaimingNormal: SLOPE,
    **{kind: {"n_splits": (2, None)} for kind in (fn.KFold, fn.StratifiedKFold)},
    fn.ImportanceSampling: {"uniform": PART},
    fn.HardExamples: {"fraction": PART},
    fn.EMA: {"decay": BETA},
    fn.SWA: {"start_epoch": MANY, "every": MANY},
    fn.EarlyStopping: {"patience": COUNT, "min_delta": NOT_NEGATIVE},
    fn.Record: {"every": MANY},
    fn.ReduceLROnPlateau: {
        "factor": BETA,
        **dict.fromkeys(("patience", "cooldown"), COUNT),
        **dict.fromkeys(("threshold", "min_lr", "eps"), NOT_NEGATIVE),
    },
    fn.Timer: {"limit": POSITIVE},
    fn.Snapshots: {"every": MANY, "keep": MANY},
    fn.ModelCheckpoint: {"every": MANY, "keep": MANY},
    fn.Trainer: {"clip_value": NOT_NEGATIVE, "clip_norm": NOT_NEGATIVE},
    fn.batches: {"batch_size": MANY, "epoch": (0, 2**64 - 1)},
    fn.clip_grad_norm_: {"max_norm": NOT_NEGATIVE},
    fn.clip_grad_value_: {"limit": NOT_NEGATIVE},
}
NET = fn.Sequential(fn.Linear(2, 2), backend="reference", seed=0)
NEEDED = {
    fn.quantize: {
        "model": fn.Sequential(fn.Linear(3, 2), seed=0),
        "X": X,
    },  # the arguments that are there beside the one in question
    fn.Snapshots: {"every": 1},
    fn.ModelCheckpoint: {"path": "run"},
    fn.Linear: {"in_features": 2, "out_features": 2},
    fn.NTKLinear: {"in_features": 2, "out_features": 2},
    fn.BatchNorm1d: {"num_features": 2},
    fn.HierarchicalSoftmax: {"in_features": 2, "n_classes": 2},
    fn.RandomTranslation: {"shape": (4, 5)},
    fn.LayerNorm: {"normalized_shape": 2},
    fn.RMSNorm: {"normalized_shape": 2},
    fn.Periodic: {"in_features": 2, "n_frequencies": 2},
    fn.PBLD: {"in_features": 2},
    fn.ParametricActivation: {"activation": "relu"},
    fn.PiecewiseLinear: {"bins": [[0, 1]]},
    fn.RBF: {"in_features": 2, "n_centers": 2},
    fn.LinearBatchEnsemble: {"in_features": 2, "out_features": 2, "k": 2},
    fn.LinearEnsemble: {"in_features": 2, "out_features": 2, "k": 2},
    fn.Hardtanh: {"min_val": -9},
    fn.Scaled: {"X": X},
    fn.MixUp: {"X": X, "y": np.zeros(6, int)},
    fn.init.Constant: {"value": 0},
    fn.init.Uniform: {"a": -9},
    fn.init.Sparse: {"sparsity": 0.5},
    fn.SWA: {"start_epoch": 1},
    fn.Trainer: {"model": NET, "loss": MSE},
    fn.batches: {"X": X},
    fn.clip_grad_norm_: {"model": NET},
    fn.clip_grad_value_: {"model": NET},
}
RATES = [
    (optimizer, name, *row)
    for optimizer, own in OPTIMIZERS.items()
    for name, row in (EVERY | own).items()
    if not (name == "max_norm" and optimizer in (fn.ScheduleFreeSGD, fn.ScheduleFreeAdamW))
]


def test_every_number_of_every_item_is_in_a_table():
    """By their annotations. Losses' numbers for the columns have a table in losses/test_arguments.py."""
    modules = fn.layers, fn.losses, fn.init, fn.optim, fn.preprocess, fn
    items = {getattr(module, name) for module in modules for name in module.__all__}
    # Those of fit_many have a table in train/test_many.py.
    for kind in items - {*OPTIMIZERS, fn.Optimizer, fn.Loss, fn.init.Draw, fn.fit_many}:
        if not callable(kind) or (inspect.isclass(kind) and issubclass(kind, Exception)):
            continue
        numbers = arguments(kind, "int", "float", "Number")
        numbers -= {"seed", "dim", "param", "n"}  # of the next tests, test_init and test_parallel
        assert numbers == OTHERS.get(kind, {}).keys(), kind


def test_the_table_has_every_number_of_every_optimizer():
    kinds = {k for k in vars(fn).values() if isinstance(k, type) and issubclass(k, fn.Optimizer)}
    assert kinds - {fn.Optimizer} == OPTIMIZERS.keys()
    for optimizer, own in OPTIMIZERS.items():
        given = {n for n, v in vars(optimizer()).items() if type(v) is float or n == "max_norm"}
        assert given == {n for n in EVERY | own if n not in {*PAIRS, *COEFFICIENTS}}


LONE = fn.Linear(2, 2)
FLAGS = {  # those of optimizers, callbacks and trainers are elsewhere
    fn.Linear: {"bias"},
    fn.HierarchicalSoftmax: {"bias"},
    P.MinMaxScaler: {"clip"},
    P.PCA: {"whiten"},
    fn.NTKLinear: {"bias"},
    fn.BatchNorm1d: {"affine", "track_running_stats"},
    fn.LayerNorm: {"elementwise_affine", "bias"},
    fn.RMSNorm: {"elementwise_affine"},
    fn.Periodic: {"phases"},
    fn.RBF: {"constant"},
    fn.LinearBatchEnsemble: {"bias"},
    fn.LinearEnsemble: {"bias"},
    fn.Embedding: {"unknown"},
    fn.KLDivLoss: {"log_target"},
    fn.PoissonNLLLoss: {"log_input", "full"},
    fn.GaussianNLLLoss: {"full"},
    fn.batches: {"shuffle", "drop_last"},
    **{kind: {"shuffle"} for kind in (fn.KFold, fn.StratifiedKFold, fn.train_test_split)},
    fn.clip_grad_norm_: {"error_if_nonfinite"},
    NET.load_state_dict: {"strict"},
    fn.CSVLogger: {"append"},
    fn.JSONLLogger: {"append"},
    fn.ModelCheckpoint: {"save_best_only"},
    LONE.load_state_dict: {"strict"},
    NET.train: {"mode"},
    NET[0].train: {"mode"},
    NET.value_and_grad: {"accumulate"},
    fn.schedules.OneCycleLR: {"three_phase"},
    fn.schedules.OneCycleMomentum: {"three_phase"},
}
NEEDED |= {
    fn.Embedding: {"num_embeddings": 3, "embedding_dim": 2},
    fn.Linear: {"in_features": 2, "out_features": 2},
    fn.clip_grad_norm_: {"model": NET, "max_norm": 1},
    NET.load_state_dict: {"state": NET.state_dict()},
    fn.CSVLogger: {"path": "log"},
    fn.JSONLLogger: {"path": "log"},
    LONE.load_state_dict: {"state": LONE.state_dict()},
    NET.value_and_grad: {"loss": MSE, "x": X[:, :2], "y": X[:, :2]},
    fn.schedules.OneCycleLR: {"max_lr": 1, "total_steps": 9},
    fn.schedules.OneCycleMomentum: {"total_steps": 9},
}


@pytest.mark.parametrize("call", FLAGS)
def test_every_flag_is_a_bool(call):
    assert arguments(call, "bool") == FLAGS[call]
    for name, bad in product(FLAGS[call], ["no", "False", 0, 1, None, [], np.array([True])]):
        message = f"^{name} is .*; expected True or False$"
        refused(lambda n=name, b=bad: by_keyword(call, n)(b), HyperparameterError, message)
    assert NET.training and NET[0].training


def test_the_table_has_every_flag_of_layers_losses_and_schedules():
    for module in (fn.layers, fn.losses, fn.preprocess, fn.schedules):
        for kind in (getattr(module, name) for name in module.__all__):
            assert arguments(kind, "bool") == FLAGS.get(kind, set()), kind


def argument(name, value):
    """A hyper-parameter as an argument; one of a pair by its place."""
    if name in COEFFICIENTS:
        return {"ns_coefficients": [value if n == name else 1.0 for n in COEFFICIENTS]}
    if name not in PAIRS:
        return {name: value}
    pair, first = name[:-3], name.endswith("[0]")
    return {pair: (value, PAIRS[name]) if first else (PAIRS[name], value)}


def by_keyword(kind, name):
    if kind is fn.train_test_split:
        return lambda value: kind(X, **{name: value})
    return lambda value: kind(**{**NEEDED.get(kind, {}), name: value})


def by_constructor(optimizer, name):
    return lambda value: optimizer(**argument(name, value))


def by_assignment(optimizer, name):
    def assign(value):
        made = optimizer()
        for word, given in argument(name, value).items():
            setattr(made, word, given)

    return assign


NONE_BY_DEFAULT = ("max_norm", "clip_value", "clip_norm", "limit", "clip")
REALS = [
    (by_keyword(kind, name), name, *row)
    for kind, rows in OTHERS.items()
    for name, row in rows.items()
    if isinstance(row[0], str)
]
for way in (by_constructor, by_assignment):
    REALS += [(way(optimizer, name), name, *row) for optimizer, name, *row in RATES]


@pytest.mark.parametrize(
    ("make", "name", "interval", "outside", "inside"),
    REALS,
    ids=[f"{number}-{row[1]}" for number, row in enumerate(REALS)],
)
def test_numbers(make, name, interval, outside, inside):
    for good in inside:
        make(good)
    for bad in [*NOT_NUMBERS, *NOT_FINITE, *outside]:
        if bad is None and name in NONE_BY_DEFAULT:
            continue  # the default
        if bad is None and (None in inside or name in DEFAULT_NONE):
            continue
        message = re.escape(f"{name} is {shown(bad)}; expected a finite number in {interval}")
        refused(lambda bad=bad: make(bad), HyperparameterError, f"^{message}$")


INTEGERS = [
    pytest.param(kind, name, *row, id=f"{kind.__name__}-{name}")
    for kind, rows in OTHERS.items()
    for name, row in rows.items()
    if not isinstance(row[0], str)
]


@pytest.mark.parametrize(("kind", "name", "low", "high"), INTEGERS)
def test_integers(kind, name, low, high):
    make = by_keyword(kind, name)
    make(np.int64(low))
    wanted = f"an integer ≥ {low}" if high is None else f"an integer in [{low}, {high}]"
    outside = [low - 1, low - 5] if high is None else [low - 1, high + 1]
    for bad in [*NOT_INTEGERS, np.True_, *outside]:
        if name == "p" and isinstance(bad, float) and bad == 2:
            continue  # PyTorch's 2.0 is taken
        if bad is None and name in (
            *("keep", "num_features", "n_components", "classes", "embedding_dim"),
        ):
            continue  # the default
        message = re.escape(f"{name} is {shown(bad)}; expected {wanted}")
        refused(lambda bad=bad: make(bad), HyperparameterError, f"^{message}$")


SEEDS = {
    "Sequential": lambda v: fn.Sequential(fn.ReLU(), seed=v),
    "Trainer": lambda v: fn.Trainer(fn.Sequential(fn.ReLU()), MSE, seed=v),
    "batches": lambda v: fn.batches(X, seed=v),
    "train_test_split": lambda v: fn.train_test_split(X, seed=v),
    "MixUp": lambda v: fn.MixUp(X, X, seed=v),
    "KFold": lambda v: fn.KFold(shuffle=True, seed=v),
    "model": lambda v: fn.Sequential(fn.Linear(2, 2)).reset_parameters(seed=v),
    "layer": lambda v: fn.Linear(2, 2).reset_parameters(seed=v),
}


@pytest.mark.parametrize("make", SEEDS)
def test_seeds(make):
    for good in (0, 2**64 - 1, np.uint64(2**64 - 1), None):
        SEEDS[make](good)
    for bad in [v for v in NOT_INTEGERS if v is not None] + [-1, 2**64, 10**30]:
        message = re.escape(f"seed is {shown(bad)}; expected an integer in [0, {2**64 - 1}]")
        refused(lambda bad=bad: SEEDS[make](bad), HyperparameterError, f"^{message}$")


@pytest.mark.parametrize(
    ("make", "values", "message"),
    [
        (
            lambda v: fn.Sequential(fn.ReLU(), dtype=v),
            ["float16", "int32", "spam", None, 3, np.complex64, object()],
            "^dtype is .*; expected 'float32' or 'float64'$",
        ),
        (
            lambda v: fn.Linear(2, 2, weight_init=v),
            ["zeros", 0.5, fn.init.Zeros, np.zeros(2)],
            "^weight_init is .*; expected an initialiser, such as",
        ),
        (
            lambda v: fn.Linear(2, 2, bias_init=v),
            ["zeros", 0.5, fn.init.Zeros],
            "^bias_init is .*; expected an initialiser, such as",
        ),
        (
            lambda v: [make(dim=v) for make in (fn.Softmax, fn.LogSoftmax)],
            [0, 2, -2, None, "1", 1.0],
            "^dim is .*; expected (-1 or 1, the features of a row|an integer ≥ -1)$",
        ),
        (
            lambda v: fn.init.KaimingNormal(mode=v),
            ["fan", None, 1, b"fan_in"],
            "^mode is .*; expected one of 'fan_in', 'fan_out'$",
        ),
        (
            lambda v: fn.init.GlorotUniform(nonlinearity=v),
            ["gelu", None, 1, fn.ReLU],
            "^nonlinearity is .*; expected one of 'linear', 'sigmoid', .*, 'selu'$",
        ),
        (
            lambda v: fn.Linear(2, 2, bias_init=v),
            [fn.init.Orthogonal(), fn.init.Sparse(0.5)],
            "^bias_init is .*, which initialises matrices; expected .* a vector",
        ),
        (
            lambda v: fn.GELU(v),
            ["erf", None, 1, True],
            "^approximate is .*; expected one of 'none', 'tanh'$",
        ),
        (
            lambda v: fn.Hardtanh(*v),
            [(1, 1), (2, -2)],
            "^min_val is .* and max_val is .*; expected min_val < max_val$",
        ),
        (
            lambda v: fn.Adam(betas=v),
            [None, 0.9, (0.9,), (0.9, 0.9, 0.9), "ab?", []],
            r"^betas is .*; expected two numbers in \[0, 1\)$",
        ),
        (
            lambda v: fn.Rprop(etas=v),
            [None, 0.5, (0.5,), (0.5, 1.2, 1.2), "ab?", []],
            r"^etas is .*; expected a number in \(0, 1\) and one in \(1, inf\)$",
        ),
        (
            lambda v: fn.Rprop(step_sizes=v),
            [None, 0.5, (0.5,), (0.5, 1.2, 1.2), "ab?", []],
            r"^step_sizes is .*; expected two numbers in \[1.17549e-38, inf\)$",
        ),
        (
            lambda v: fn.Rprop(step_sizes=v),
            [(50, 1e-6), (1, 0.999)],
            r"^step_sizes is \(.*, .*\); expected the least one first$",
        ),
        (
            lambda v: fn.Muon(ns_coefficients=v),
            [None, 0.5, (0.5, 1.0), (1, 2, 3, 4), "ab?c", []],
            r"^ns_coefficients is .*; expected three numbers in \(-inf, inf\)$",
        ),
        (
            lambda v: fn.Muon(ns_steps=v),
            [0, 100, -1, 5.0, True, None],
            r"^ns_steps is .*; expected an integer in \[1, 99\]$",
        ),
        (
            lambda v: fn.YellowFin(window=v),
            [0, 129, -1, 5.0, True, None],
            r"^window is .*; expected an integer in \[1, 128\]$",
        ),
        (
            lambda v: fn.Muon(adjust_lr_fn=v),
            ["adamw", None, 1],
            "^adjust_lr_fn is .*; expected one of 'original', 'match_rms_adamw'$",
        ),
        (
            lambda v: fn.SGD(nesterov=True, **v),
            [{}, {"momentum": 0}, {"momentum": 0.9, "dampening": 0.1}],
            "^nesterov=True with momentum=.*; expected momentum > 0 and dampening = 0$",
        ),
        (
            lambda v: fn.SGD(form=v),
            ["pytorch", None, 1, b"torch"],
            "^form is .*; expected one of 'torch', 'textbook'$",
        ),
        (
            lambda v: fn.SGD(form="textbook", dampening=v),
            [0.1, -1],
            "^form='textbook' with dampening=.*; expected dampening = 0$",
        ),
        (
            lambda v: fn.Sequential(*v),
            [(), (None,), ("relu",), (fn.ReLU,), ([fn.ReLU()],), (MSE,)],
            "^(layer 0 is .*; expected a layer|.* has no layers; expected at least one)",
        ),
    ],
    ids=[
        "dtype",
        "weight_init",
        "bias_init",
        "dim",
        "mode",
        "nonlinearity",
        "bias_init of matrices",
        "approximate",
        "bounds",
        "betas",
        "etas",
        "step_sizes",
        "order of step_sizes",
        "ns_coefficients",
        "ns_steps",
        "window",
        "adjust_lr_fn",
        "nesterov",
        "form",
        "dampening",
        "layers",
    ],
)
def test_choices(make, values, message):
    for bad in values:
        refused(lambda bad=bad: make(bad), HyperparameterError, message)


@pytest.mark.parametrize(
    ("optimizer", "name", "bad"),
    [
        (fn.SGD(0.5, 0.9), "lr", np.nan),
        (fn.Adam(0.5), "eps", -1),
        (fn.AdamW(0.5), "betas", (1, 1)),
        (fn.Rprop(0.5), "step_sizes", (2, 1)),
    ],
    ids=["SGD", "Adam", "AdamW", "Rprop"],
)
def test_a_refused_assignment_keeps_the_old_value(optimizer, name, bad):
    before = repr(optimizer)
    refused(lambda: setattr(optimizer, name, bad), HyperparameterError, f"^{name}")
    assert repr(optimizer) == before
