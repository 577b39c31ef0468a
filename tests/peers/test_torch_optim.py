"""Optimizers against torch.optim: float64, 1,000 steps of prescribed gradients, their options swept."""

from __future__ import annotations

import warnings
from functools import cache
from itertools import product

import numpy as np
import pytest
from prescribed import draw, set_gradients

import fastnet as fn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:::torch")


@pytest.fixture(autouse=True)
def float64():
    """By default, so that NAdam's product of momenta is one too; on one thread."""
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


STEPS, SEEN = 1000, (1, 2, 3, 4, 5, 6, 7, 10, 30, 100, 300, 1000)  # RAdam changes its step within
TOL = 1e-10


def sweep(**options):
    """Every combination of the options' values."""
    return [dict(zip(options, values, strict=True)) for values in product(*options.values())]


DECAY, BETAS = [0.0, 0.2], [(0.9, 0.999), (0.5, 0.9), (0.0, 0.99), (0.99, 0.5)]
OPTIONS = {
    "SGD": [
        {},
        *sweep(lr=[0.1], momentum=[0.0, 0.9], dampening=[0.0, 0.5, 1.5], weight_decay=DECAY),
        *sweep(lr=[0.1], momentum=[0.5, 0.9], nesterov=[True], weight_decay=DECAY),
    ],
    "Adagrad": [
        {},
        *sweep(lr=[0.1], lr_decay=[0.0, 0.1], weight_decay=DECAY, eps=[1e-10, 0.1]),
        *sweep(lr=[0.1], initial_accumulator_value=[0.3, 2.0]),
    ],
    "Adadelta": [
        {},
        *sweep(lr=[0.3], rho=[0.9, 0.5], eps=[1e-6, 0.1], weight_decay=DECAY),
        *sweep(rho=[0.0, 1.0]),
    ],
    "RMSprop": [
        {},
        *sweep(alpha=[0.99, 0.5], weight_decay=DECAY, momentum=[0.0, 0.9], centered=[False, True]),
        *sweep(lr=[0.1], eps=[0.1], momentum=[0.0, 0.9], centered=[False, True]),
    ],
    "Adam": [
        {},
        *sweep(lr=[0.1], betas=BETAS, weight_decay=DECAY, amsgrad=[False, True]),
        *sweep(lr=[0.1], eps=[0.1], amsgrad=[False, True]),
        *sweep(lr=[0.1], weight_decay=[0.2], decoupled_weight_decay=[True]),
    ],
    "AdamW": [{}, *sweep(lr=[0.1], weight_decay=DECAY, amsgrad=[False, True])],
    "Adamax": [{}, *sweep(lr=[0.1], betas=BETAS, eps=[1e-8, 0.1], weight_decay=DECAY)],
    "NAdam": [
        {},
        *sweep(lr=[0.1], betas=BETAS, momentum_decay=[4e-3, 0.0, 0.5]),
        *sweep(betas=[(0.999, 0.99)], weight_decay=DECAY, decoupled_weight_decay=[False, True]),
        {"lr": 0.1, "eps": 0.1},
    ],
    "RAdam": [
        {},
        *sweep(lr=[0.1], betas=[*BETAS, (0.9, 0.6), (0.9, 0.7)], eps=[1e-8, 0.1]),
        *sweep(lr=[0.1], weight_decay=DECAY, decoupled_weight_decay=[False, True]),
    ],
    "Rprop": [
        {},
        *sweep(
            lr=[0.1, 1e-9], etas=[(0.5, 1.2), (0.1, 3.0)], step_sizes=[(1e-6, 50.0), (0.05, 0.2)]
        ),
    ],
}
CASES = [(name, number) for name, options in OPTIONS.items() for number in range(len(options))]


def net(backend, dtype="float64"):
    return fn.Sequential(fn.Linear(3, 4), dtype=dtype, backend=backend, seed=3)


@cache
def gradients(zeros):
    return draw(net("reference"), STEPS, zeros=zeros)


def gradients_for(options):
    return gradients(not options.get("weight_decay"))


@cache
def theirs(name, number):
    """PyTorch's parameters after the steps SEEN."""
    model = net("reference")
    parameters = {n: torch.tensor(p.copy()) for n, p in model.named_parameters().items()}
    optimizer = getattr(torch.optim, name)(list(parameters.values()), **OPTIONS[name][number])
    found = []
    for step, given in enumerate(gradients_for(OPTIONS[name][number]), 1):
        for n, p in parameters.items():
            p.grad = torch.tensor(given[n])
        optimizer.step()
        if step in SEEN:
            found.append({n: p.numpy().copy() for n, p in parameters.items()})
    return found


@pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{n}-{OPTIONS[n][i]}" for n, i in CASES])
def test_a_thousand_steps(backend, name, number):
    model, optimizer = net(backend), getattr(fn, name)(**OPTIONS[name][number])
    expected = iter(theirs(name, number))
    for step, given in enumerate(gradients_for(OPTIONS[name][number]), 1):
        set_gradients(model, given)
        optimizer.step(model)
        if step in SEEN:
            for n, want in next(expected).items():
                got = model.named_parameters()[n]
                np.testing.assert_allclose(got, want, rtol=TOL, atol=1e-14, err_msg=f"{step}: {n}")


# (from which step, of which groups, momentum)
SWITCHES = [
    [(0, [0, 1], 0.0), (5, [0, 1], 0.9)],
    [(0, [0], 0.9), (0, [1], 0.0), (5, [1], 0.8), (9, [0, 1], 0.9)],
    [(0, [0, 1], 0.9), (5, [0], 0.0), (9, [0], 0.9)],
]


@pytest.mark.parametrize("dampening", [0.0, 0.5])
@pytest.mark.parametrize("switches", SWITCHES)
def test_momentum_that_is_switched_on_between_steps(backend, switches, dampening):
    model, names = net(backend), ["0.weight", "0.bias"]
    groups = [{"params": name, "momentum": 0.0} for name in names]
    ours = fn.SGD(0.1, dampening=dampening, groups=groups)
    peers = [torch.tensor(model.named_parameters()[n].copy()) for n in names]
    theirs = torch.optim.SGD([{"params": [p]} for p in peers], lr=0.1, dampening=dampening)
    for step, given in enumerate(gradients(True)[:20]):
        for begin, numbers, momentum in switches:
            for group in numbers if begin == step else []:
                theirs.param_groups[group]["momentum"] = momentum
                ours.groups[group]["momentum"] = momentum
                model.optimizer_state(ours)  # made before all have changed
        set_gradients(model, given)
        ours.step(model)
        for name, p in zip(names, peers, strict=True):
            p.grad = torch.tensor(given[name])
        theirs.step()
        for name, p in zip(names, peers, strict=True):
            got = model.named_parameters()[name]
            np.testing.assert_allclose(got, p.numpy(), rtol=TOL, err_msg=f"{step}: {name}")


@pytest.mark.parametrize("name", OPTIONS)
def test_a_hundred_steps_in_float32(backend, name):
    """To 1e-5 of PyTorch's in float64, whose w is of the order of 1."""
    model, optimizer = net(backend, "float32"), getattr(fn, name)()
    steps = [{n: g.astype("f") for n, g in given.items()} for given in gradients(True)[:100]]
    with torch.no_grad():
        peers = {n: torch.tensor(p.astype("d")) for n, p in model.named_parameters().items()}
    peer = getattr(torch.optim, name)(list(peers.values()))
    for given in steps:
        set_gradients(model, given)
        optimizer.step(model)
        for n, p in peers.items():
            p.grad = torch.tensor(given[n].astype("d"))
        peer.step()
    for n, p in peers.items():
        want = p.numpy()
        np.testing.assert_allclose(
            model.named_parameters()[n], want, rtol=0, atol=1e-5 * np.abs(want).max(), err_msg=n
        )


@pytest.mark.parametrize("name", OPTIONS)
def test_the_defaults_are_pytorchs(name):
    """Those of every argument that both have."""
    want, got = getattr(torch.optim, name)([torch.zeros(1)]).defaults, getattr(fn, name)()
    shared = [n for n in vars(got) if n in want]
    assert len(shared) >= (3 if name == "Rprop" else 4)
    assert {n: getattr(got, n) for n in shared} == {n: want[n] for n in shared}


@pytest.mark.parametrize("name", OPTIONS)
def test_groups(backend, name):
    """The same as two groups of PyTorch's with their own numbers."""
    model = fn.Sequential(
        fn.Linear(3, 4), fn.Linear(4, 2), dtype="float64", backend=backend, seed=3
    )
    peers = {n: torch.tensor(p.copy()) for n, p in model.named_parameters().items()}
    own = {"lr": 0.02, "weight_decay": 0.1}
    if name == "Rprop":  # PyTorch's has no decay
        own = {"lr": 0.02, "etas": (0.3, 1.5), "step_sizes": (0.01, 0.1)}
    members = ["0.bias", "1.weight"]
    peer = getattr(torch.optim, name)(
        [
            {"params": [p for n, p in peers.items() if n not in members]},
            {"params": [peers[n] for n in members], **own},
        ],
        lr=0.05,
    )
    optimizer = getattr(fn, name)(lr=0.05, groups=[{"params": members, **own}])
    for given in draw(model, 50, zeros=False):
        set_gradients(model, given)
        optimizer.step(model)
        for n, p in peers.items():
            p.grad = torch.tensor(given[n])
        peer.step()
    for n, p in peers.items():
        np.testing.assert_allclose(model.named_parameters()[n], p.numpy(), rtol=TOL, err_msg=n)


def deep(backend, dtype="float64"):
    layers = fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Tanh(), fn.Linear(4, 2)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [0.01, 1.0, 1e4])
@pytest.mark.parametrize("what", ["norm", "value"])
def test_clipping(backend, what, scale, dtype):
    model = deep(backend, dtype)
    (given,) = draw(model, 1, zeros=False)
    given = {n: (g * scale).astype(dtype) for n, g in given.items()}
    parameters = []
    for g in given.values():
        parameters.append(torch.zeros(g.shape, dtype=getattr(torch, dtype)))
        parameters[-1].grad = torch.tensor(g)
    set_gradients(model, given)
    if what == "norm":
        total = torch.nn.utils.clip_grad_norm_(parameters, 2e4)
        got = fn.clip_grad_norm_(model, 2e4)
        assert got == pytest.approx(float(total), rel={"float32": 1e-6, "float64": 1e-14}[dtype])
    else:
        torch.nn.utils.clip_grad_value_(parameters, 0.5)
        fn.clip_grad_value_(model, 0.5)
    tol = {"float32": 1e-6, "float64": 1e-14}[dtype]
    for p, got in zip(parameters, model.grads.values(), strict=True):
        np.testing.assert_allclose(got, p.grad.numpy(), rtol=tol)


def twin_of(model):
    """The same net in PyTorch."""
    nn = torch.nn
    made = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    made.load_state_dict({n: torch.tensor(np.array(v)) for n, v in model.state_dict().items()})
    return made


@pytest.mark.parametrize("averaging", [fn.EMA(0.8), fn.SWA(2)], ids=repr)
def test_averages_of_parameters(backend, averaging):
    """torch.optim.swa_utils: AveragedModel, and update_bn after SWA."""
    swa_utils = torch.optim.swa_utils
    random = np.random.default_rng(0)
    x, y = random.normal(size=(24, 3)), random.normal(size=(24, 2))
    model = deep(backend)
    twin = twin_of(model)
    ema = isinstance(averaging, fn.EMA)
    averaged = swa_utils.AveragedModel(
        twin, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.8) if ema else None
    )
    trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(0.1, 0.9), seed=1, averaging=averaging)
    peer = torch.optim.SGD(twin.parameters(), 0.1, 0.9)
    for epoch in range(4):
        trainer.fit(x, y, 1, 8, verbose=0)
        for xb, yb in fn.batches(x, y, batch_size=8, seed=1, epoch=epoch):
            peer.zero_grad()
            torch.nn.MSELoss()(twin(torch.tensor(xb)), torch.tensor(yb)).backward()
            peer.step()
            if ema:
                averaged.update_parameters(twin)
        if not ema and epoch >= 1:
            averaged.update_parameters(twin)
    if ema:
        made = trainer.averaged_model()
    else:
        made = trainer.averaged_model(x, 8)
        swa_utils.update_bn([torch.tensor(x[i : i + 8]) for i in (0, 8, 16)], averaged)
    for name, want in averaged.module.state_dict().items():
        np.testing.assert_allclose(made.state_dict()[name], want.numpy(), rtol=TOL, err_msg=name)
