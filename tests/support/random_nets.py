"""Random models of every layer that C export has, with rows of data for them."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnet as fn
from fastnet import preprocess

WIDTHS = (1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64, 65, 70)
PLAIN = (
    *(
        "ReLU",
        "LeakyReLU",
        "ELU",
        "SELU",
        "ReLU6",
        "Hardtanh",
        "Hardsigmoid",
        "Hardswish",
        "Sigmoid",
    ),
    *(
        "Tanh",
        "ScaledTanh",
        "LinearTanh",
        "Softsign",
        "Softplus",
        "LogSigmoid",
        "GELU",
        "SiLU",
        "Mish",
    ),
    *("NoisyReLU", "GaussianNoise", "Dropout", "AlphaDropout", "Identity"),
)


class Net:
    """A chain of layers in the making: `layers`, and the width of their output."""

    def __init__(self, seed: int, width: int) -> None:
        self.random, self.width, self.layers = np.random.default_rng(seed), width, list[Any]()

    def of(self, choices: Any) -> Any:
        return choices[int(self.random.integers(len(choices)))]

    def chance(self, p: float) -> bool:
        return bool(self.random.random() < p)

    def add(self, *layers: Any, width: int | None = None) -> None:
        self.layers += layers
        self.width = self.width if width is None else width

    def other(self, width: int) -> Net:
        return Net(int(self.random.integers(2**31)), width)

    # Each adds a kind of layer.

    def linear(self) -> None:
        wide = self.of(WIDTHS)
        self.add(fn.Linear(self.width, wide, bias=self.chance(0.8)), width=wide)

    def plain(self) -> None:
        name = self.of(PLAIN)
        self.add(getattr(fn, name)(*([0.1] if "oise" in name and "ReLU" not in name else [])))

    def gelu_tanh(self) -> None:
        self.add(fn.GELU(approximate="tanh"))

    def batchnorm(self) -> None:
        self.add(fn.BatchNorm1d(self.width, affine=self.chance(0.7)))

    def normalized(self) -> None:
        self.add(
            fn.RMSNorm(self.width)
            if self.chance(0.3)
            else fn.LayerNorm(self.width, elementwise_affine=self.chance(0.6))
        )

    def softmax(self) -> None:
        if self.width > 1:
            self.add(self.of((fn.Softmax, fn.LogSoftmax))())

    def gated(self) -> None:
        if self.width % 2 == 0:
            self.add(self.of((fn.GLU, fn.SwiGLU))(), width=self.width // 2)

    def scaled(self) -> None:
        self.add(self.of((fn.Scale, fn.Bias))(self.width))

    def prelu(self) -> None:
        self.add(fn.PReLU(self.of((1, self.width))))

    def parametric(self) -> None:
        self.add(fn.ParametricActivation("silu", self.width))

    def ntk(self) -> None:
        wide = self.of(WIDTHS)
        self.add(fn.NTKLinear(self.width, wide), width=wide)

    def rbf(self) -> None:
        count, constant = self.of((3, 70)), self.chance(0.5)
        layer = fn.RBF(self.width, count, constant=constant)
        self.add(layer, width=layer.output_shape((self.width,))[0])

    def periodic(self) -> None:
        layer = fn.Periodic(self.width, 3, phases=self.chance(0.5))
        self.add(layer, width=layer.output_shape((self.width,))[0])

    def pbld(self) -> None:
        layer = fn.PBLD(self.width, 3)
        self.add(layer, width=layer.output_shape((self.width,))[0])

    def piecewise(self) -> None:
        count = [int(self.random.integers(1, 5)) for _ in range(self.width)]
        bins = [np.sort(self.random.normal(size=n + 1)).tolist() for n in count]
        layer = fn.PiecewiseLinear(
            bins, self.of((None, 1, 3)), version="B" if self.chance(0.5) else "A"
        )
        self.add(layer, width=layer.output_shape((self.width,))[0])

    def ensemble(self) -> None:
        k, wide, out = self.of((1, 4)), self.of(WIDTHS), self.of(WIDTHS)
        self.add(fn.EnsembleView(k), fn.LinearEnsemble(self.width, wide, k), fn.Tanh())
        self.add(fn.LinearBatchEnsemble(wide, out, k), width=out)
        self.add(fn.EnsembleMean(k, self.of(("outputs", "probabilities"))))

    def residual(self) -> None:
        inner = self.other(self.width)
        inner.some(2)
        inner.add(fn.Linear(inner.width, self.width))
        self.add(fn.Residual(*inner.layers))

    def branches(self) -> None:
        kind, wide = self.of((fn.Concat, fn.Add, fn.Multiply)), self.of(WIDTHS)
        made, widths = [], []
        for _ in range(2):
            inner = self.other(self.width)
            if self.chance(0.4):
                columns = [int(self.random.integers(self.width)) for _ in range(3)]
                inner.add(fn.Columns(columns), width=3)
            inner.some(1)
            if kind is not fn.Concat or not inner.layers:
                inner.add(fn.Linear(inner.width, wide), width=wide)
            made.append(fn.Sequential(*inner.layers))
            widths.append(inner.width)
        self.add(kind(*made), width=sum(widths) if kind is fn.Concat else wide)

    INNER = (
        linear,
        linear,
        linear,
        plain,
        plain,
        plain,
        gelu_tanh,
        batchnorm,
        normalized,
        softmax,
        gated,
    )
    INNER += (
        scaled,
        prelu,
        parametric,
        ntk,
        rbf,
        periodic,
        pbld,
        piecewise,
        ensemble,
        residual,
        branches,
    )

    def some(self, count: int) -> None:
        """A few layers, none of them much wider than the widest of WIDTHS."""
        for _ in range(count):
            self.of(self.INNER)(self)
            if self.width > 150:
                self.linear()


CODES, CATEGORIES = 5, 3


def inputs(seed: int, rows: int = 40) -> Any:
    """Rows: column 0 has codes, column 1 categories, the others numbers."""
    random = np.random.default_rng(seed + 1000)
    x = random.normal(size=(rows, 8))
    x[:, 0], x[:, 1] = random.integers(CODES, size=rows), random.integers(CATEGORIES, size=rows)
    return x


def model(seed: int, **options: Any) -> fn.Sequential:
    """A random model for `inputs(seed)`."""
    x, net = inputs(seed), Net(seed, 8)
    if net.chance(0.4):
        net.add(preprocess.OneHot([1]).fit(x), width=0)
        net.width = net.layers[0].output_shape((8,))[0]
        net.add(fn.Embedding(CODES, 4, unknown=net.chance(0.5)), width=net.width + 3)
    elif net.chance(0.7):
        kinds = "StandardScaler", "MinMaxScaler", "RobustScaler", "Center", "PCA", "ZCA"
        kinds += ("QuantileTransformer",)
        net.add(getattr(preprocess, net.of(kinds))().fit(x))
    net.some(1 + int(net.random.integers(5)))
    if net.chance(0.15):
        tree = [
            8,
            8,
            8,
            9,
            10,
            10,
            7,
            -1,
            7,
            7,
            9,
        ]  # of 7 classes, and of nodes with 3 and 2 children
        net.add(fn.HierarchicalSoftmax(net.width, 7, tree=tree))
    made = fn.Sequential(*net.layers, seed=seed, **options)
    state = made.state_dict()
    for name, value in state.items():  # none is as it begins, such as 0 or 1
        if name.endswith(("running_mean", "bias", "scale")) or value.ndim == 1:
            low, high = (0.5, 1.5) if "var" in name or "sigma" in name else (-0.5, 0.5)
            if "num_batches" not in name and _is_trained(name):
                state[name] = value * 0 + net.random.uniform(low, high, value.shape)
    made.load_state_dict(state)
    return made


def _is_trained(name: str) -> bool:
    """Whether a value may be any number: not one that was fitted to data."""
    return name.rpartition(".")[2] in ("running_mean", "running_var", "bias", "weight")
