"""Meta-training: its gradient, what the shipped weights are worth, and the script as a newcomer runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnet as fn
from fastnet.examples import learning_to_learn as example


class Given(example.Quadratics):
    """A problem that hands out gradients drawn beforehand, whatever θ is."""

    def __init__(self, random, count, n):
        super().__init__(random, count, n)
        self.drawn = random.normal(size=(example.UNROLLED + 1, count, n))
        self.number = 0

    def evaluate(self, theta):
        self.number = (self.number + 1) % len(self.drawn)
        return super().evaluate(theta)[0], self.drawn[self.number]


@pytest.mark.parametrize(("units", "layers"), [(3, 1), (4, 2), (2, 3)])
def test_the_gradient_of_the_meta_objective(units, layers):
    """Against central differences for every weight; the gradients that the LSTM reads are given."""
    random = np.random.default_rng(0)
    problem, layer = Given(random, 3, 4), example.Unrolled(units, layers)
    model = fn.Sequential(layer, dtype="float64", backend="reference", seed=0)
    with model.edit() as values:
        for name in values:
            values[name][...] = 0.5 * random.normal(size=values[name].shape)
    x = random.normal(size=(12, 1 + 2 * layers * units))
    layer.of(problem)

    def objective():
        """The mean of f over problems and steps, and its slopes."""
        path = model.forward(x)
        found = [
            example.Quadratics.evaluate(problem, theta.reshape(3, 4)) for theta in path.T.copy()
        ]
        slopes = example.loss_slope([slope for _, slope in found])
        return np.mean([value for value, _ in found]), slopes

    model.zero_grad()
    model.backward(objective()[1])
    for name, grad in model.grads.items():
        grad, numeric = np.array(grad), np.zeros_like(grad)
        for at in np.ndindex(grad.shape):
            ends = []
            for move in (1e-5, -2e-5, 1e-5):
                with model.edit() as values:
                    values[name][at] += move
                ends.append(objective()[0])
            numeric[at] = (ends[0] - ends[1]) / 2e-5
        assert np.abs(grad).max() > 1e-3
        np.testing.assert_allclose(grad, numeric, atol=1e-7 * np.abs(numeric).max(), rtol=1e-6)


def test_the_layer_trains_what_the_optimizer_runs():
    """θ and the state after unrolled steps are those of LearnedOptimizer."""
    random = np.random.default_rng(1)
    problem, layer = example.Quadratics(random, 3, 5), example.Unrolled(4, 2)
    model = fn.Sequential(layer, dtype="float64", backend="reference", seed=0)
    layer.of(problem)
    model.forward(np.concatenate([problem.start.reshape(-1, 1), np.zeros((15, 16))], axis=1))
    values, _, state = layer.found()
    optimizer = fn.LearnedOptimizer(layer.weights())
    got = example.optimised(problem, optimizer, example.UNROLLED)
    np.testing.assert_allclose(got, values, rtol=1e-9)
    assert state.shape == (15, 17)


@pytest.mark.parametrize("kind", ["tanh", "relu"])
def test_the_gradients_of_the_nets(kind):
    random = np.random.default_rng(2)
    problem = example.Nets(random, 2, 5, activation=getattr(example, kind))
    size = problem.start.shape[1]
    for number, at in ((0, 3), (1, 80), (1, 84), (0, 90), (1, size - 1)):
        ends = []
        for move in (1e-6, -1e-6):
            theta = problem.start.copy()
            theta[number, at] += move
            problem.random = np.random.default_rng(3)
            ends.append(problem.evaluate(theta)[0][number])
        problem.random = np.random.default_rng(3)
        slope = problem.evaluate(problem.start)[1]
        assert slope[number, at] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-9)


def test_the_shipped_optimizer_beats_tuned_adam_on_held_out_quadratics():
    """Within 100 steps, in the mean of 48 problems, Adam at the best of 14 rates from 0.001 to 20."""
    for seed in (1, 2):

        def problems(seed=seed):
            return example.Quadratics(np.random.default_rng([example.TEST, seed]))

        learned = example.optimised(problems(), fn.LearnedOptimizer())
        rate, adam = example.best(problems, fn.Adam)
        assert example.RATES[0] < rate < example.RATES[-1]  # the grid goes beyond the best
        assert learned[100].mean() < 0.9 * adam[100].mean()
        assert learned.mean() < 0.9 * adam.mean()


def test_the_script(tmp_path):
    package = Path(fn.__file__).resolve().parents[1]
    pytest.importorskip("matplotlib")
    made = tmp_path / "made.safetensors"
    options = ("--quick", "--family", "quadratics", "--save", str(made), "--plot", "curve.svg")

    def run():
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "fastnet.examples.learning_to_learn", *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(package), "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("episode")] == [
        f"episode {n}" for n in range(1, 11)
    ]
    rows = {
        found[1]: float(found[2])
        for line in lines
        if (found := re.match(r"(\S.*?)  .* (\S+)$", line))
    }
    assert {"learned", "Adam", "RMSprop", "SGD", "SGD, momentum 0.9"} <= rows.keys()
    assert fn.LearnedOptimizer(made).sizes() == {"L": 1, "H": 4, "K": 4 * 4 * 7 + 5}
    assert (tmp_path / "curve.svg").read_text("utf-8").startswith("<?xml")
    first = fn.LearnedOptimizer(made).weights
    assert run().returncode == 0 and fn.LearnedOptimizer(made).weights == first  # reproducible


def test_the_page_runs():
    text = (Path(__file__).resolve().parents[2] / "docs" / "learned.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["trainer"].optimizer.state(names["model"]).steps == 92
    losses = [record["loss"] for record in names["history"].records]
    assert losses[-1] < 0.5 * losses[0]


def test_other_problems_have_a_row(monkeypatch):
    short = {name: (make, 10) for name, (make, _) in example.ELSEWHERE.items()}
    monkeypatch.setattr(example, "ELSEWHERE", short)
    for grid in ("RATES", "FACTORS"):
        monkeypatch.setattr(example, grid, (0.01, 0.1))
    lines = example.elsewhere(None).splitlines()
    assert len(lines) == 1 + len(short)
    for line, name in zip(lines[1:], short, strict=True):
        assert line.startswith(name)
        steps, *values = line[len(name) :].split()
        assert steps == "10" and np.isfinite([float(v) for v in values]).all()
