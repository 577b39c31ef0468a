"""YellowFin against a transcription of its paper: J. Zhang, I. Mitliagkas, arXiv:1706.03471."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from prescribed import set_gradients

import fastnet as fn
from fastnet.errors import HyperparameterError, StateDictError

EPS = 1e-6


def net(backend, dtype="float64", seed=3):
    layers = fn.Linear(3, 5), fn.BatchNorm1d(5), fn.Tanh(), fn.Linear(5, 2)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=seed)


class Paper:
    """The paper's algorithms over one vector x, with a state for each average as they have it."""

    def __init__(self, x, beta=0.999, window=20, log_smoothing=False, adaptive_clipping=True):
        self.x, self.beta, self.window, self.t = x.copy(), beta, window, 0
        self.logs, self.clips = log_smoothing, adaptive_clipping
        self.before = x.copy()  # x_{t−1}
        self.h, self.averages = [], {}
        self.h_max = self.rate = self.momentum = 0.0

    def average(self, name, value):
        """β·(the average so far) + (1 − β)·value, and that without the bias of its start at 0."""
        kept = self.beta * self.averages.get(name, 0.0) + (1 - self.beta) * value
        self.averages[name] = kept
        return kept / (1 - self.beta**self.t)

    def curvature_range(self, g):
        """Algorithm 2."""
        self.h.append(g @ g + EPS)
        last = self.h[-self.window :]
        if self.logs:
            return tuple(
                math.exp(self.average(n, math.log(f(last))))
                for n, f in (("max", max), ("min", min))
            )
        return self.average("max", max(last)), self.average("min", min(last))

    def variance(self, g):
        """Algorithm 3."""
        return max(np.sum(self.average("g²", g * g) - self.average("g", g) ** 2), EPS)

    def distance(self, g):
        """Algorithm 4."""
        norm, h = self.average("‖g‖", math.sqrt(g @ g)), self.average("h", g @ g)
        return self.average("D", norm / (h + EPS)) + EPS

    def single_step(self, c, d, h_max, h_min):
        """Algorithm 1: the x = √μ where the derivative of x²D² + (1 − x)⁴C/h_min² is 0."""
        ratio = d**2 * h_min**2 / (2 * c)  # x·ratio = (1 − x)³
        roots = np.roots([1, -3, 3 + ratio, -1])
        (x,) = (r.real for r in roots if abs(r.imag) < 1e-7 and 0 <= r.real <= 1)
        dynamic = math.sqrt(h_max / h_min)
        momentum = max(x, (dynamic - 1) / (dynamic + 1)) ** 2
        slow = min(1.0, self.t / (10 * self.window))
        return momentum, slow * (1 - math.sqrt(momentum)) ** 2 / h_min

    def tune(self, g):
        """μ, α and the gradient of the step."""
        self.t += 1
        given, norm = g, math.sqrt(g @ g)
        if self.clips and self.t > 1 and norm**2 > 100 * self.h_max:
            g = g * math.sqrt(100 * self.h_max) / norm
        self.h_max, h_min = self.curvature_range(g)
        c, d = self.variance(g), self.distance(g)
        tuned = self.single_step(c, d, self.h_max, h_min) if self.t > 1 else (0.0, 1e-4)
        if self.clips and norm**2 > self.h_max:
            given = given * math.sqrt(self.h_max) / norm
        return *tuned, given

    def step(self, g):
        """Polyak's momentum in the paper's form, with x_{t−1}."""
        self.momentum, self.rate, g = self.tune(g)
        self.move(self.momentum * (self.x - self.before) - self.rate * g)

    def move(self, way):
        self.before, self.x = self.x, self.x + way


class ClosedLoop(Paper):
    """Algorithm 5 without staleness. The step takes the numbers of its own gradient."""

    gamma = 0.01

    def __init__(self, x, **options):
        super().__init__(x, **options)
        self.places, self.plain, self.total = [], None, 0.0

    def step(self, g):
        self.places = [*self.places[-2:], self.x.copy()]
        target, self.rate, g = self.tune(g)
        if len(self.places) == 3:
            first, second, third = self.places
            moved = second - first
            found = (third - second + self.plain)[moved != 0] / moved[moved != 0]
            self.total = np.median(found)
            self.momentum += self.gamma * (target - self.total)
        self.plain = self.rate * g
        self.move(self.momentum * (self.x - self.before) - self.rate * g)


def quadratic(size=30):
    """Its gradient with noise: curvatures from 0.1 to 3."""
    curvature = np.geomspace(0.1, 3.0, size)
    random = np.random.default_rng(7)
    return lambda x: curvature * x + 0.05 * random.normal(size=size)


def follow(backend, optimizer, paper, gradient, steps=300):
    """A model of one vector that the optimizer moves, and the paper's x, after each step."""
    model = fn.Sequential(fn.Linear(30, 1, bias=False), dtype="float64", backend=backend, seed=2)
    peer = paper(model.parameters()[0][0])
    for step in range(steps):
        set_gradients(model, {"0.weight": gradient(peer.x)[None]})
        optimizer.step(model)
        peer.step(_given(model))
        np.testing.assert_allclose(model.parameters()[0][0], peer.x, 1e-8, 1e-9, err_msg=str(step))
    return model, peer


def _given(model):
    return np.array(model.grads["0.weight"][0])


OPTIONS = {
    "defaults": {},
    "short memory": {"beta": 0.9, "window": 5},
    "averages of logarithms": {"log_smoothing": True},
    "without clipping": {"adaptive_clipping": False},
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@each_option
def test_the_steps_on_a_quadratic_are_the_papers(backend, options):
    optimizer = fn.YellowFin(**options)
    model, peer = follow(backend, optimizer, lambda x: Paper(x, **options), quadratic())
    found = optimizer.tuned(model)
    assert found == {
        "lr": pytest.approx(peer.rate, rel=1e-8),
        "momentum": pytest.approx(peer.momentum, rel=1e-8),
    }
    assert 0.05 < peer.momentum < 0.99


def test_exploding_gradients_are_clipped_as_in_the_paper(backend):
    """Also where one is so long that the averages take a part of it."""
    usual, count = quadratic(), iter(range(1000))

    def gradient(x):
        return usual(x) * {50: 3.0, 51: 1e5, 120: 1e9}.get(next(count), 1.0)

    follow(backend, fn.YellowFin(beta=0.95), lambda x: Paper(x, beta=0.95), gradient, 200)


@pytest.mark.parametrize("log_smoothing", [True, False])
def test_the_closed_loop_is_algorithm_5(backend, log_smoothing):
    options = {"log_smoothing": log_smoothing, "beta": 0.99}
    optimizer = fn.YellowFin(closed_loop=True, gamma=0.01, **options)
    model, peer = follow(backend, optimizer, lambda x: ClosedLoop(x, **options), quadratic(), 200)
    found = optimizer.tuned(model)
    assert found["total_momentum"] == pytest.approx(peer.total, abs=1e-7)
    assert found["momentum"] == pytest.approx(peer.momentum, abs=1e-7)
    assert abs(peer.momentum) > 0.01


def test_the_closed_loop_senses_whoever_else_moves_the_parameters(backend):
    """Another worker repeats 0.6 of each move: the total momentum is its share and the algorithm's."""
    model = fn.Sequential(fn.Linear(30, 1, bias=False), dtype="float64", backend=backend, seed=2)
    optimizer, gradient = fn.YellowFin(closed_loop=True, gamma=0.1), quadratic()
    start = before = model.parameters()[0][0].copy()
    for _ in range(300):
        set_gradients(model, {"0.weight": gradient(start)[None]})
        optimizer.step(model)
        with model.edit() as p:
            p["0.weight"][0] += 0.6 * (start - before)
        before, start = start, model.parameters()[0][0].copy()
    found = optimizer.tuned(model)
    alone = fn.YellowFin()
    follow_alone = follow(backend, alone, Paper, quadratic(), 300)[0]
    assert found["total_momentum"] > found["momentum"] + 0.3
    assert found["momentum"] < alone.tuned(follow_alone)["momentum"]


def test_on_a_net_of_several_parameters(backend):
    """All of them have one rate and one momentum."""
    model, optimizer = net(backend), fn.YellowFin(beta=0.99, weight_decay=0.01)
    names, random = list(model.named_parameters()), np.random.default_rng(1)
    peer = Paper(np.concatenate([p.ravel() for p in model.parameters()]), beta=0.99)
    for _ in range(100):
        x, t = random.normal(size=(8, 3)), random.normal(size=(8, 2))
        model.zero_grad()
        model.value_and_grad(fn.MSELoss(), x, t)
        g = np.concatenate([model.grads[name].ravel() for name in names])
        optimizer.step(model)
        peer.step(g + 0.01 * peer.x)
        got = np.concatenate([p.ravel() for p in model.parameters()])
        np.testing.assert_allclose(got, peer.x, 1e-7, 1e-9)


def test_float32_follows_float64(backend):
    models = [net(backend, dtype) for dtype in ("float32", "float64")]
    for model in models:
        optimizer, random = fn.YellowFin(), np.random.default_rng(1)
        for _ in range(30):
            x, t = random.normal(size=(8, 3)), random.normal(size=(8, 2))
            model.zero_grad()
            model.value_and_grad(fn.MSELoss(), x.astype(model.dtype), t.astype(model.dtype))
            optimizer.step(model)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        np.testing.assert_allclose(one, other, 1e-4, 1e-5)


def data():
    random = np.random.default_rng(5)
    return random.normal(size=(64, 3)), random.normal(size=(64, 2))


@pytest.mark.parametrize("closed_loop", [False, True])
def test_fit_takes_the_steps_of_a_loop(backend, closed_loop):
    """Whole epochs in one call, and steps one by one."""
    (x, t), models = data(), [net(backend), net(backend)]
    optimizers = [fn.YellowFin(closed_loop=closed_loop) for _ in models]
    trainer = fn.Trainer(models[0], fn.MSELoss(), optimizers[0], seed=1)
    trainer.fit(x, t, epochs=4, batch_size=16, shuffle=False, verbose=0)
    for _ in range(4):
        for begin in range(0, 64, 16):
            models[1].zero_grad()
            models[1].value_and_grad(fn.MSELoss(), x[begin : begin + 16], t[begin : begin + 16])
            optimizers[1].step(models[1])
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        np.testing.assert_allclose(one, other, 1e-9, 1e-12)
    assert optimizers[0].tuned(models[0]) == pytest.approx(optimizers[1].tuned(models[1]))


@pytest.mark.parametrize("closed_loop", [False, True])
def test_a_state_dict_goes_on_to_the_bit(backend, closed_loop):
    (x, t), model = data(), net(backend)
    optimizer = fn.YellowFin(closed_loop=closed_loop)

    def train(model, optimizer, steps):
        for step in range(steps):
            model.zero_grad()
            model.value_and_grad(fn.MSELoss(), x[step::9], t[step::9])
            optimizer.step(model)

    train(model, optimizer, 7)
    state, weights = optimizer.state_dict(model), copy.deepcopy(model.state_dict())
    assert state["tuning"].dtype == np.float64 and state["recent"].shape == (128,)
    again, other = net(backend, seed=9), fn.YellowFin(closed_loop=closed_loop)
    again.load_state_dict(weights)
    other.load_state_dict(again, state)
    for one, by in ((model, optimizer), (again, other)):
        train(one, by, 7)
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert optimizer.tuned(model) == other.tuned(again)
    with pytest.raises(StateDictError, match=r"missing \['tuning'\]"):
        other.load_state_dict(again, {k: v for k, v in state.items() if k != "tuning"})
    with pytest.raises(StateDictError, match=r"'tuning'.* has shape \(3,\), expected \(16,\)"):
        other.load_state_dict(again, {**state, "tuning": np.zeros(3)})


def test_a_group_has_a_rate_of_its_own_and_a_common_momentum(backend):
    groups = [{"params": "3.*", "lr": 0.0}]
    model, optimizer = net(backend), fn.YellowFin(groups=groups)
    plain = net(backend)
    start = copy.deepcopy(model.state_dict())
    random = np.random.default_rng(2)
    given = [
        {n: random.normal(size=p.shape) for n, p in model.named_parameters().items()}
        for _ in "12345"
    ]
    other = fn.YellowFin()
    for gradients in given:
        for one, by in ((model, optimizer), (plain, other)):
            set_gradients(one, gradients)
            by.step(one)
    np.testing.assert_array_equal(model.state_dict()["3.weight"], start["3.weight"])
    np.testing.assert_allclose(
        model.state_dict()["0.weight"], plain.state_dict()["0.weight"], 1e-12
    )
    assert optimizer.tuned(model) == pytest.approx(other.tuned(plain), rel=1e-12)


def test_frozen_parameters_are_no_part_of_the_sums(backend):
    model, optimizer = net(backend), fn.YellowFin()
    model[0].freeze()
    other = net(backend)
    zero = dict.fromkeys(("0.weight", "0.bias"), 0.0)
    random = np.random.default_rng(2)
    by = fn.YellowFin()
    for _ in range(5):
        gradients = {n: random.normal(size=p.shape) for n, p in model.named_parameters().items()}
        set_gradients(model, gradients)
        optimizer.step(model)
        set_gradients(other, gradients | zero)
        by.step(other)
    assert optimizer.tuned(model) == pytest.approx(by.tuned(other), rel=1e-12)
    np.testing.assert_allclose(
        model.state_dict()["3.weight"], other.state_dict()["3.weight"], 1e-12
    )


def test_the_closed_loop_may_be_switched_on_between_steps(backend):
    """It measures from the third step on, so that no step takes a measurement of what was not kept."""
    model, optimizer, gradient = net(backend), fn.YellowFin(), np.random.default_rng(2)
    for step in range(12):
        if step == 6:
            before = optimizer.tuned(model)["momentum"]
            optimizer.closed_loop = True
        named = model.named_parameters().items()
        set_gradients(model, {n: gradient.normal(size=p.shape) for n, p in named})
        optimizer.step(model)
        if step in (6, 7):
            assert optimizer.tuned(model)["momentum"] == before
    found = optimizer.tuned(model)
    assert found["momentum"] != before and abs(found["total_momentum"] - before) < 0.1


@pytest.mark.parametrize("name", ["beta", "window", "closed_loop", "eps"])
def test_groups_have_no_tuning_of_their_own(name):
    value = getattr(fn.YellowFin(), name)
    with pytest.raises(HyperparameterError, match=f"groups.0. has '{name}'; expected 'params' and"):
        fn.YellowFin(groups=[{"params": "*", name: value}])


def test_l1_proximal_is_refused():
    with pytest.raises(
        HyperparameterError, match="l1_proximal is True; YellowFin takes only False"
    ):
        fn.YellowFin(l1_proximal=True)


def test_decoupled_decay_has_the_tuned_rate(backend):
    model = net(backend)
    optimizer = fn.YellowFin(weight_decay=0.5, decoupled_weight_decay=True)
    start = copy.deepcopy(model.state_dict())
    set_gradients(model, {n: np.zeros(p.shape) for n, p in model.named_parameters().items()})
    optimizer.step(model)
    np.testing.assert_allclose(
        model.state_dict()["0.weight"], start["0.weight"] * (1 - 1e-4 * 0.5), rtol=1e-14
    )
