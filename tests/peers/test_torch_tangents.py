"""Products with Jacobians, Hessians and Gauss–Newton matrices against PyTorch's, in float64."""

from __future__ import annotations

import itertools
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

from test_torch import LAYERS
from test_torch_activations import MEETING, PAIRS, SMOOTH
from test_torch_losses import CASES, IDS, K, N

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


class Func:
    """The same by torch.func: forward mode, forward over reverse, and a vjp of what a jvp gives."""

    def __init__(self, module: Any, x: Any, y: Any) -> None:
        torch.func.replace_all_batch_norm_modules_(module)  # which would move statistics
        self.module, self.x, self.y = module, torch.tensor(x), torch.tensor(y)
        every = {n: p.detach() for n, p in module.named_parameters()}
        self.free = {n: every[n] for n, p in module.named_parameters() if p.requires_grad}
        self.fixed = {n: a for n, a in every.items() if n not in self.free}

    def output(self, free: Any, x: Any) -> Any:
        return torch.func.functional_call(self.module, {**free, **self.fixed}, x)

    def loss(self, output: Any) -> Any:
        return ((output - self.y) ** 2).mean()  # mse_loss has no forward over reverse

    def jvp(self, dx: Any, v: Any) -> Any:
        primals, tangents = (self.free, self.x), (tensors(v), torch.tensor(dx))
        return [a.numpy() for a in torch.func.jvp(self.output, primals, tangents)]

    def hvp(self, v: Any) -> Any:
        gradient = torch.func.grad(lambda free: self.loss(self.output(free, self.x)))
        return arrays(torch.func.jvp(gradient, (self.free,), (tensors(v),))[1])

    def gnvp(self, v: Any) -> Any:
        def output(free: Any) -> Any:
            return self.output(free, self.x)

        at, moved = torch.func.jvp(output, (self.free,), (tensors(v),))
        _, curved = torch.func.jvp(torch.func.grad(self.loss), (at,), (moved,))
        return arrays(torch.func.vjp(output, self.free)[1](curved)[0])


def arrays(found: Any) -> Any:
    return {n: a.numpy() for n, a in found.items()}


def dot(a: Any, b: Any) -> Any:
    return sum((x * y).sum() for x, y in zip(a, b, strict=True))


def check(model: Any, module: Any, loss: Any, theirs: Any, x: Any, y: Any, what: Any = "") -> None:
    compare(model, Twin(module, theirs, x, y), loss, x, y, what)


def compare(
    model: Any, twin: Any, loss: Any, x: Any, y: Any, what: Any = "", tol: float = TOL
) -> None:
    v = directions.direction(model, 1)
    dx = normal(2, *x.shape)
    got, want = model.jvp(x, dx, v), twin.jvp(dx, v)
    for a, b in zip(got, want, strict=True):
        close(a, b, tol, what)
    close(model.hvp(loss, x, y, v), twin.hvp(v), tol, what)
    close(model.gnvp(loss, x, y, v), twin.gnvp(v), tol, what)


def hardsigmoid(x: Any) -> Any:
    """PyTorch's own cannot be differentiated twice."""
    return nn.functional.hardtanh(x, -3.0, 3.0) / 6 + 0.5


def multi_margin(p: int, margin: float, weight: Any = None, reduction: str = "mean") -> Any:
    """As PyTorch documents its loss, which cannot be differentiated twice."""

    def loss(z: Any, t: Any) -> Any:
        of_label = z.gather(1, t[:, None])
        short = torch.relu(margin - of_label + z) ** p
        others = torch.ones_like(z).scatter(1, t[:, None], 0.0)
        rows = (others * short).sum(dim=1) / z.shape[1]
        rows = rows if weight is None else rows * weight[t]
        return rows.mean() if reduction == "mean" else rows.sum()

    return loss


def of_activation(theirs: Any) -> Any:
    return Function(hardsigmoid) if isinstance(theirs, nn.Hardsigmoid) else theirs


class Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


activations = pytest.mark.parametrize(
    ("mine", "theirs"), PAIRS, ids=[repr(mine) for mine, _ in PAIRS]
)


@activations
def test_activations(backend, mine, theirs):
    layers = [fn.Linear(4, 6), type(mine)(**mine._config), fn.Linear(6, 3)]
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=0)
    module = nn.Sequential(nn.Linear(4, 6), of_activation(theirs), nn.Linear(6, 3)).double()
    module.load_state_dict(tensors(model.state_dict()))
    check(model, module, fn.MSELoss(), nn.MSELoss(), normal(0, 9, 4), normal(3, 9, 3))


@activations
def test_curvatures_of_single_points(backend, mine, theirs):
    """f″ at numbers of all sizes, and where functions in pieces meet."""
    points = np.concatenate([MEETING, SMOOTH[np.abs(SMOOTH) < 100]])
    count = len(points)
    layers = fn.Scale(count), type(mine)(**mine._config)
    model = fn.Sequential(*layers, dtype="float64", backend=backend)
    with model.edit() as values:
        values["0.weight"][...] = points
    w = torch.tensor(points, requires_grad=True)
    (slope,) = slopes(of_activation(theirs)(w).sum(), [w])
    (curved,) = slopes(slope.sum(), [w])
    one = np.ones((1, count))
    # The loss Σ t·(ln t − y) with t = 1 is linear in y, so that f alone is curved.
    got = model.hvp(fn.KLDivLoss("sum"), one, one, {"0.weight": one[0]})
    np.testing.assert_allclose(got["0.weight"], -curved.detach(), rtol=1e-9, atol=1e-12)
    along = model.jvp(one, None, {"0.weight": one[0]})[1][0]
    np.testing.assert_allclose(along, slope.detach(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("count", [1, 6])
def test_prelu(backend, count):
    layers = fn.Linear(4, 6), fn.PReLU(count), fn.Linear(6, 3)
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=0)
    module = nn.Sequential(nn.Linear(4, 6), nn.PReLU(count), nn.Linear(6, 3)).double()
    module.load_state_dict(tensors(model.state_dict()))
    check(model, module, fn.MSELoss(), nn.MSELoss(), normal(0, 9, 4), normal(3, 9, 3))


@pytest.mark.parametrize("name", [n for n in LAYERS if n != "log softmax"])
def test_layers(backend, name):
    mine, theirs = LAYERS[name]
    layers = fn.Linear(5, 5), mine(), fn.Tanh()
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=0)
    module = nn.Sequential(nn.Linear(5, 5), theirs(), nn.Tanh()).double()
    module.load_state_dict(tensors(model.state_dict()))
    width = model.output_shape((5,))[0]
    check(model, module, fn.MSELoss(), nn.MSELoss(), normal(0, 7, 5), normal(1, 7, width))


OF_NORMS = [
    *(
        (lambda o=o: fn.BatchNorm1d(6, **o), lambda o=o: nn.BatchNorm1d(6, **o))
        for o in (
            *({}, {"affine": False}, {"track_running_stats": False}),
            *({"momentum": None}, {"eps": 0.3}),
        )
    ),
    *(
        (lambda o=o: fn.LayerNorm(6, **o), lambda o=o: nn.LayerNorm(6, **o))
        for o in ({}, {"elementwise_affine": False}, {"bias": False})
    ),
    *(
        (lambda o=o: fn.RMSNorm(6, **o), lambda o=o: nn.RMSNorm(6, **o))
        for o in ({}, {"elementwise_affine": False}, {"eps": 0.1})
    ),
]


@pytest.mark.parametrize("number", range(len(OF_NORMS)))
@pytest.mark.parametrize("training", [True, False])
def test_normalisations(backend, number, training):
    mine, theirs = OF_NORMS[number]
    layers = fn.Linear(4, 6), mine(), fn.Tanh(), fn.Linear(6, 3)
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=0)
    module = nn.Sequential(nn.Linear(4, 6), theirs(), nn.Tanh(), nn.Linear(6, 3)).double()
    with model.edit() as values:
        for name in model.named_parameters():
            values[name][...] += 0.3 * normal(4, *values[name].shape)
    model.forward(normal(5, 30, 4))  # moves the statistics
    module.load_state_dict(tensors(model.state_dict()))
    model.train(training)
    module.train(training)
    labels = np.arange(9) % 3
    x = normal(0, 9, 4)
    check(model, module, fn.CrossEntropyLoss(), nn.CrossEntropyLoss(), x, labels)


@pytest.mark.parametrize(("mine", "theirs", "options", "output", "target"), CASES, ids=IDS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean"])
def test_losses(backend, reduction, mine, theirs, options, output, target):
    """Of outputs that parameters scale by 1, column by column: at kinks and bounds too."""
    if reduction not in mine.reductions:
        pytest.skip("no such reduction")
    if (
        mine is fn.BCELoss
    ):  # at the bounds PyTorch has other numbers, which its gradient does not have
        output = np.clip(output, 0.01, 0.99)
    given = {k: torch.tensor(a) if hasattr(a, "dtype") else a for k, a in options.items()}
    own = mine is fn.MultiMarginLoss
    peer = (multi_margin if own else theirs)(**given, reduction=reduction)
    model = fn.Sequential(fn.Scale(K), dtype="float64", backend=backend)
    check_loss(model, mine(**options, reduction=reduction), peer, output, target)


def check_loss(model: Any, loss: Any, peer: Any, output: Any, target: Any) -> None:
    v = {"0.weight": normal(5, *model.named_parameters()["0.weight"].shape)}
    z, t, along = (torch.tensor(a) for a in (output, target, v["0.weight"]))
    w = torch.ones_like(along, requires_grad=True)
    (slope,) = slopes(peer(z * w, t), [w])
    (want,) = slopes((slope * along).sum(), [w])
    tol = 1e-9 if isinstance(loss, fn.BCELoss) else TOL  # PyTorch adds 1e-12 to denominators
    for product in (model.hvp, model.gnvp):
        got = product(loss, output, target, v)
        close(got["0.weight"], want.detach().numpy(), tol, product.__name__)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gaussians(backend, full, reduction):
    """Means and variances, some of which are below eps."""
    variances = np.abs(normal(1, N, 3)) + 0.1
    variances[0] = 0.01, 0.05, 0.049
    output, target = np.concatenate([normal(0, N, 3), variances], axis=1), normal(2, N, 3)
    options = {"full": full, "eps": 0.05, "reduction": reduction}
    theirs = nn.GaussianNLLLoss(**options)
    model = fn.Sequential(fn.Scale(6), dtype="float64", backend=backend)

    def peer(y: Any, t: Any) -> Any:
        return theirs(y[:, :3], t, y[:, 3:])

    check_loss(model, fn.GaussianNLLLoss(**options), peer, output, target)


GRAPHS, GROUPS, ROWS = 200, 25, 7  # 8 graphs a group
SLOW = [pytest.param(group, marks=pytest.mark.slow) for group in range(1, GROUPS)]


def drawn(group: int, backend: str) -> Any:
    """Pairs of models, with their rows and targets.

    Layers are shared and frozen; users' layers in NumPy have no second derivatives.
    """
    left = GRAPHS // GROUPS
    for seed in itertools.count(group, GROUPS):
        if not left:
            return
        tree = random_graphs.tree(seed)
        theirs = random_graphs.torch_of(tree, torch)
        model = random_graphs.fastnet_of(tree, dtype="float64", backend=backend, seed=seed)
        if "Squares" in str(tree):
            continue
        model.load_state_dict(theirs.state_dict())
        frozen = random_graphs.to_freeze(model, seed)
        if frozen:
            model.freeze(*frozen)
        for name, p in theirs.named_parameters():
            p.requires_grad_(name not in frozen)
        if any(p.requires_grad for p in theirs.parameters()):
            left -= 1
            x, y = random_graphs.inputs(tree, ROWS, seed), normal(seed + 1, ROWS, 2)
            yield seed, model, theirs, x, y


groups = pytest.mark.parametrize("group", [0, *SLOW])


@groups
def test_random_graphs(group):
    for seed, model, theirs, x, y in drawn(group, "reference"):
        # A batch's standard deviations may be small, and all is divided by them, forth and back.
        tol = 100 * TOL if "BatchNorm1d" in str(theirs) else TOL
        twin = Twin(theirs, nn.MSELoss(), x, y)
        compare(model, twin, fn.MSELoss(), x, y, seed, tol)


@groups
def test_random_graphs_by_torch_func(group):
    """On the fastest backend; and once more, by a short way."""
    for seed, model, theirs, x, y in drawn(group, "auto"):
        twin, loss = Func(theirs, x, y), fn.MSELoss()
        for _ in range(2):
            compare(model, twin, loss, x, y, seed)
