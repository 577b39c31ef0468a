"""The others' whole fits, as their documentation writes them, from fastnet's initial parameters.

Each counts its loss, and PyTorch and Keras the right answers, as fastnet does. A library is imported when
its first contender is made. Where epochs are alike, a peer takes a tenth of them in a turn.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import fastnet as fn
from contenders.fits import FastnetFit, Fit
from contenders.peers import Jax, jax_step, sklearn_mlp, start_from, torch_net
from contenders.training import FastnetChunk
from contenders.workloads import LR, SEED


def share(fit: Fit) -> int:
    """The epochs of a turn."""
    return max(1, fit.epochs // 10)


class TorchFit:
    """PyTorch's loop over a shuffled index, or over a DataLoader.

    fused: Adam as one fused kernel.
    """

    def __init__(
        self, fit: Fit, shuffle: bool = True, fused: bool = False, loader: bool = False
    ) -> None:
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        torch.set_num_threads(1)
        torch.manual_seed(SEED)
        self.quantum, self.classes = share(fit), fit.workload.classes
        self.net = torch_net(fit.workload)
        self.loss = torch.nn.CrossEntropyLoss() if self.classes else torch.nn.MSELoss()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=LR, fused=fused or None)
        x, y = map(torch.from_numpy, fit.data())
        self.rows, batch = len(x), fit.workload.batch
        order = torch.randperm if shuffle else torch.arange
        self.minibatches: Callable[[], Any] = lambda: (
            (x[rows], y[rows]) for rows in order(len(x)).split(batch)
        )
        if loader:
            loaded = DataLoader(TensorDataset(x, y), batch_size=batch, shuffle=shuffle)
            self.minibatches = lambda: loaded

    def run(self, epochs: int) -> list[float]:
        """The loop of the tutorials."""
        losses, accuracies = [], []
        for _ in range(epochs):
            total, right = 0.0, 0.0
            for x, y in self.minibatches():
                self.optimizer.zero_grad()
                output = self.net(x)
                loss = self.loss(output, y)
                loss.backward()
                self.optimizer.step()
                total += loss.item() * len(x)
                if self.classes:
                    right += (output.argmax(1) == y).sum().item()
            losses.append(total / self.rows)
            accuracies.append(right / self.rows)
        return losses


class JaxFit(Jax):
    """JAX: an epoch as one jitted function, its minibatches under `lax.scan`, its state donated."""

    def __init__(self, fit: Fit, shuffle: bool = True) -> None:
        import jax
        import jax.numpy as jnp

        super().__init__(fit.workload)
        self.quantum = share(fit)
        self.x, self.y = map(jnp.asarray, fit.data())
        self.epoch = jax.jit(partial(jax_epoch, fit, shuffle), donate_argnums=0)

    def run(self, epochs: int) -> list[float]:
        """Epochs handed in one after the other, and waited for at the end."""
        import jax

        losses = []
        for _ in range(epochs):
            self.key, key = jax.random.split(self.key)
            self.state, loss = self.epoch(self.state, self.x, self.y, key)
            losses.append(loss)
        self.block((self.state, losses))
        return [float(loss) for loss in losses]


def jax_epoch(fit: Fit, shuffle: bool, state: Any, x: Any, y: Any, key: Any) -> Any:
    """The new state, and the mean loss of the rows; the last minibatch may be smaller."""
    import jax
    import jax.numpy as jnp

    count, batch = len(x), fit.workload.batch
    order = jax.random.permutation(key, count) if shuffle else jnp.arange(count)
    full = count // batch * batch

    def step(state: Any, rows: Any) -> Any:
        return jax_step(fit.workload, state, x[rows], y[rows], key)

    state, losses = jax.lax.scan(step, state, order[:full].reshape(-1, batch))
    total = losses.sum() * batch
    if full < count:
        state, loss = step(state, order[full:])
        total += loss * (count - full)
    return state, total / count


class SklearnFit:
    """scikit-learn's `fit`, from the start each time, for all epochs, without early stopping.

    warm: from fastnet's initial parameters, and not from its own.
    """

    def __init__(self, fit: Fit, shuffle: bool = True, warm: bool = False) -> None:
        self.quantum, (self.x, y) = fit.epochs, fit.data()
        self.classes, self.warm, self.workload = fit.workload.classes, warm, fit.workload
        self.y = y if self.classes else y[:, 0]
        self.estimator = sklearn_mlp(
            self.workload,
            shuffle=shuffle,
            max_iter=fit.epochs,
            n_iter_no_change=fit.epochs + 1,
            tol=0.0,
            warm_start=warm,
        )

    def run(self, epochs: int) -> list[float]:
        """One fit after the other."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            for _ in range(epochs // self.quantum):
                if self.warm:
                    start_from(self.workload, self.estimator, self.x, self.y)
                self.estimator.fit(self.x, self.y)
        return [loss * (1 if self.classes else 2) for loss in self.estimator.loss_curve_]


class KerasFit:
    """Keras on JAX: `compile`, then `fit`."""

    def __init__(self, fit: Fit, shuffle: bool = True) -> None:
        os.environ.setdefault("KERAS_BACKEND", "jax")
        import keras

        workload = fit.workload
        self.quantum, (self.x, self.y) = share(fit), fit.data()
        self.options = {"batch_size": workload.batch, "shuffle": shuffle, "verbose": 0}
        keras.utils.set_random_seed(SEED)
        sizes = workload.widths[1:]
        functions = [workload.activation] * (len(sizes) - 1) + [None]
        layers = [keras.layers.Dense(n, f) for n, f in zip(sizes, functions, strict=True)]
        self.model = keras.Sequential([keras.Input((workload.widths[0],)), *layers])
        mine = workload.model("reference")  # kept: layers alone would draw values of their own
        linears = [layer for layer in mine if isinstance(layer, fn.Linear)]
        for layer, linear in zip(layers, linears, strict=True):
            layer.set_weights([np.array(linear.weight.T), np.array(linear.bias)])
        losses = keras.losses
        self.model.compile(
            optimizer=keras.optimizers.Adam(LR, epsilon=1e-8),
            loss=losses.SparseCategoricalCrossentropy(from_logits=True)
            if workload.classes
            else losses.MeanSquaredError(),
            metrics=["accuracy"] if workload.classes else [],
        )

    def run(self, epochs: int) -> list[float]:
        """One call."""
        return self.model.fit(self.x, self.y, epochs=epochs, **self.options).history["loss"]  # type: ignore[no-any-return]


class Engine:
    """fastnet's engine alone: the steps of a fit as chunks in one native call each, in one order."""

    def __init__(self, fit: Fit) -> None:
        self.chunk = FastnetChunk(fit.workload, "auto")
        self.steps, self.quantum = fit.workload.batches, fit.epochs

    def run(self, epochs: int) -> Any:
        """Whole epochs."""
        return self.chunk.run(epochs * self.steps)


PEERS: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
    "PyTorch": (("torch",), TorchFit),
    "PyTorch fused": (("torch",), partial(TorchFit, fused=True)),
    "PyTorch DataLoader": (("torch",), partial(TorchFit, loader=True)),
    "JAX scan": (("jax",), JaxFit),
    "scikit-learn": (("sklearn",), SklearnFit),
    "Keras on JAX": (("keras", "jax"), KerasFit),
}


def available(fit: Fit) -> dict[str, Callable[..., Any]]:
    """The peers that are installed."""
    return {
        name: make
        for name, (modules, make) in PEERS.items()
        if fit.peers and all(map(importlib.util.find_spec, modules))
    }


def makers(fit: Fit) -> dict[str, Callable[[], Any]]:
    """All who take turns at a fit; the engine where all its minibatches are of one size."""
    found: dict[str, Callable[[], Any]] = {"fastnet": partial(FastnetFit, fit)}
    if fit.source is None:
        found["fastnet engine"] = partial(Engine, fit)
    return found | {name: partial(make, fit) for name, make in available(fit).items()}


def check_same_fit(fit: Fit) -> dict[str, float]:
    """Assert that all have the same mean loss in each epoch; each one's largest relative difference.

    In order, without shuffling, whose draws differ by design: three epochs, or a tenth of the fit where an
    epoch is one minibatch. scikit-learn's Adam adds ε before the correction of the bias, not after.
    """
    one_each = fit.source is None and fit.workload.batches == 1
    fit = fit.shortened(share(fit) if one_each else 3)
    if fit.workload.dropout:
        return {}
    truth = np.array(FastnetFit(fit, shuffle=False).run(fit.epochs))
    found = {}
    for name, make in available(fit).items():
        options = {"warm": True} if name == "scikit-learn" else {}
        losses = np.array(make(fit, shuffle=False, **options).run(fit.epochs))
        found[name] = float(np.max(np.abs(losses - truth) / truth))
    wrong = {name: f"{worst:.1e}" for name, worst in found.items() if not worst < 1e-3}
    if wrong:
        raise AssertionError(f"{fit.workload.name}: losses differ from fastnet's: {wrong}")
    return found
