"""Single calls as users make them: a DQN update, a target network's step, odd rows, state dicts.

A case has contenders whose `run(count)` makes that many calls. fastnet's public names must do, except
for the order of rows, which users do not call.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import fastnet as fn
from contenders import fann, own, sparse, structure
from contenders.fits import ONE_BY_ONE, FastnetFit
from contenders.peers import torch_net
from contenders.predictors import Predictor as Repeat
from contenders.workloads import LR, SEED, WORKLOADS, Workload

DISCOUNT, MOST_NORM, TAU = 0.99, 1.0, 0.005
AGENTS = {
    w.name: w
    for w in (
        Workload("DQN 4-32-32-2", (4, 32, 32, 2), 8, classes=False),
        Workload("DQN 4-256-256-2", (4, 256, 256, 2), 256, classes=False),
    )
}
ORDERED = 55_000  # rows of an epoch


def experience(workload: Workload) -> dict[str, Any]:
    """A minibatch of transitions, as a replay memory hands it out."""
    random, batch = np.random.default_rng(SEED), workload.batch
    states, following = random.standard_normal((2, batch, workload.widths[0])).astype(np.float32)
    return {
        "states": states,
        "actions": random.integers(0, workload.widths[-1], batch),
        "rewards": random.standard_normal(batch).astype(np.float32),
        "following": following,
        "goes_on": (random.random(batch) > 0.1).astype(np.float32),
    }


class FastnetDqn:
    """One update: the target's prediction, forward, the gradient of one's own, backward, clipping, Adam."""

    quantum = 1

    def __init__(self, workload: Workload) -> None:
        self.model, self.target = workload.model("auto"), workload.model("auto")
        self.optimizer, self.memory = fn.Adam(lr=LR), experience(workload)
        self.rows = np.arange(workload.batch)

    def update(self, states: Any, actions: Any, rewards: Any, following: Any, goes_on: Any) -> None:
        """On one minibatch: the mean of (Q(s, a) − r − γ·max Q⁻(s′, ·))²."""
        goal = rewards + DISCOUNT * goes_on * self.target.predict(following).max(1)
        values = self.model.forward(states)
        dy = np.zeros_like(values)
        dy[self.rows, actions] = 2 / len(goal) * (values[self.rows, actions] - goal)
        self.model.zero_grad()
        self.model.backward(dy)
        fn.clip_grad_norm_(self.model, MOST_NORM)
        self.optimizer.step(self.model)

    def run(self, count: int) -> Any:
        """So many updates; returns the values of all actions after them."""
        for _ in range(count):
            self.update(**self.memory)
        return self.model.predict(self.memory["states"])


class TorchDqn:
    """The same in PyTorch, eagerly."""

    quantum = 1

    def __init__(self, workload: Workload) -> None:
        import torch

        torch.set_num_threads(1)
        self.net, self.target = torch_net(workload), torch_net(workload)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=LR)
        self.memory = {n: torch.from_numpy(array) for n, array in experience(workload).items()}

    def update(self, states: Any, actions: Any, rewards: Any, following: Any, goes_on: Any) -> None:
        """On one minibatch."""
        import torch

        with torch.no_grad():
            goal = rewards + DISCOUNT * goes_on * self.target(following).max(1).values
        values = self.net(states).gather(1, actions[:, None])[:, 0]
        loss = torch.nn.functional.mse_loss(values, goal)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), MOST_NORM)
        self.optimizer.step()

    def run(self, count: int) -> Any:
        """So many updates; returns the values of all actions after them."""
        for _ in range(count):
            self.update(**self.memory)
        return self.net(self.memory["states"]).detach().numpy()


def dqn(workload: Workload) -> dict[str, Callable[[], Any]]:
    """An update of a value network."""
    return {"fastnet": partial(FastnetDqn, workload), "PyTorch": partial(TorchDqn, workload)}


def polyak(workload: Workload) -> dict[str, Callable[[], Any]]:
    """A target network's step towards the value network."""

    def ours() -> Repeat:
        target, model = workload.model("auto"), workload.model("auto")
        return Repeat(lambda: target.lerp(model, TAU))

    def theirs() -> Repeat:
        import torch

        target, net = (list(torch_net(workload).parameters()) for _ in range(2))

        def step() -> None:
            with torch.no_grad():
                for mine, other in zip(target, net, strict=True):
                    mine.lerp_(other, TAU)

        return Repeat(step)

    return {"fastnet": ours, "PyTorch": theirs}


def rows_of(workload: Workload) -> dict[str, Any]:
    """One row in the forms in which programs have it."""
    row = np.linspace(-1, 1, workload.widths[0], dtype=np.float32)[None]
    return {
        "float32": row,
        "float64": row.astype(np.float64),
        "a list": row.tolist(),
        "a strided view": np.repeat(row, 2, axis=1)[:, ::2],
    }


def one_row(workload: Workload) -> dict[str, Callable[[], Any]]:
    """`predict` of one row in each form."""
    model = workload.model("auto")
    return {
        f"fastnet, {form}": lambda x=x: Repeat(lambda: model.predict(x))
        for form, x in rows_of(workload).items()
    }


def one_layer(width: int) -> dict[str, Callable[[], Any]]:
    """`predict` of one row through a square layer, into an array of the caller's."""

    def ours() -> Repeat:
        model = fn.Sequential(fn.Linear(width, width), seed=SEED)
        x, out = np.ones((1, width), np.float32), np.empty((1, width), np.float32)
        return Repeat(lambda: model.predict(x, out=out))

    return {"fastnet": ours}


def order_of_rows() -> dict[str, Callable[[], Any]]:
    """The order of an epoch's rows by the backend, and by NumPy, as it was made before."""
    from fastnet import random
    from fastnet.backends import registry

    backend = registry.get("auto")
    return {
        "fastnet": lambda: Repeat(lambda: backend.orders(ORDERED, SEED, 0, 1)[0]),
        "permutation": lambda: Repeat(lambda: random.permutation(ORDERED, SEED, 0)),
    }


def one_by_one() -> dict[str, Callable[[], Any]]:
    """An epoch of gradient descent by single rows."""
    found: dict[str, Callable[[], Any]] = {
        "fastnet": lambda: FastnetFit(ONE_BY_ONE, optimizer=fn.SGD(lr=LR))
    }
    return found | ({"FANN": lambda: fann.Fann(ONE_BY_ONE)} if fann.available() else {})


CASES: dict[str, Callable[[], dict[str, Callable[[], Any]]]] = {
    **{f"{n}, batch {w.batch}": partial(dqn, w) for n, w in AGENTS.items()},
    **{f"target network of {n}": partial(polyak, w) for n, w in AGENTS.items()},
    "predict one row, housing": partial(one_row, WORKLOADS["housing"]),
    "predict one row, a 64×64 layer": partial(one_layer, 64),
    f"order of {ORDERED:,} rows": order_of_rows,
    "fit housing, SGD, batch 1, an epoch": one_by_one,
    **sparse.CASES,
    **own.CASES,
    **structure.CASES,
}


def makers(case: str) -> dict[str, Callable[[], Any]]:
    """Those of CASES who are installed."""
    return {
        name: make
        for name, make in CASES[case]().items()
        if not name.startswith("PyTorch") or importlib.util.find_spec("torch")
    }


def check_same_output(ready: dict[str, Any]) -> None:
    """Assert that all return the same from the same start, up to rounding."""
    outputs = {name: contender.run(contender.quantum) for name, contender in ready.items()}
    arrays = {name: np.asarray(output) for name, output in outputs.items() if output is not None}
    for name, array in arrays.items():
        if not np.allclose(array, next(iter(arrays.values())), rtol=1e-3, atol=1e-5):
            raise AssertionError(f"{name}'s results differ from those of {next(iter(arrays))}")
