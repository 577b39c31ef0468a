"""Schedules against torch.optim.lr_scheduler, in float64 over 1,000 steps, its options swept."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastnet as fn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:::torch")

theirs = torch.optim.lr_scheduler
mine = fn.schedules
STEPS = 1000
T = np.arange(STEPS)
TOL = 1e-10  # relative; a rate that is 0 must be 0, save for what cos π leaves in PyTorch's


def parameters():
    return [torch.zeros(1, dtype=torch.float64)]


def run(make, optimizer, key="lr", steps=STEPS):
    """The rates of the first steps as PyTorch's optimizer has them."""
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        value = optimizer.param_groups[0][key]
        found.append(value[0] if key == "betas" else value)
        optimizer.step()
        scheduler.step()
    return np.array(found, np.float64)


def compare(schedule, make, lr, steps=STEPS):
    want = run(make, torch.optim.SGD(parameters(), lr=lr), steps=steps)
    np.testing.assert_allclose(schedule(T[:steps]), want, rtol=TOL, atol=1e-16 * lr)


def case(name, lr=0.1, **options):
    return pytest.param(name, lr, options, id=f"{name}-{lr}-{options}")


SIMPLE = [
    *(
        case("ConstantLR", factor=f, total_iters=n)
        for f in (0.01, 1 / 3, 1.0)
        for n in (1, 7, 2000)
    ),
    case("ConstantLR"),
    *(
        case("StepLR", step_size=n, gamma=g)
        for n in (1, 7, 300)
        for g in (0.0, 0.1, 0.9, 1.0, 1.02)
    ),
    case("StepLR", 3.0, step_size=30),
    *(
        case("MultiStepLR", milestones=m, gamma=g)
        for m in ([], [5], [30, 80], [0, 3, 3, 900, 5000])
        for g in (0.1, 0.5, 1.5)
    ),
    case("MultiStepLR", milestones=[30, 80]),
    *(
        case("ExponentialLR", lr, gamma=g)
        for lr in (0.1, 7.0)
        for g in (0.0, 0.9, 0.999, 1.0, 1.01)
    ),
    *(
        case("LinearLR", start_factor=a, end_factor=b, total_iters=n)
        for a in (1e-3, 1 / 3, 1.0)
        for b in (0.0, 0.5, 1.0)
        for n in (1, 5, 777, 3000)
    ),
    case("LinearLR"),
    *(
        case("PolynomialLR", total_iters=n, power=p)
        for n in (1, 5, 999, 3000)
        for p in (0.5, 1.0, 2, 0.9, 3.7)
    ),
    case("PolynomialLR"),
    *(
        case("CosineAnnealingLR", lr, T_max=n, eta_min=e)
        for lr in (0.1, 5.0)
        for n in (1, 2, 10, 333, 1000, 5000)
        for e in (0.0, 1e-3, 0.1, 1.0)
    ),
    *(
        case("CosineAnnealingWarmRestarts", T_0=n, T_mult=m, eta_min=e)
        for n in (1, 7, 100, 2000)
        for m in (1, 2, 3)
        for e in (0.0, 1e-3, 0.2)
    ),
    case("CosineAnnealingWarmRestarts", T_0=9),
]


@pytest.mark.parametrize(("name", "lr", "options"), SIMPLE)
def test_rates_are_pytorchs(name, lr, options):
    schedule = getattr(mine, name)(lr, **options)
    compare(schedule, lambda o: getattr(theirs, name)(o, **options), lr)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize(("up", "down"), [(1, None), (10, None), (7, 13), (300, 1), (2000, None)])
@pytest.mark.parametrize("gamma", [1.0, 0.999, 0.9])
def test_cyclic_rates_and_momenta_are_pytorchs(mode, up, down, gamma):
    options = {"mode": mode, "step_size_up": up, "step_size_down": down, "gamma": gamma}
    options |= {"base_momentum": 0.7, "max_momentum": 0.92}
    schedule = mine.CyclicLR(0.01, 0.3, **options)
    for key, found in (("lr", schedule), ("momentum", schedule.momentum)):
        optimizer = torch.optim.SGD(parameters(), lr=0.5, momentum=0.1)
        want = run(lambda o: theirs.CyclicLR(o, 0.01, 0.3, **options), optimizer, key)
        np.testing.assert_allclose(found(T), want, rtol=TOL, atol=0)


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("total", [3, 11, 999, 1000])
@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("pct_start", [0.3, 0.0, 0.123, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("factors", [(25.0, 1e4), (3, 1), (0.5, 7)])
def test_one_cycle_is_pytorchs(strategy, total, three_phase, pct_start, factors):
    if three_phase and pct_start > 0.5:
        with pytest.raises(fn.errors.HyperparameterError, match="pct_start"):
            mine.OneCycleLR(0.1, total, pct_start=pct_start, three_phase=True)
        return  # PyTorch's third phase would never begin
    options = {"anneal_strategy": strategy, "total_steps": total, "three_phase": three_phase}
    options |= {"pct_start": pct_start, "base_momentum": 0.7, "max_momentum": 0.92}
    options |= {"div_factor": factors[0], "final_div_factor": factors[1]}
    schedule = mine.OneCycleLR(0.4, **options)
    make = lambda o: theirs.OneCycleLR(o, 0.4, **options)  # noqa: E731
    for optimizer, key in [
        (torch.optim.SGD(parameters(), lr=0.5, momentum=0.1), "lr"),
        (torch.optim.SGD(parameters(), lr=0.5, momentum=0.1), "momentum"),
        (torch.optim.Adam(parameters(), lr=0.5), "betas"),
    ]:
        want = run(make, optimizer, key, steps=total - 1)
        found = schedule if key == "lr" else schedule.momentum
        np.testing.assert_allclose(found(T[: total - 1]), want, rtol=TOL, atol=0)
    last = schedule(np.arange(total - 1, total + 5))
    expected = schedule.levels()[-1] if pct_start < 1 else 0.4
    np.testing.assert_allclose(last, expected, rtol=1e-12)


def test_one_cycle_counted_in_epochs_is_pytorchs():
    options = {"epochs": 7, "steps_per_epoch": 30}
    schedule = mine.OneCycleLR(0.4, **options)
    compare(schedule, lambda o: theirs.OneCycleLR(o, 0.4, **options), 0.4, steps=209)
    assert schedule == mine.OneCycleLR(0.4, 210)


def test_sequences_are_pytorchs():
    schedule = mine.SequentialLR(
        [
            mine.LinearLR(0.1, 0.01, 1.0, 50),
            mine.ExponentialLR(0.1, 0.99),
            mine.CosineAnnealingLR(0.1, 200),
        ],
        [50, 300],
    )
    compare(
        schedule,
        lambda o: theirs.SequentialLR(
            o,
            [
                theirs.LinearLR(o, 0.01, 1.0, 50),
                theirs.ExponentialLR(o, 0.99),
                theirs.CosineAnnealingLR(o, 200),
            ],
            [50, 300],
        ),
        0.1,
    )


def test_warm_up_is_pytorchs_sequence():
    compare(
        mine.WarmupLR(mine.PolynomialLR(0.1, 1200, 2.0), 100, 0.2),
        lambda o: theirs.SequentialLR(
            o, [theirs.LinearLR(o, 0.2, 1.0, 100), theirs.PolynomialLR(o, 1200, 2.0)], [100]
        ),
        0.1,
    )


def test_products_are_pytorchs_chained_scheduler():
    schedule = mine.LinearLR(1.0, 0.1, 1.0, 20) * mine.ExponentialLR(0.1, 0.99)
    schedule = schedule * mine.MultiStepLR(1.0, [30, 500], 0.5)
    compare(
        schedule,
        lambda o: theirs.ChainedScheduler(
            [
                theirs.LinearLR(o, 0.1, 1.0, 20),
                theirs.ExponentialLR(o, 0.99),
                theirs.MultiStepLR(o, [30, 500], 0.5),
            ]
        ),
        0.1,
    )


def test_lambdas_are_pytorchs():
    function = lambda t: 0.95 ** (t // 3)  # noqa: E731
    compare(mine.LambdaLR(0.1, function), lambda o: theirs.LambdaLR(o, function), 0.1)


def test_epochs_are_steps_of_pytorch_once_an_epoch():
    optimizer = torch.optim.SGD(parameters(), lr=0.1)
    want = np.repeat(run(lambda o: theirs.StepLR(o, 30, 0.3), optimizer, steps=100), 10)
    np.testing.assert_allclose(mine.StepLR(0.1, 30, 0.3).per_epoch(10)(T), want, rtol=TOL)


# Through optimizers: a net would amplify differences, so the gradients are given.


def prescribed(backend, optimizer, peer, make, steps=STEPS):
    start = np.linspace(-1.0, 1.0, 5)
    model = fn.Sequential(fn.Linear(5, 1, bias=False), dtype="float64", backend=backend)
    model.load_state_dict({"0.weight": start[None]})
    w = torch.tensor(start, requires_grad=True)
    peer = peer([w])
    scheduler = make(peer)
    for gradient in np.random.default_rng(5).normal(size=(steps, 5)):
        model.zero_grad()
        model.forward(gradient[None])
        model.backward([[1.0]])  # so that dw is the input itself
        optimizer.step(model)
        w.grad = torch.tensor(gradient)
        peer.step()
        scheduler.step()
    want = w.detach().numpy()
    np.testing.assert_allclose(model.parameters()[0][0], want, rtol=TOL, atol=TOL)


def test_sgd_with_one_cycle(backend):
    schedule = mine.OneCycleLR(0.3, STEPS + 1)
    prescribed(
        backend,
        fn.SGD(schedule, momentum=schedule.momentum, weight_decay=0.01, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
        lambda o: theirs.OneCycleLR(o, 0.3, STEPS + 1),
    )


def test_adam_with_one_cycle(backend):
    schedule = mine.OneCycleLR(0.03, STEPS + 1, three_phase=True)
    prescribed(
        backend,
        fn.Adam(schedule, betas=(schedule.momentum, 0.999)),
        lambda p: torch.optim.Adam(p, 0.1),
        lambda o: theirs.OneCycleLR(o, 0.03, STEPS + 1, three_phase=True),
    )


def test_adamw_with_warm_restarts(backend):
    prescribed(
        backend,
        fn.AdamW(mine.CosineAnnealingWarmRestarts(0.03, 10, 2)),
        lambda p: torch.optim.AdamW(p, 0.03),
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 10, 2),
    )


# Plateaus.

SCORES = {
    "falling": np.linspace(5, 1, 60),
    "stalling": np.maximum(np.linspace(5, 1, 60), 3),
    "noisy": np.random.default_rng(1).normal(3, 1, 60),
    "negative": -np.abs(np.random.default_rng(2).normal(3, 1, 60)),
    "rising": np.linspace(1, 5, 60),
    "nan": np.where(np.arange(60) % 5 == 1, np.nan, 2.0),
}


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"factor": 0.5, "patience": 0},
        {"factor": 0.3, "patience": 2, "threshold": 0.2},
        {"patience": 1, "cooldown": 3, "threshold": 0.0},
        {"factor": 0.5, "patience": 1, "min_lr": 0.07},
        {"patience": 0, "eps": 1e-3},
    ],
    ids=str,
)
def test_plateaus_are_pytorchs(scores, mode, threshold_mode, options):
    if threshold_mode == "rel" and min(scores) < 0:
        pytest.skip("PyTorch's relative threshold is no gain below 0")
    options = {"mode": mode, "threshold_mode": threshold_mode, **options}
    optimizer = torch.optim.SGD(parameters(), lr=1.0)
    scheduler = theirs.ReduceLROnPlateau(optimizer, **options)
    want, got, left = [], [], iter(scores)

    class Rates(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            got.append(self.trainer.optimizer.lr)

    for score in scores:
        optimizer.step()
        scheduler.step(score)
        want.append(optimizer.param_groups[0]["lr"])
    model = fn.Sequential(fn.Linear(1, 1), seed=0)
    metrics = {"score": lambda y, output: next(left)}
    trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(1.0), metrics, seed=0)
    callbacks = [fn.ReduceLROnPlateau("score", **options), Rates()]
    trainer.fit([[0.0]], [[0.0]], len(scores), verbose=0, callbacks=callbacks)
    np.testing.assert_allclose(got, want, rtol=TOL)
