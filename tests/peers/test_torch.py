"""Layers, losses, running statistics, optimizers and state dicts against PyTorch, in float64."""

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
TOL = 1e-10


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def close(got, want, what=""):
    """To 1e-10 of each number and of the largest one."""
    want = np.asarray(want)
    np.testing.assert_allclose(
        got, want, rtol=TOL, atol=TOL * max(1, np.abs(want).max()), err_msg=what
    )


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def pair(mine, theirs, backend):
    """A model of fastnet layers with the values of a torch.nn.Sequential."""
    theirs = nn.Sequential(*theirs).double()
    model = fn.Sequential(*mine, dtype="float64", backend=backend)
    model.load_state_dict(theirs.state_dict())
    return model, theirs


def check_pass(model, theirs, x, dy):
    """Forward and backward of one minibatch, gradients from zero."""
    tx = torch.tensor(x, requires_grad=True)
    theirs.zero_grad(set_to_none=True)
    ty = theirs(tx)
    ty.backward(torch.tensor(dy))
    model.zero_grad()
    close(model.forward(x), ty.detach(), "y")
    close(model.backward(dy), tx.grad, "dx")
    grads = {name: p.grad for name, p in theirs.named_parameters()}
    assert grads.keys() == model.grads.keys()
    for name, grad in grads.items():
        close(model.grads[name], grad, name)


LAYERS = {
    "linear": (lambda: fn.Linear(5, 3), lambda: nn.Linear(5, 3)),
    "no bias": (lambda: fn.Linear(5, 3, bias=False), lambda: nn.Linear(5, 3, bias=False)),
    "relu": (fn.ReLU, nn.ReLU),
    "leaky": (fn.LeakyReLU, nn.LeakyReLU),
    "leaky -0.7": (lambda: fn.LeakyReLU(-0.7), lambda: nn.LeakyReLU(-0.7)),
    "sigmoid": (fn.Sigmoid, nn.Sigmoid),
    "tanh": (fn.Tanh, nn.Tanh),
    "softmax": (fn.Softmax, lambda: nn.Softmax(dim=-1)),
    "softmax 1": (lambda: fn.Softmax(dim=1), lambda: nn.Softmax(dim=1)),
    "log softmax": (fn.LogSoftmax, lambda: nn.LogSoftmax(dim=-1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(backend, name):
    mine, theirs = LAYERS[name]
    model, theirs = pair([mine()], [theirs()], backend)
    x = normal(0, 7, 5) * 3
    x[0] = 0.0  # kinks
    x[1, :4] = -0.0, 40.0, -40.0, 1e3
    check_pass(model, theirs, x, normal(1, 7, model.output_shape((5,))[0]))


def test_noisy_relu(backend):
    """Written down in PyTorch with the same normal numbers, and differentiated there."""
    x, dy = normal(0, 9, 37) * 2, normal(1, 9, 37)
    model = fn.Sequential(fn.NoisyReLU(), dtype="float64", backend=backend, seed=5)
    stream = fn.random.stream_of(fn.random.NOISE, 0)
    z = fn.random.normal_of_tail(fn.random.tails(x.size, 5, stream, 0)).reshape(x.shape)
    tx = torch.tensor(x, requires_grad=True)
    ty = torch.relu(tx + torch.sqrt(torch.sigmoid(tx)) * torch.tensor(z))
    ty.backward(torch.tensor(dy))
    close(model.forward(x), ty.detach())
    close(model.backward(dy), tx.grad)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_where_nothing_is_drawn(backend, p):
    model, theirs = pair([fn.Dropout(p)], [nn.Dropout(p)], backend)
    check_pass(model, theirs, normal(0, 4, 5), normal(1, 4, 5))
    check_pass(model.eval(), theirs.eval(), normal(0, 4, 5), normal(1, 4, 5))


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.5}, {"momentum": 0.0}, {"momentum": 1.0}, {"affine": False}, {"eps": 0.3}],
    ids=repr,
)
def test_batchnorm(backend, options):
    """Several steps in training, whose statistics are then those of evaluation, and on again."""
    layers = [fn.Linear(5, 4), fn.BatchNorm1d(4, **options), fn.Tanh()]
    model, theirs = pair(
        layers, [nn.Linear(5, 4), nn.BatchNorm1d(4, **options), nn.Tanh()], backend
    )
    for training in (True, True, True, False, True):
        model.train(training)
        theirs.train(training)
        for seed, rows in [(1, 6), (2, 2), (3, 33)]:
            check_pass(model, theirs, normal(seed, rows, 5) + 2, normal(seed + 9, rows, 4))
            for name, value in theirs.state_dict().items():
                close(model.state_dict()[name], value, name)
    assert model.state_dict()["1.num_batches_tracked"] == 12


@pytest.mark.parametrize(
    ("mine", "theirs"), [(fn.CrossEntropyLoss, nn.CrossEntropyLoss), (fn.MSELoss, nn.MSELoss)]
)
def test_loss(backend, mine, theirs):
    labels = mine is fn.CrossEntropyLoss
    least = 2 if labels else 1  # one class has nothing to be learnt
    for rows, columns, scale in [(1, least, 1.0), (1, 3, 1.0), (9, 4, 1.0), (9, 4, 100.0)]:
        z = normal(0, rows, columns) * scale
        y = np.arange(rows) % columns if labels else normal(1, rows, columns)
        tz = torch.tensor(z, requires_grad=True)
        value = theirs()(tz, torch.tensor(y))
        value.backward()
        loss = mine()
        close(loss.forward(z, y), value.item())
        close(loss.backward(), tz.grad)
        model = fn.Sequential(fn.Linear(columns, columns), dtype="float64", backend=backend)
        with model.edit() as values:
            values["0.weight"][...] = np.eye(columns)
            values["0.bias"][...] = 0
        close(model.value_and_grad(loss, z, y), value.item())
        close(model.grads["0.bias"], tz.grad.sum(0))
        close(model.grads["0.weight"], tz.grad.T @ torch.tensor(z))


def test_the_defaults_are_pytorchs():
    """Those of every argument that both have."""
    for mine, theirs in [
        (fn.BatchNorm1d(3), nn.BatchNorm1d(3)),
        (fn.LeakyReLU(), nn.LeakyReLU()),
        (fn.Dropout(), nn.Dropout()),
    ]:
        for name in ("eps", "momentum", "affine", "negative_slope", "p"):
            assert getattr(mine, name, None) == getattr(theirs, name, None)


def deep(mod, BatchNorm1d, Dropout):
    return [
        mod.Linear(6, 8),
        BatchNorm1d(8),
        mod.ReLU(),
        Dropout(0.5),
        mod.Sequential(mod.Linear(8, 5, bias=False), mod.Tanh(), BatchNorm1d(5, affine=False)),
        mod.Linear(5, 3),
    ]


def both(backend):
    theirs = nn.Sequential(*deep(nn, nn.BatchNorm1d, nn.Dropout)).double()
    mine = fn.Sequential(*deep(fn, fn.BatchNorm1d, fn.Dropout), dtype="float64", backend=backend)
    return mine, theirs


def test_a_state_dict_of_pytorchs_loads(backend):
    mine, theirs = both(backend)
    theirs(torch.tensor(normal(0, 20, 6)))  # so that running statistics are not the first ones
    theirs.eval()
    mine.load_state_dict(theirs.state_dict())
    x = normal(1, 9, 6)
    want = theirs(torch.tensor(x)).detach()
    close(mine.predict(x), want)
    close(mine.eval().forward(x), want)


def test_a_state_dict_loads_into_pytorch(backend):
    mine, theirs = both(backend)
    mine.forward(normal(0, 20, 6))
    state = mine.state_dict()
    assert list(state) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert state[name].shape == tuple(value.shape), name
        assert torch.tensor(state[name]).dtype == value.dtype, name
    theirs.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    x = normal(1, 9, 6)
    close(mine.predict(x), theirs.eval()(torch.tensor(x)).detach())


def test_training_a_model_is_training_it_in_pytorch(backend):
    """Thirty minibatches, forward to update; without dropout, whose masks are each one's own."""
    mine = [fn.Linear(6, 8), fn.BatchNorm1d(8), fn.ReLU(), fn.Linear(8, 3)]
    theirs = [nn.Linear(6, 8, dtype=torch.float64), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)]
    model, theirs = pair(mine, theirs, backend)
    loss, optimizer = fn.CrossEntropyLoss(), fn.SGD(lr=0.1, momentum=0.9)
    peer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for step in range(30):
        x, y = normal(step, 12, 6), np.arange(12) % 3
        value = nn.CrossEntropyLoss()(theirs(torch.tensor(x)), torch.tensor(y))
        peer.zero_grad()
        value.backward()
        peer.step()
        close(model.value_and_grad(loss, x, y), value.item())
        optimizer.step(model)
    for name, value in theirs.state_dict().items():
        close(model.state_dict()[name], value, name)
