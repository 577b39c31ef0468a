"""Radial, gated, periodic and other layers against PyTorch's, or autograd of their formulas, in float64."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastnet as fn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:::torch")

nn = torch.nn
RNG = np.random.default_rng(3)


def close(got, want, what=""):
    want = np.asarray(want)
    atol = 1e-12 * max(1, np.abs(want).max(initial=0))
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=atol, err_msg=what)


def check(backend, layer, formula, x, given=None):
    """A layer's outputs and gradients, those of `formula(x, parameters)` by autograd."""
    model = fn.Sequential(layer, dtype="float64", backend=backend, seed=2)
    if given is not None:
        model.load_state_dict({f"0.{name}": value for name, value in given.items()})
    leaves = {
        name.partition(".")[2]: torch.tensor(np.array(value), requires_grad=True)
        for name, value in model.named_parameters().items()
    }
    tx = torch.tensor(x, requires_grad=True)
    ty = formula(tx, leaves)
    dy = RNG.normal(size=tuple(ty.shape))
    ty.backward(torch.tensor(dy))
    model.zero_grad()
    close(model.forward(x), ty.detach(), "y")
    close(model.backward(dy), tx.grad, "dx")
    for name, leaf in leaves.items():
        close(model.grads[f"0.{name}"], leaf.grad, name)


def bumps(x, p, *, constant):
    distances = ((x[:, None] - p["centers"]) ** 2).sum(dim=2)
    y = torch.exp(-distances / (2 * p["widths"] ** 2))
    return torch.cat([y, torch.ones(len(x), 1)], dim=1) if constant else y


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(("rows", "features", "n_centers"), [(9, 3, 5), (40, 70, 33), (600, 2, 3)])
def test_rbf(backend, constant, rows, features, n_centers):
    given = {
        "centers": RNG.normal(size=(n_centers, features)),
        "widths": RNG.uniform(0.5, 2, n_centers) * np.sqrt(features),
    }
    layer = fn.RBF(features, n_centers, constant)
    x = RNG.normal(size=(rows, features))
    check(backend, layer, lambda x, p: bumps(x, p, constant=constant), x, given)


@pytest.mark.parametrize("width", [2, 10, 66])
def test_glu(backend, width):
    x = RNG.normal(size=(9, width)) * 4
    check(backend, fn.GLU(), lambda x, p: nn.functional.glu(x, dim=-1), x)


@pytest.mark.parametrize("width", [2, 10, 66])
def test_swiglu(backend, width):
    """The gate first, as transformers' LlamaMLP computes silu(gate)·up."""

    def swiglu(x, p):
        gate, up = x.chunk(2, dim=-1)
        return nn.functional.silu(gate) * up

    check(backend, fn.SwiGLU(), swiglu, RNG.normal(size=(9, width)) * 4)


@pytest.mark.parametrize("rows", [1, 9, 700])
def test_embedding(backend, rows):
    x = RNG.normal(size=(rows, 5))
    x[:, 3] = RNG.integers(0, 7, rows)

    def embedded(x, p):
        found = nn.functional.embedding(x[:, 3].long(), p["weight"])
        return torch.cat([x[:, [0, 1, 2, 4]], found], dim=1)

    check(backend, fn.Embedding(7, 4, columns=3), embedded, x)


def test_an_embedding_takes_the_table_of_pytorch(backend):
    theirs = nn.Embedding(7, 4).double()
    model = fn.Sequential(fn.Embedding(7, 4), dtype="float64", backend=backend)
    state = {f"0.{name}": value.detach() for name, value in theirs.state_dict().items()}
    model.load_state_dict(state)
    codes = np.arange(7)
    close(model.predict(codes[:, None]), theirs(torch.tensor(codes)).detach())


@pytest.mark.parametrize("rows", [1, 9, 600])
def test_periodic(backend, rows):
    """As rtdl_num_embeddings writes it, flattened; and RealMLP's phases."""

    def angles(x, p):
        return 2 * torch.pi * p["weight"] * x[..., None]

    def pairs(x, p):
        z = angles(x, p)
        return torch.cat([torch.cos(z), torch.sin(z)], -1).flatten(1)

    def phased(x, p):
        return torch.cos(angles(x, p).flatten(1) + p["bias"])

    x = RNG.normal(size=(rows, 3))
    check(backend, fn.Periodic(3, 17), pairs, x)
    check(backend, fn.Periodic(3, 4, 0.5, phases=True), phased, x)


BINS = [[-1.5, -0.2, 0.4, 1.1], [-2.0, 2.5], [-0.5, 0.5, 2.0]]


def places(x, bins):
    """As rtdl_num_embeddings computes them, but for the bounds beyond the edges."""
    parts = []
    for column, edges in zip(x.T, bins, strict=True):
        for t in range(len(edges) - 1):
            low, high = (-1 if t == 0 else 0), (2 if t == len(edges) - 2 else 1)
            place = (column - edges[t]) / (edges[t + 1] - edges[t])
            parts.append(torch.clamp(place, low, high))
    return torch.stack(parts, dim=1)


@pytest.mark.parametrize("rows", [1, 9, 600])
def test_piecewise_linear(backend, rows):
    def embedded(x, p):
        y, found, begin = places(x, BINS), [], 0
        for edges in BINS:
            end = begin + len(edges) - 1
            found.append(y[:, begin:end] @ p["weight"][begin:end])
            begin = end
        return torch.cat(found, dim=1) + p["bias"]

    x = RNG.normal(size=(rows, 3)) * 2
    check(backend, fn.PiecewiseLinear(BINS), lambda x, p: places(x, BINS), x)
    check(backend, fn.PiecewiseLinear(BINS, 17), embedded, x)
