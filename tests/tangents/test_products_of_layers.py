"""Jacobian, Hessian and Gauss–Newton products of every layer, against differences."""

from __future__ import annotations

import copy
from typing import Any

import directions
import numpy as np
import pytest
from directions import close

import fastnet as fn
from fastnet import preprocess
from fastnet.formulas import exp, where
from fastnet.layers.pointwise import Activation

STEP = 2e-3
TOL = 1e-9


@fn.elementwise
def damped(x: Any, rate: float = 0.5) -> Any:
    """A function of users' own, with a kink."""
    return where(x > 0, x, x * exp(-rate * x * x))


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


X, LABELS = normal(1, 7, 6), np.arange(7) % 4
DATA = normal(11, 30, 6)
COLUMNS = [np.random.default_rng(5).integers(0, n, (7, 1)) for n in (3, 4)]
CODES = np.concatenate([*COLUMNS, X[:, :4]], axis=1).astype(float)
OF_CODES = "embedding", "embedding with unknown codes", "embedding alone", "one-hot"
OF_PIECES = "clipped", "quantiles"  # x moves less, so that it meets no kink
BINS = [[-1, 0.0, 1], [-0.5, 0.5]]
ACTIVATIONS = sorted(
    (kind for kind in Activation.__subclasses__() if kind.__name__ in fn.layers.__all__),
    key=lambda kind: kind.__name__,
)


def between(width: int, *layers: Any) -> list[Any]:
    """Layers that make 5 columns of `width`, between linear ones."""
    return [fn.Linear(6, width), *layers, fn.Tanh(), fn.Linear(5, 4)]


def ensemble(average: str, **options: Any) -> list[Any]:
    first = fn.LinearBatchEnsemble(6, 5, 3, r_init=fn.init.Normal(), **options)
    last = fn.LinearEnsemble(5, 4, 3, **options)
    return [fn.EnsembleView(3), first, fn.Tanh(), last, fn.EnsembleMean(3, average)]


LAYERS: dict[str, list[Any]] = {
    **{kind.__name__: between(5, kind()) for kind in ACTIVATIONS},
    "a user's function": between(5, damped(0.3)),
    "PReLU": between(5, fn.PReLU()),
    "PReLU of features": [fn.PReLU(6), fn.Linear(6, 4)],
    "noisy ReLU": between(5, fn.NoisyReLU(), fn.Identity()),
    "GLU": between(10, fn.GLU()),
    "SwiGLU": between(10, fn.SwiGLU()),
    "parametric": between(5, fn.ParametricActivation("mish", 5)),
    "softmax": between(5, fn.Softmax()),
    "log-softmax": between(5, fn.LogSoftmax()),
    "NTK": [fn.NTKLinear(6, 5), fn.Tanh(), fn.NTKLinear(5, 4)],
    "scale": [fn.Scale(6), fn.Bias(6), fn.Tanh(), fn.Linear(6, 4)],
    "columns": between(6, fn.Columns([2, 0, 2]), fn.Linear(3, 5)),
    "flatten": [fn.Flatten(), *between(5)],
    "RBF first": [fn.RBF(6, 5), fn.Linear(6, 4, bias=False)],
    "RBF": between(3, fn.RBF(3, 5, constant=False)),
    "PBLD": [fn.PBLD(4, 3, 4, others=2, sigma=1.0), fn.Linear(18, 4)],
    "PBLD within": between(6, fn.PBLD(4, 3, 4, others=2, sigma=1.0), fn.Linear(18, 5)),
    "periodic": between(6, fn.Periodic(6, 3), fn.Linear(36, 5)),
    "phases": [fn.Periodic(6, 3, phases=True), fn.Linear(18, 4)],
    "piecewise": between(2, fn.PiecewiseLinear(BINS, 3, "B"), fn.Linear(6, 5)),
    "piecewise A": between(2, fn.PiecewiseLinear(BINS, 3, "A"), fn.Linear(6, 5)),
    "piecewise codes": between(2, fn.PiecewiseLinear(BINS), fn.Linear(3, 5)),
    "batchnorm": between(5, fn.BatchNorm1d(5)),
    "batchnorm not affine": between(5, fn.BatchNorm1d(5, affine=False)),
    "batchnorm of batches": between(5, fn.BatchNorm1d(5, track_running_stats=False)),
    "batchnorm's average": between(5, fn.BatchNorm1d(5, momentum=None)),
    "layernorm": between(5, fn.LayerNorm(5)),
    "layernorm not affine": between(5, fn.LayerNorm(5, elementwise_affine=False)),
    "RMSNorm": between(5, fn.RMSNorm(5)),
    "dropout": between(5, fn.Dropout(0.3)),
    "dropout after ReLU": between(5, fn.ReLU(), fn.Dropout(0.3)),
    "dropout by schedule": between(5, fn.Dropout(fn.schedules.StepLR(0.3, 10))),
    "alpha dropout": between(5, fn.SELU(), fn.AlphaDropout(0.3)),
    "noise": between(5, fn.GaussianNoise(0.3)),
    "ensemble": ensemble("outputs"),
    "ensemble of probabilities": ensemble("probabilities", bias=False),
    "hierarchical": [*between(5), fn.HierarchicalSoftmax(4, 4)],
    "Huffman": [fn.HierarchicalSoftmax(6, 4, np.array([1, 2, 3, 9]), "huffman", bias=False)],
    "a deep tree": [fn.HierarchicalSoftmax(6, 4, tree=[6, 6, 6, 4, 7, 4, 5, -1])],
    "residual": between(5, fn.Residual(fn.Linear(5, 5), fn.Tanh()), fn.Residual(fn.SiLU())),
    "concat": between(6, fn.Concat(fn.Linear(6, 3), fn.Sequential(fn.Tanh(), fn.Linear(6, 2)))),
    "multiply": between(6, fn.Multiply(fn.Linear(6, 5), fn.Sequential(fn.Tanh(), fn.Linear(6, 5)))),
    "add": between(6, fn.Add(fn.Linear(6, 5), fn.Linear(6, 5))),
    "standard": [preprocess.StandardScaler().fit(DATA), *between(5)],
    "robust": [preprocess.RobustScaler(2.0).fit(DATA), *between(5)],
    "clipped": [preprocess.MinMaxScaler(clip=True).fit(DATA), *between(5)],
    "quantiles": [preprocess.QuantileTransformer(9).fit(DATA), *between(5)],
    "PCA": [preprocess.PCA(3).fit(DATA), fn.Linear(3, 4)],
    "ZCA": [preprocess.ZCA().fit(DATA), *between(5)],
    "centred": [preprocess.Center().fit(DATA), *between(5)],
    "embedding": [fn.Embedding([3, 4], [2, 3], [0, 1]), fn.Linear(9, 6), *between(5)],
    "embedding with unknown codes": [fn.Embedding([2, 4], 2, [0, 1], unknown=True), fn.Linear(8, 4)],
    "embedding alone": [fn.Columns([1]), fn.Embedding(4, 2), fn.Linear(2, 6), *between(5)],
    "one-hot": [preprocess.OneHot([0, 1]).fit(CODES), fn.Linear(13, 6), *between(5)],
    "flipped": [fn.RandomFlip((2, 3)), *between(5)],
    "moved": between(6, fn.RandomTranslation((2, 3), 1, 1), fn.RandomContrast(0.5), fn.Linear(6, 5)),
}  # fmt: skip


def shared() -> list[Any]:
    """A layer that stands at two places, after a skip."""
    twice = fn.Linear(6, 6)
    return [twice, fn.Residual(fn.SiLU(), twice), fn.Tanh(), twice, fn.Linear(6, 4)]


LAYERS["shared"] = shared()
NORMED = "norm", "RMSNorm"  # of few columns: differences are less accurate


def model_of(name: str, backend: str, *, training: bool = True, dtype: str = "float64") -> Any:
    layers = copy.deepcopy(LAYERS[name])
    model = fn.Sequential(*layers, dtype=dtype, backend=backend, seed=3)
    return model.train(training)


def data_of(name: str) -> tuple[Any, Any]:
    """Rows, and a direction in which they move."""
    x = CODES if name in OF_CODES else X
    dx = normal(9, *x.shape) * (1e-2 if name in OF_PIECES else 1.0)
    if name in OF_CODES:
        dx[:, :2] = 0
    return x, dx


def loss_of(name: str) -> Any:
    if "ensemble" in name:
        return fn.EnsembleLoss(fn.CrossEntropyLoss())
    tree = isinstance(LAYERS[name][-1], fn.HierarchicalSoftmax)
    return fn.HierarchicalSoftmaxLoss() if tree else fn.CrossEntropyLoss(label_smoothing=0.1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(backend, name, training):
    model, loss, (x, dx) = model_of(name, backend, training=training), loss_of(name), data_of(name)
    if name != "shared" and any(n.startswith("0.") for n in model.named_parameters()):
        model.freeze(next(n for n in model.named_parameters()))
    v, draws = directions.direction(model, 4), model._draws
    tol = TOL * (30 if any(part in name for part in NORMED) else 1)

    def output(t: float) -> Any:
        model._draws = draws
        return directions.at(model, v, t, lambda: model.forward(x + t * dx))

    y, moved = model.jvp(x, dx, v)
    assert model._draws == draws
    close(moved, directions.slope(output, STEP), tol, "jvp")
    np.testing.assert_allclose(y, output(0.0), rtol=1e-12, atol=1e-13)
    model._draws = draws
    parts = model.jvp(x, None, v)[1] + model.jvp(x, dx)[1] if v else model.jvp(x, dx)[1]
    np.testing.assert_allclose(parts, moved, rtol=0, atol=1e-12 * (1 + np.abs(moved).max()))
    if not v:
        return
    model._draws = draws
    got, names = model.hvp(loss, x, LABELS, v), list(v)

    def gradient(t: float) -> Any:
        model._draws = draws
        found = directions.at(model, v, t, lambda: directions.gradients(model, loss, x, LABELS))
        return np.concatenate([found[n].ravel() for n in names])

    flat = np.concatenate([got[n].ravel() for n in names])
    close(flat, directions.slope(gradient, STEP), tol, "hvp")
    model._draws = draws
    found = model.gnvp(loss, x, LABELS, v)
    assert sum(float((found[n] * v[n]).sum()) for n in v) >= 0
    u = directions.direction(model, 6)
    for product in (model.hvp, model.gnvp):  # symmetric
        one, other = product(loss, x, LABELS, u), product(loss, x, LABELS, v)
        a = sum(float((one[n] * v[n]).sum()) for n in v)
        b = sum(float((other[n] * u[n]).sum()) for n in v)
        scale = directions.largest(one.values()) + directions.largest(other.values())
        assert a == pytest.approx(b, rel=1e-9, abs=1e-12 * scale)


@pytest.mark.parametrize("name", LAYERS)
def test_forward_mode_is_the_transpose_of_backward(backend, name):
    """At kinks too: where all inputs are 0, and parameters as they begin, biases 0."""
    model, (x, dx) = model_of(name, backend, training=False), data_of(name)
    if name not in OF_CODES:
        x = np.zeros_like(x)
    biases = [n for n in model.named_parameters() if n.endswith("bias")]
    if biases:
        with model.edit() as values:
            for bias in biases:
                values[bias][...] = 0
    v = directions.direction(model, 4)
    y, moved = model.jvp(x, dx, v)
    dy = normal(7, *y.shape)
    model.zero_grad()
    model.forward(x)
    gradient = model.backward(dy)
    want = float((gradient * dx).sum()) + sum(float((model.grads[n] * v[n]).sum()) for n in v)
    assert float((dy * moved).sum()) == pytest.approx(want, rel=1e-10, abs=1e-12)


def test_all_layers_are_here():
    names = {type(layer).__name__ for layers in LAYERS.values() for layer in layers}
    missing = {*fn.layers.__all__, *preprocess.__all__} - names
    assert missing == {"Layer", "CustomLayer", "elementwise"}


@pytest.mark.parametrize("inputs", [3, 20])
def test_far_centres_cost_no_digits(backend, inputs):
    """In float32, of rows and centres that lie far from 0 and near to one another."""
    found, loss = [], fn.CrossEntropyLoss()
    offset = 1000.0
    x = (offset + normal(0, 40, inputs)).astype("float32").astype("float64")
    dx, labels = normal(1, 40, inputs), np.arange(40) % 3
    for dtype in ("float32", "float64"):
        layers = fn.RBF(inputs, 9), fn.Linear(10, 3)
        model = fn.Sequential(*layers, dtype=dtype, backend=backend, seed=0)
        with model.edit() as values:
            centers = offset + normal(2, 9, inputs)
            values["0.centers"][...] = centers.astype("float32")
            values["0.widths"][...] = np.float32(1.5) * inputs**0.5
            values["1.weight"][...] = normal(3, 3, 10).astype("float32")
            values["1.bias"][...] = 0
        v = directions.direction(model, 4)
        found.append((model.jvp(x, dx, v)[1], model.hvp(loss, x, labels, v)))
    (moved, product), (want, right) = found
    assert np.abs(moved - want).max() < 3e-6 * np.abs(want).max()
    close(product, right, 1e-5)


def test_angles_of_many_turns(backend):
    """Whole turns are taken off angles, and not off their tangents."""
    model = fn.Sequential(fn.Periodic(2, 3, 50.0), dtype="float64", backend=backend, seed=0)
    x, v = normal(0, 5, 2), directions.direction(model, 1, 20.0)
    dx = 30 * normal(1, 5, 2)

    def output(t: float) -> Any:
        return directions.at(model, v, t, lambda: model.forward(x + t * dx))

    close(model.jvp(x, dx, v)[1], directions.slope(output, 1e-6), 1e-7)
