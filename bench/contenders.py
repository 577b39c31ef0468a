"""Who is measured: fastnet on each backend, PyTorch, scikit-learn, each doing the same training steps.

A contender's `run(steps)` carries out that many steps, each with the next minibatch, and goes on where
it stopped. PyTorch's minibatches are cut beforehand, while fastnet gathers its rows within the step.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from workloads import LR, SEED, Workload

import fastnet as fn
from fastnet.backends.executor import Steps, Update


class Contender(Protocol):
    """Runs training steps of one workload; `quantum`: steps come in multiples of it."""

    quantum: int

    def run(self, steps: int) -> Any:
        """Carry out `steps` steps; returns their losses where the contender can tell."""


def fastnet_model(workload: Workload, backend: str) -> fn.Sequential:
    """The workload's net in fastnet."""
    activation = {"relu": fn.ReLU, "tanh": fn.Tanh}[workload.activation]
    layers: list[fn.Layer] = []
    for inputs, outputs in zip(workload.widths[:-2], workload.widths[1:-1], strict=True):
        layers.append(fn.Linear(inputs, outputs))
        if workload.batchnorm:
            layers.append(fn.BatchNorm1d(outputs))
        layers.append(activation())
        if workload.dropout:
            layers.append(fn.Dropout(workload.dropout))
    layers.append(fn.Linear(workload.widths[-2], workload.widths[-1]))
    return fn.Sequential(*layers, backend=backend, seed=SEED)


class _Fastnet:
    """What the three ways of training with fastnet share."""

    quantum = 1

    def __init__(self, workload: Workload, backend: str) -> None:
        self.batch, self.order = workload.batch, workload.order()
        self.model = fastnet_model(workload, backend)
        self.loss = fn.CrossEntropyLoss() if workload.classes else fn.MSELoss()
        self.optimizer = fn.Adam(lr=LR)
        self.x, self.y = workload.data()
        self.taken = 0  # steps so far

    def run(self, steps: int) -> Any:
        """Carry out `steps` steps."""
        raise NotImplementedError


class FastnetChunk(_Fastnet):
    """A chunk of steps in one native call, as `Trainer.fit` makes it."""

    def __init__(self, workload: Workload, backend: str) -> None:
        super().__init__(workload, backend)
        self.data = self.model.data(self.loss, self.x, self.y, "X", "y")
        self.executor = self.model.training_executor(self.x.shape[1:], self.batch, self.loss)

    def run(self, steps: int) -> Any:
        """One call of the backend; returns the losses of the steps."""
        state = self.model.optimizer_state(self.optimizer)
        assert state.program is not None and state.segment is not None
        update = Update(state.program, state.segment, self.optimizer.hyper(state.steps, steps))
        start = self.taken * self.batch % len(self.order)
        index = np.resize(np.roll(self.order, -start), steps * self.batch)
        offsets = np.arange(0, len(index) + 1, self.batch)
        losses = self.executor.train(self.data, Steps(index, offsets, SEED, self.taken), update)
        self.model.touch()
        state.steps += steps
        self.taken += steps
        return losses


class FastnetLoop(_Fastnet):
    """A loop of one's own: `value_and_grad`, then `optimizer.step`, two native calls a step."""

    def __init__(self, workload: Workload, backend: str) -> None:
        super().__init__(workload, backend)
        self.minibatches = cut(self.x[self.order], self.y[self.order], self.batch)

    def run(self, steps: int) -> Any:
        """Two calls a step; returns the losses."""
        losses = []
        for _ in range(steps):
            x, y = self.minibatches[self.taken % len(self.minibatches)]
            losses.append(self.model.value_and_grad(self.loss, x, y))
            self.optimizer.step(self.model)
            self.taken += 1
        return np.array(losses)


class FastnetFit(_Fastnet):
    """`Trainer.fit` as users call it, with its checks, shuffling, metrics and history."""

    def __init__(self, workload: Workload, backend: str) -> None:
        super().__init__(workload, backend)
        self.quantum = workload.batches
        self.trainer = fn.Trainer(self.model, self.loss, self.optimizer, seed=SEED)

    def run(self, steps: int) -> Any:
        """Whole epochs, in one call of fit."""
        epochs = steps // self.quantum
        self.trainer.fit(self.x, self.y, epochs=epochs, batch_size=self.batch, verbose=0)
        self.trainer.history.records.clear()


class Torch:
    """PyTorch, eager: zero_grad, forward, backward, step."""

    quantum = 1

    def __init__(self, workload: Workload, fused: bool = False) -> None:
        import torch

        torch.set_num_threads(1)
        self.net = torch_net(workload)
        self.loss = torch.nn.CrossEntropyLoss() if workload.classes else torch.nn.MSELoss()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=LR, fused=fused or None)
        order, (x, y) = workload.order(), workload.data()
        self.minibatches = [
            (torch.from_numpy(a), torch.from_numpy(b))
            for a, b in cut(x[order], y[order], workload.batch)
        ]
        self.taken = 0

    def run(self, steps: int) -> Any:
        """The usual loop; returns the losses."""
        losses = []
        for _ in range(steps):
            x, y = self.minibatches[self.taken % len(self.minibatches)]
            self.optimizer.zero_grad()
            loss = self.loss(self.net(x), y)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
            self.taken += 1
        return losses


class Sklearn:
    """scikit-learn's MLP: `partial_fit` on the whole data set, one epoch of minibatches a call.

    Without batchnorm and dropout, which it lacks.
    """

    def __init__(self, workload: Workload) -> None:
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        self.quantum = workload.batches
        self.x, y = workload.data()
        self.y = y if workload.classes else y[:, 0]
        self.options: dict[str, Any] = {}
        if workload.classes:
            self.options = {"classes": np.arange(workload.widths[-1])}
        self.estimator = (MLPClassifier if workload.classes else MLPRegressor)(
            hidden_layer_sizes=workload.widths[1:-1],
            activation=workload.activation,
            solver="adam",
            alpha=0.0,
            batch_size=workload.batch,
            learning_rate_init=LR,
            random_state=SEED,
        )

    def run(self, steps: int) -> Any:
        """Whole epochs."""
        for _ in range(steps // self.quantum):
            self.estimator.partial_fit(self.x, self.y, **self.options)
            self.estimator.loss_curve_.clear()


def torch_net(workload: Workload) -> Any:
    """The workload's net in PyTorch, with the initial parameters of fastnet's."""
    import torch
    from torch import nn

    twins = {
        fn.Linear: lambda layer: nn.Linear(layer.in_features, layer.out_features),
        fn.BatchNorm1d: lambda layer: nn.BatchNorm1d(layer.num_features),
        fn.Dropout: lambda layer: nn.Dropout(layer.p),
        fn.ReLU: lambda _: nn.ReLU(),
        fn.Tanh: lambda _: nn.Tanh(),
    }
    model = fastnet_model(workload, "reference")
    net = nn.Sequential(*(twins[type(layer)](layer) for layer in model))
    state = {name: torch.from_numpy(np.array(v)) for name, v in model.state_dict().items()}
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            tensor.copy_(state[name].reshape(tensor.shape))
    return net


def cut(x: Any, y: Any, batch: int) -> list[tuple[Any, Any]]:
    """Minibatches in order: views of x and y."""
    return [(x[i : i + batch], y[i : i + batch]) for i in range(0, len(x), batch)]


def backends() -> list[str]:
    """The backends of fastnet that run here."""
    return [name for name, info in fn.backends().items() if info.available]


def peers() -> dict[str, Callable[[Workload], Contender]]:
    """The other libraries that are installed, as functions that make their contenders."""
    found: dict[str, Callable[[Workload], Contender]] = {}
    if importlib.util.find_spec("torch"):
        found["PyTorch"] = Torch
        found["PyTorch fused Adam"] = lambda workload: Torch(workload, fused=True)
    if importlib.util.find_spec("sklearn"):
        found["scikit-learn"] = Sklearn
    return found


def fastnets(names: list[str] | None = None) -> dict[str, Callable[[Workload], Contender]]:
    """fastnet on each backend, a chunk of steps in one native call."""
    return {
        f"fastnet {name}": lambda workload, name=name: FastnetChunk(workload, name)
        for name in names or backends()
    }


def check_same_work(workload: Workload, names: list[str], steps: int = 10) -> float:
    """Assert that fastnet and PyTorch make the same losses from the same start; the largest difference.

    Relative to the loss, over the first `steps` steps, without dropout (whose draws differ by design).
    Few steps, as rounding errors grow tenfold every few steps of a deep net.
    """
    plain = workload.without_dropout()
    theirs = np.array([float(loss) for loss in Torch(plain).run(steps)])
    worst = 0.0
    for name in names:
        for way in (FastnetChunk, FastnetLoop):
            ours = way(plain, name).run(steps)
            worst = max(worst, float(np.max(np.abs(ours - theirs) / theirs)))
    if not worst < 1e-4:
        raise AssertionError(f"{workload.name}: losses differ from PyTorch's by {worst:.1e}")
    return worst
