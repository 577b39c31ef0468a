"""Schedule-Free SGD and AdamW against the package schedulefree: float64, prescribed gradients and fits."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
from prescribed import draw, set_gradients

import fastnet as fn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    schedulefree = pytest.importorskip("schedulefree")

pytestmark = pytest.mark.filterwarnings("ignore:::torch")
STEPS = 250
KINDS = {
    "SGD": (fn.ScheduleFreeSGD, schedulefree.SGDScheduleFree),
    "AdamW": (fn.ScheduleFreeAdamW, schedulefree.AdamWScheduleFree),
}


def sweep(**options):
    """Every combination of the options' values."""
    return [dict(zip(options, values, strict=True)) for values in product(*options.values())]


COMMON = [
    {},
    *sweep(lr=[0.05], weight_decay=[0.0, 0.2], warmup_steps=[0, 30], r=[0.0, 1.0]),
    *sweep(lr=[0.05], warmup_steps=[10], r=[0.3], weight_lr_power=[0.0, 1.0, 1.7]),
]
OPTIONS = {
    "SGD": [*COMMON, *sweep(lr=[0.1], momentum=[0.5, 0.98], weight_decay=[0.1])],
    "AdamW": [
        *COMMON,
        *sweep(lr=[0.1], betas=[(0.5, 0.9), (0.98, 0.999)], eps=[1e-8, 0.1], weight_decay=[0.1]),
    ],
}
CASES = [(kind, number) for kind, options in OPTIONS.items() for number in range(len(options))]


def net(backend):
    return fn.Sequential(fn.Linear(3, 4), dtype="float64", backend=backend, seed=3)


@pytest.fixture(scope="module")
def gradients():
    drawn = draw(net("reference"), STEPS)
    return [{name: np.clip(g, -10, 10) for name, g in given.items()} for given in drawn]


def agree(model, peers, message):
    for name, p in peers.items():
        got, want = model.named_parameters()[name], p.detach().numpy()
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-13, err_msg=f"{message}: {name}")


@pytest.mark.parametrize(
    ("kind", "number"), CASES, ids=[f"{kind}-{OPTIONS[kind][i]}" for kind, i in CASES]
)
def test_steps_and_both_points(backend, gradients, kind, number):
    ours, theirs = KINDS[kind]
    model, optimizer = net(backend), ours(**OPTIONS[kind][number])
    peers = {n: torch.tensor(p.copy()) for n, p in model.named_parameters().items()}
    peer = theirs(list(peers.values()), **OPTIONS[kind][number])
    peer.train()
    for step, given in enumerate(gradients, 1):
        set_gradients(model, given)
        optimizer.step(model)
        for name, p in peers.items():
            p.grad = torch.tensor(given[name])
        peer.step()
        if step in (1, 2, 3, 10, 100, STEPS):
            agree(model, peers, f"y at {step}")
            optimizer.eval(model), peer.eval()
            agree(model, peers, f"x at {step}")
            optimizer.train(model), peer.train()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("SGD", {"lr": 0.3, "warmup_steps": 20, "weight_decay": 1e-2}),
        ("AdamW", {"lr": 0.01, "warmup_steps": 20, "weight_decay": 0.1}),
    ],
)
def test_losses_of_a_fit(backend, kind, options):
    """25 epochs of 10 steps: the losses at y, and after each epoch those at x."""
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 5))
    y = np.sin(x[:, :2])
    layers = fn.Linear(5, 8), fn.Tanh(), fn.Linear(8, 2)
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=1)
    peer = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    peer.double().load_state_dict({n: torch.tensor(v) for n, v in model.state_dict().items()})
    ours, theirs = KINDS[kind]
    optimizer = theirs(peer.parameters(), **options)
    trainer = fn.Trainer(model, fn.MSELoss(), ours(**options), seed=7)
    history = trainer.fit(x, y, 25, 4, (x, y), verbose=0)
    loss, inputs, targets = torch.nn.MSELoss(), torch.tensor(x), torch.tensor(y)
    for epoch in range(25):
        optimizer.train()
        losses = []
        for xb, yb in fn.batches(x, y, batch_size=4, seed=7, epoch=epoch):
            optimizer.zero_grad()
            found = loss(peer(torch.tensor(xb)), torch.tensor(yb))
            found.backward()
            optimizer.step()
            losses.append(found.item())
        optimizer.eval()
        record = history.records[epoch]
        assert record["loss"] == pytest.approx(np.mean(losses), rel=1e-10)
        assert record["val_loss"] == pytest.approx(loss(peer(inputs), targets).item(), rel=1e-10)
    assert history.records[-1]["val_loss"] < 0.5 * history.records[0]["val_loss"]
    agree(model, dict(peer.named_parameters()), "x at the end")
