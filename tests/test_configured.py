"""What is configured: its arguments, its config and its repr are one description."""

from __future__ import annotations

import json

import child
import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet import configured, init
from fastnet.errors import HyperparameterError, UsageError
from fastnet.names import KINDS
from fastnet.train.callbacks import KeepBest

S = fn.schedules
P = fn.preprocess
STEP = S.StepLR(0.1, 30)
SHARED = {
    "groups": [
        {"params": ["0.*"], "lr": STEP},
        {"params": "*.bias", "weight_decay": np.float32(0.5)},
    ],
    "decay_biases_and_norms": False,
    "l1": 0.25,
    "l1_proximal": True,
    "max_norm": 2,
}
OF_OPTIMIZERS = {
    fn.SGD: {"momentum": STEP, "nesterov": True, "form": "textbook"},
    fn.Adagrad: {"lr_decay": 0.1, "initial_accumulator_value": 1, "eps": 1e-3},
    fn.Adadelta: {"rho": 0.5, "eps": 1e-3},
    fn.RMSprop: {"alpha": 0.5, "eps": 1e-3, "momentum": 0.5, "centered": True},
    fn.Adam: {"betas": (STEP, np.float64(0.5)), "eps": 1e-3, "amsgrad": True},
    fn.AdamW: {"betas": (0.5, 0.5), "eps": 1e-3, "amsgrad": True},
    fn.Adamax: {"betas": (0.5, 0.5), "eps": 1e-3},
    fn.NAdam: {"betas": (0.5, 0.5), "eps": 1e-3, "momentum_decay": 0.5},
    fn.RAdam: {"betas": (0.5, 0.5), "eps": 1e-3},
    fn.Lion: {"betas": [0.5, 0.5]},
    fn.LearnedOptimizer: {
        "weights": {
            "lstm.weight_ih_l0": np.float32([[1, 0.1]] * 4),
            "lstm.weight_hh_l0": [[0.5]] * 4,
            "lstm.bias_ih_l0": np.arange(4),
            "output.weight": [[-2]],
            "output.bias": [0.25],
        }
    },
    fn.Muon: {
        "momentum": STEP,
        "nesterov": False,
        "ns_coefficients": [2, STEP, np.float32(0.5)],
        "eps": 1e-3,
        "ns_steps": np.int64(3),
        "adjust_lr_fn": "match_rms_adamw",
        "betas": (0.5, 0.5),
        "orthogonal": False,
    },
    fn.Rprop: {"etas": [0.25, 2], "step_sizes": (np.float32(0.25), STEP)},
}
PART = {name: SHARED[name] for name in ("groups", "decay_biases_and_norms", "l1")}
SCHEDULE_FREE = {
    fn.ScheduleFreeSGD: {"momentum": STEP},
    fn.ScheduleFreeAdamW: {"betas": (0.5, STEP), "eps": 1e-3},
}
TUNED = {  # whose groups have no lr, and which refuse l1_proximal
    fn.YellowFin: {
        "beta": STEP,
        "window": np.int64(5),
        "log_smoothing": True,
        "adaptive_clipping": False,
        "closed_loop": True,
        "gamma": 0.5,
        "eps": 1e-3,
    },
    fn.SGDHD: {"momentum": STEP, "nesterov": True, "hypergrad_lr": 0.5, "multiplicative": True},
    fn.AdamHD: {
        "betas": (0.5, STEP),
        "eps": 1e-3,
        "hypergrad_lr": STEP,
        "multiplicative": True,
    },
}
FOR_TUNED = SHARED | {"groups": SHARED["groups"][1:], "l1_proximal": False}
HALF = {"reduction": "sum"}
PLAIN = [
    fn.Identity,
    fn.GLU,
    fn.LogSigmoid,
    fn.Mish,
    fn.NoisyReLU,
    fn.ReLU,
    fn.ReLU6,
    fn.SELU,
    fn.SiLU,
]
PLAIN += [fn.SwiGLU, fn.Sigmoid, fn.Softsign, fn.Tanh, fn.Hardsigmoid, fn.Hardswish]
PLAIN += [
    init.Zeros,
    init.Ones,
    init.RandomSigns,
    init.FanInUniform,
    init.LecunNormal,
    init.LecunUniform,
]

# With all arguments, none as by default.
ALL = [
    *[kind() for kind in PLAIN],
    fn.Linear(3, np.int64(2), False, init.Sparse(0.5), init.Constant(np.float32(0.1))),
    fn.NTKLinear(3, np.int64(2), False, init.Sparse(0.5), init.Constant(np.float32(0.1))),
    fn.BatchNorm1d(3, 1e-3, None, affine=False, track_running_stats=False),
    *[fn.LayerNorm([np.int64(3)], 1e-3, False, False), fn.RMSNorm((3,), 1e-3, False)],
    *[fn.Scale(3), fn.Bias(np.int64(3)), fn.AlphaDropout(0.25), fn.GaussianNoise(np.float32(0.5))],
    fn.HierarchicalSoftmax(
        3, 4, np.arange(4), "huffman", False, init.Sparse(0.5), init.Constant(0.1)
    ),
    fn.HierarchicalSoftmax(3, 2, tree=[2, 2, -1]),
    fn.Embedding([3, 4], (2, np.int64(5)), np.array([2, 0]), True, init.Normal(0, 2)),
    fn.Periodic(3, np.int64(2), np.float32(0.5), phases=True),
    fn.PBLD(3, np.int64(2), 3, np.float32(0.5), 4),
    *[fn.ParametricActivation(fn.ELU(2), np.int64(3)), fn.ParametricActivation("SELU", 3)],
    fn.PiecewiseLinear([np.array([0, 1]), (-2, 0.5, np.float32(3))], np.int64(4), "B"),
    fn.RBF(3, np.int64(2), False, init.Uniform(-2, 2), init.Constant(2)),
    fn.Columns([np.int64(2), 0, 2]),
    *[fn.EnsembleView(np.int64(4)), fn.EnsembleMean(4, "probabilities")],
    fn.LinearBatchEnsemble(
        3, np.int64(2), 4, False, init.RandomSigns(), init.Normal(1, 2), np.array([1, 2])
    ),
    fn.LinearEnsemble(3, np.int64(2), 4, False, init.Constant(0.5)),
    fn.EnsembleLoss(fn.HuberLoss(2, **HALF)),
    *[fn.Dropout(0.25), fn.LeakyReLU(0.5), fn.PReLU(3, 0.5), fn.ELU(2), fn.Hardtanh(-2, 3)],
    *[fn.ScaledTanh(2, 3), fn.LinearTanh(0.5), fn.Softplus(2, 3), fn.GELU("tanh")],
    *[fn.Softmax(1), fn.LogSoftmax(1), fn.RandomContrast(0.5)],
    *[fn.RandomTranslation((4, np.int64(5)), 1, 3), fn.RandomFlip([4, 5, 3], "vertical")],
    *[
        P.Center(3),
        P.StandardScaler(3),
        P.MinMaxScaler((-1, 2), 0.5, True, 3),
        P.RobustScaler(2, 3),
    ],
    *[P.QuantileTransformer(9, 3), P.PCA(2, True, 0.5, 3), P.ZCA(0.5, 3)],
    P.OneHot([2, 0], [4, np.int64(5)], 3),
    *[fn.ClassBalanced(), fn.ImportanceSampling(0.25), fn.HardExamples(0.5)],
    *[kind(np.int64(3), shuffle=True, seed=5) for kind in (fn.KFold, fn.StratifiedKFold)],
    *[fn.Add(fn.Tanh(), fn.ReLU()), fn.Multiply(fn.Tanh()), fn.Concat(fn.Identity())],
    *[fn.Residual(fn.Linear(3, 2), fn.Tanh(), shortcut=fn.Linear(3, 2)), fn.Flatten()],
    fn.CrossEntropyLoss(np.array([1, 0.1], "f"), ignore_index=5, label_smoothing=0.1, **HALF),
    *[fn.NLLLoss([1, 2], ignore_index=5, **HALF), fn.BCELoss("sum")],
    fn.HierarchicalSoftmaxLoss(5, **HALF),
    *[fn.BCEWithLogitsLoss([1, 2], **HALF), fn.KLDivLoss("sum", log_target=True)],
    *[fn.MSELoss("sum"), fn.HalfMSELoss("sum"), fn.L1Loss("sum"), fn.LogCoshLoss("sum")],
    *[fn.HuberLoss(2, **HALF), fn.SmoothL1Loss(2, **HALF), fn.RBFLoss(2.5, [1, 2], **HALF)],
    fn.PinballLoss([0.25, 0.5], **HALF),
    fn.PoissonNLLLoss(log_input=False, full=True, eps=1e-3, **HALF),
    fn.GaussianNLLLoss(full=True, eps=1e-3, **HALF),
    fn.MultiMarginLoss(2, 0.5, [1, 2], **HALF),
    fn.OneVsRestHingeLoss(2, 0.5, [1, 2], **HALF),
    fn.binary_accuracy(0),
    *[fn.AUC(), fn.F1(), fn.TopK(np.int64(3)), fn.BalancedAccuracy(), fn.LogLoss()],
    *[fn.MAE(), fn.RMSE(), fn.R2()],
    *[
        kind(lr=0.5, weight_decay=1, decoupled_weight_decay=not kind._decoupled, **own, **SHARED)
        for kind, own in OF_OPTIMIZERS.items()
    ],
    fn.SGD(momentum=0.5, dampening=0.25),
    *[
        kind(
            0.5, weight_decay=1, warmup_steps=np.int64(3), r=1, weight_lr_power=STEP, **own, **PART
        )
        for kind, own in SCHEDULE_FREE.items()
    ],
    *[
        kind(0.5, weight_decay=1, decoupled_weight_decay=True, **own, **FOR_TUNED)
        for kind, own in TUNED.items()
    ],
    *[fn.EMA(0.5, evaluate=True), fn.SWA(2, 3)],
    fn.EarlyStopping("loss", 3, 0.1, "max", restore_best_weights=True, ties="last"),
    fn.ReduceLROnPlateau("loss", 0.5, 3, 0.1, "abs", 2, 0.1, 0.1, "max"),
    KeepBest("score", "max", "last"),
    *[fn.CSVLogger("log.csv", ";", append=True), fn.JSONLLogger("log.jsonl", append=True)],
    *[fn.TensorBoard("events"), fn.Timer(2), fn.Snapshots(3, 2)],
    fn.ModelCheckpoint("run-{epoch}", "loss", "max", save_best_only=True, every=2, keep=3),
    fn.Record(False, False, np.int64(2), np.array([7, 3])),
    *[
        init.Constant(np.float32(0.1)),
        init.Sparse(0.5, 0.1),
        init.Uniform(-1, 2),
        init.Normal(1, 2),
        init.Orthogonal(2, "relu"),
    ],
    *[kind(0.5, "fan_out") for kind in (init.KaimingUniform, init.KaimingNormal)],
    *[init.KaimingUniform(nonlinearity="relu"), init.KaimingNormal(nonlinearity="relu")],
    *[kind(2, "relu") for kind in (init.GlorotUniform, init.GlorotNormal)],
    *[STEP.per_epoch(7), 0.5 * STEP, STEP * STEP, S.ProductLR(1, STEP), S.StepLR(0.1, 9, 0.5)],
    *[S.SequentialLR([STEP, 0.25], [4]), S.WarmupLR(STEP, 3, 0.25), S.ConstantLR(0.1, 0.5, 2)],
    *[S.MultiStepLR(0.1, [2, 3], 0.5), S.ExponentialLR(0.1, 0.5), S.InverseTimeLR(0.1, 0.5)],
    *[S.InverseSqrtLR(0.1, 3), S.PolynomialLR(0.1, 7, 2), S.LinearLR(0.1, 0.5, 0.25, 7)],
    *[S.CosineAnnealingLR(0.1, 7, 0.01), S.CosineAnnealingWarmRestarts(0.1, 7, 2, 0.01)],
    S.CyclicLR(0.1, 0.2, 7, 8, "exp_range", 0.5, 0.1, 0.2),
    S.OneCycleLR(0.1, None, 3, 9, 0.25, "linear", 0.1, 0.2, 5, 6, three_phase=True),
    *[S.CosLogLR(0.1, 9, 3), S.FlatCosLR(0.1, 9, 0.25)],
    S.OneCycleMomentum(27, 0.1, 0.2, 0.25, "linear", three_phase=True),
    fn.Sequential(
        *[fn.Linear(3, 2, weight_init=init.HeNormal()), fn.Sequential(fn.PReLU(), fn.Softmax())],
        dtype="float64",
        backend="reference",
        seed=2**64 - 1,
    ),
    fn.Sequential(fn.Linear(2, 1), precision="bfloat16", seed=3),
]
NAMES = {**vars(fn), **vars(S), **vars(P), "KeepBest": KeepBest}
every = pytest.mark.parametrize("made", ALL, ids=lambda made: type(made).__name__)


FUNCTIONS = {"FunctionLoss", "LambdaLR", "LearningRateScheduler"}


def described(made):
    return {"type": type(made).__name__, **made.config()}


@every
def test_an_equal_one_is_made_from_its_config_and_from_its_repr(made):
    config, text = made.config(), repr(made)
    written = json.loads(json.dumps(config, allow_nan=False))
    for other in (
        type(made).from_config(config),
        type(made).from_config(written),
        fn.from_config({"type": type(made).__name__, **written}),
        eval(text, NAMES),
    ):
        assert type(other) is type(made) and repr(other) == text and other.config() == config
        if isinstance(made, (S.Schedule, init.Initializer, fn.EMA, fn.SWA)):
            assert other == made
    assert written == config and made.config() == config


def test_every_class_and_argument_is_in_the_table():
    modules = fn, fn.layers, fn.losses, fn.optim, fn.preprocess, fn.schedules, init
    public = {getattr(module, name) for module in modules for name in module.__all__}
    bases = {fn.Layer, fn.CustomLayer, fn.Loss, fn.Optimizer}
    bases |= {S.Schedule, init.Initializer, fn.Callback}
    kinds = {k for k in public if isinstance(k, type) and issubclass(k, configured.Configured)}
    functions = {fn.FunctionLoss, S.LambdaLR, fn.LearningRateScheduler}
    assert {type(made) for made in ALL} | functions == (kinds - bases) | {KeepBest}
    for kind in kinds - bases - functions:
        shown = " ".join(repr(made) for made in ALL if type(made) is kind)
        fixed = SHARED.keys() - PART.keys() if kind in SCHEDULE_FREE else set()
        fixed |= {"decoupled_weight_decay"} if fixed else set()
        fixed |= {"l1_proximal"} if kind in TUNED else set()
        for name, p in kind._constructor().items():
            required = (
                p.default is p.empty or name in ("epochs", "steps_per_epoch") or name in fixed
            )
            assert required or f"{name}=" in shown, (kind, name)


REGISTERED = """
import contextlib, importlib, json, pkgutil
import fastnet
from fastnet import configured
for found in pkgutil.walk_packages(fastnet.__path__, "fastnet."):
    if not found.name.endswith("__main__"):
        with contextlib.suppress(ImportError):  # of an optional package
            importlib.import_module(found.name)
print(json.dumps(sorted(configured._kinds)))
"""


def test_the_registry_has_what_is_public():
    """And nothing else, with every module imported: no base, no class that a module keeps for itself."""
    wanted = {type(made).__name__ for made in ALL} | FUNCTIONS
    assert set(child.run(REGISTERED)) == wanted == KINDS.keys()


def test_a_config_follows_what_is_assigned():
    optimizer, stop = fn.SGD(0.1), fn.EarlyStopping()
    optimizer.lr, optimizer.momentum, stop.patience = STEP, 0.5, 7
    assert optimizer.config()["lr"] == {"type": "StepLR", "lr": 0.1, "step_size": 30, "gamma": 0.1}
    assert repr(optimizer) == "SGD(lr=StepLR(0.1, 30), momentum=0.5)"
    assert stop.config()["patience"] == 7


def test_of_a_nested_model_only_the_layers_count():
    inner = fn.Sequential(fn.Tanh(), dtype="float64", backend="reference", seed=1)
    model = fn.Sequential(fn.Linear(3, 2), inner, seed=4)
    assert model.config()["layers"][1] == {"type": "Sequential", "layers": [{"type": "Tanh"}]}
    made = fn.from_config(described(model))
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(made.state_dict()[name], value)


def double(step):
    return 2.0 * step


def test_functions_stay_functions():
    schedule, loss = S.LambdaLR(0.1, double), fn.FunctionLoss(np.dot, "sum")
    for made in (schedule, loss):
        other = type(made).from_config(made.config())
        assert repr(other) == repr(made)
        with pytest.raises(TypeError, match="not JSON serializable"):
            json.dumps(made.config())


UNKNOWN = {
    "a type": ({"type": "Linaer"}, "^type is 'Linaer'; expected one of .*, Linear, .*register"),
    "a module": ({"type": "os.system"}, "^type is 'os.system'; expected one of AUC, Adadelta"),
    "a base": ({"type": "Layer"}, "^type is 'Layer'"),
    "a type that is no name": ({"type": ["Linear"]}, r"^type is \['Linear'\]"),
    "no type": ({"in_features": 3}, '^config is .*; expected {"type": "Linear"'),
    "no dict": ("Linear", "^config is 'Linear'; expected"),
    "an argument": (
        {"type": "HuberLoss", "dleta": 1},
        "^HuberLoss has no argument 'dleta'; it takes delta, reduction",
    ),
    "any argument": ({"type": "ReLU", "a": 1}, "^ReLU has no argument 'a'; it takes none"),
    "a needed one": (
        {"type": "Linear", "in_features": 3},
        "^the config of Linear has no 'out_features'; it takes in_features, out_features",
    ),
    "within": (
        {"type": "Sequential", "layers": [{"type": "Linear", "in_features": 1, "out": 2}]},
        "^Linear has no argument 'out'; it takes in_features",
    ),
    "layers that are no list": (
        {"type": "Sequential", "layers": 3},
        "^layers is 3; expected a list",
    ),
    "a value": ({"type": "Dropout", "p": 2}, "^p is 2; expected a finite number"),
    "another family": (
        {"type": "Linear", "in_features": {"type": "SGD"}, "out_features": 1},
        "^in_features is SGD",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_unknown_is_refused_and_what_there_is_told(case):
    config, message = UNKNOWN[case]
    refused(lambda: fn.from_config(config), HyperparameterError, message)


class Doubled(fn.Layer):
    def __init__(self, factor=2.0):
        super().__init__(factor=factor)


class Log(fn.Callback):
    def __init__(self, path, every=1):
        super().__init__(path=path, every=every)
        self.lines = []


class Stop(fn.EarlyStopping):
    def __init__(self, remark="", **others):
        super().__init__(**others)
        self.remark = remark


class Forgets(fn.Callback):
    def __init__(self, path):
        self.lines = []


def test_classes_of_ones_own_have_configs():
    for made in (Doubled(3.0), Log("a.csv", 2), Stop("mine", patience=4)):
        kind = type(made)
        other = kind.from_config(made.config())
        assert other.config() == made.config() and repr(other) == repr(made)
        assert repr(eval(repr(made), globals())) == repr(made)
    assert Stop(patience=4).config()["patience"] == 4
    message = (
        "^Forgets has not kept its argument 'path': keep it as self.path, or pass it on by super"
    )
    refused(Forgets("a").config, UsageError, message)
    assert "Forgets object" in repr(Forgets("a"))


def test_a_class_of_ones_own_is_known_by_name_when_it_is_registered(monkeypatch):
    monkeypatch.setattr(configured, "_kinds", dict(configured._kinds))
    model = fn.Sequential(Doubled(3.0), seed=1)
    refused(model.config, UsageError, "^the class Doubled is not registered: fastnet.register it")
    refused(lambda: fn.from_config({"type": "Doubled"}), HyperparameterError, "^type is 'Doubled'")
    assert fn.register(Doubled) is Doubled and fn.register(Doubled) is Doubled
    assert isinstance(fn.from_config(described(model))[0], Doubled)
    other = type("Doubled", (fn.Layer,), {})
    refused(lambda: fn.register(other), HyperparameterError, "has this name; expected another")
    linear = type("Linear", (fn.Layer,), {})
    refused(
        lambda: fn.register(linear), HyperparameterError, r"fastnet\.layers\.linear\.Linear has"
    )
    refused(lambda: fn.register(dict), HyperparameterError, "^kind is the class dict")
