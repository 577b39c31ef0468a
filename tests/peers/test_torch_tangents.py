"""Products with Jacobians, Hessians and Gauss–Newton matrices against PyTorch's, in float64."""

from __future__ import annotations

import warnings
from typing import Any

import directions
import numpy as np
import pytest
import random_graphs
from directions import close

import fastnet as fn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

from loss_kinks import CLASSES, ELEMENTS, GAUSSIANS  # noqa: E402
from test_torch import LAYERS  # noqa: E402
from test_torch_activations import MEETING, PAIRS, SMOOTH  # noqa: E402
from test_torch_losses import CASES, IDS, K, V, N  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:::torch")

nn = torch.nn
TOL = 1e-10


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def tensors(arrays: Any) -> Any:
    return {n: torch.tensor(np.asarray(a)) for n, a in arrays.items()}


def slopes(value: Any, of: Any, seed: Any = None) -> Any:
    """The gradient of a value, which can be differentiated again; 0 where it does not depend on these."""
    if not value.requires_grad:
        return [torch.zeros_like(a) for a in of]
    return torch.autograd.grad(
        value, of, seed, create_graph=True, allow_unused=True, materialize_grads=True
    )


class Twin:
    """PyTorch's products for a module and a loss, by its double backward."""

    def __init__(self, module: Any, loss: Any, x: Any, y: Any) -> None:
        self.module, self.x = module, torch.tensor(x, requires_grad=True)
        self.named = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.free = list(self.named.values())
        before = {n: b.clone() for n, b in module.named_buffers()}
        self.output = module(self.x)
        for name, buffer in module.named_buffers():  # batchnorm has moved its statistics
            buffer.data = before[name]
        self.loss = None if loss is None else loss(self.output, torch.tensor(y))

    def along(self, v: Any) -> Any:
        return [torch.tensor(v[n]) for n in self.named]

    def moved(self, of: Any, v: Any) -> Any:
        """J·v: the derivative of the gradient for dL/dy = u, which is linear in u, by u."""
        u = torch.zeros_like(self.output, requires_grad=True)
        (found,) = slopes(dot(slopes(self.output, of, u), v), [u])
        return found

    def jvp(self, dx: Any, v: Any) -> Any:
        moved = self.moved([*self.free, self.x], [*self.along(v), torch.tensor(dx)])
        return self.output.detach().numpy(), moved.detach().numpy()

    def hvp(self, v: Any) -> Any:
        found = slopes(dot(slopes(self.loss, self.free), self.along(v)), self.free)
        return {n: a.detach().numpy() for n, a in zip(self.named, found, strict=True)}

    def gnvp(self, v: Any) -> Any:
        moved = self.moved(self.free, self.along(v)).detach()
        (curved,) = slopes(dot(slopes(self.loss, [self.output]), [moved]), [self.output])
        found = slopes(self.output, self.free, curved.detach())
        return {n: a.detach().numpy() for n, a in zip(self.named, found, strict=True)}


def dot(a: Any, b: Any) -> Any:
    return sum((x * y).sum() for x, y in zip(a, b, strict=True))


def check(model: Any, module: Any, loss: Any, theirs: Any, x: Any, y: Any, what: Any = "") -> None:
    twin = Twin(module, theirs, x, y)
    v = directions.direction(model, 1)
    dx = normal(2, *x.shape)
    got, want = model.jvp(x, dx, v), twin.jvp(dx, v)
    for a, b in zip(got, want, strict=True):
        close(a, b, TOL, what)
    close(model.hvp(loss, x, y, v), twin.hvp(v), TOL, what)
    close(model.gnvp(loss, x, y, v), twin.gnvp(v), TOL, what)


@pytest.mark.parametrize(("mine", "theirs"), PAIRS, ids=[repr(mine) for mine, _ in PAIRS])
def test_activations(backend, mine, theirs):
    """Between linear layers; and the second derivative of each point by itself, at kinks too."""
    kind = type(mine)
    layers = [fn.Linear(4, 6), kind(**mine._config), fn.Linear(6, 3)]
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=0)
    module = nn.Sequential(nn.Linear(4, 6), theirs, nn.Linear(6, 3)).double()
    module.load_state_dict(tensors(model.state_dict()))
    check(model, module, fn.MSELoss(), nn.MSELoss(), normal(0, 9, 4), normal(3, 9, 3))


@pytest.mark.parametrize(("mine", "theirs"), PAIRS, ids=[repr(mine) for mine, _ in PAIRS])
def test_curvatures_of_activations(backend, mine, theirs):
    """f″ at single points, where functions in pieces meet too: f(w·x) with w = 1, whose loss is Σ c·f."""
    points = np.concatenate([MEETING, SMOOTH[np.abs(SMOOTH) < 100]])
    count = len(points)
    layers = [fn.Scale(count), type(mine)(**mine._config), fn.Scale(count)]
    model = fn.Sequential(*layers, dtype="float64", backend=backend)
    w = torch.tensor(points, requires_grad=True)
    (slope,) = torch.autograd.grad(theirs(w).sum(), w, create_graph=True)
    curved = torch.zeros(count, dtype=torch.float64)
    if slope.requires_grad:
        (curved,) = torch.autograd.grad(slope.sum(), w)
    with model.edit() as values:
        values["0.weight"][...] = points
    ones = {"0.weight": np.ones(count), "2.weight": np.zeros(count)}
    # L = Σ f − Σ t + …: a loss that is linear, so that f alone is curved.
    got = model.hvp(fn.KLDivLoss("sum"), np.ones((1, count)), np.ones((1, count)), ones)
    rtol = 1e-7 if isinstance(mine, fn.Hardsigmoid) else 1e-9
    np.testing.assert_allclose(got["0.weight"], -curved.numpy(), rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(backend, name):
    mine, theirs = LAYERS[name]
    model = fn.Sequential(fn.Linear(5, 5), mine(), dtype="float64", backend=backend, seed=0)
    module = nn.Sequential(nn.Linear(5, 5), theirs()).double()
    module.load_state_dict(tensors(model.state_dict()))
    width = model.output_shape((5,))[0]
    if isinstance(model[1], fn.LogSoftmax):  # the Gauss–Newton matrix is that of its inputs
        return
    check(model, module, fn.HuberLoss(), nn.HuberLoss(), normal(0, 7, 5), normal(1, 7, width))


@pytest.mark.parametrize(("mine", "theirs", "options", "output", "target"), CASES, ids=IDS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean"])
def test_losses(backend, reduction, mine, theirs, options, output, target):
    """Of outputs that parameters scale by 1, column by column: at kinks and bounds too."""
    if reduction not in mine.reductions:
        pytest.skip("no such reduction")
    given = {k: torch.tensor(a) if hasattr(a, "dtype") else a for k, a in options.items()}
    peer = theirs(**given, reduction=reduction)
    loss = mine(**options, reduction=reduction)
    model = fn.Sequential(fn.Scale(K), dtype="float64", backend=backend)
    v = {"0.weight": normal(5, K)}
    z, t = torch.tensor(output), torch.tensor(target)

    def slope(w: Any) -> Any:
        (found,) = torch.autograd.grad(peer(z * w, t), w, create_graph=True)
        return found

    w = torch.ones(K, dtype=torch.float64, requires_grad=True)
    found = slope(w)
    want = torch.zeros(K, dtype=torch.float64)
    if found.requires_grad:
        (want,) = torch.autograd.grad((found * torch.tensor(v["0.weight"])).sum(), w)
    for product in (model.hvp, model.gnvp):
        got = product(loss, output, target, v)
        close(got["0.weight"], want.numpy(), TOL, product.__name__)
