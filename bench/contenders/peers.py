"""The other libraries' training steps: PyTorch, JAX, scikit-learn, where they are installed.

Each is used as its documentation advises for speed on one core. Minibatches are cut beforehand, so
the peers are spared the gathering of rows that is part of fastnet's step. A library is imported when
its first contender is made.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import fastnet as fn
from contenders.workloads import LR, SEED, Workload

NORM_EPS, ADAM_EPS, BETAS, MOMENTUM = 1e-5, 1e-8, (0.9, 0.999), 0.1


class Torch:
    """PyTorch: zero_grad, forward, loss, backward, step.

    fused: Adam as one fused kernel; compiled: the net and its loss through `torch.compile` as well;
    device: where; options: of Adam.
    """

    quantum = 1

    def __init__(
        self,
        workload: Workload,
        fused: bool = False,
        compiled: bool = False,
        device: str = "cpu",
        **options: Any,
    ) -> None:
        import torch

        torch.set_num_threads(1)
        self.net = torch_net(workload).to(device)
        criterion = torch.nn.CrossEntropyLoss() if workload.classes else torch.nn.MSELoss()
        self.loss = lambda x, y: criterion(self.net(x), y)
        if compiled:
            self.loss = torch.compile(self.loss)
        parameters = self.net.parameters()
        self.optimizer = torch.optim.Adam(parameters, lr=LR, fused=fused or None, **options)
        self.minibatches = [
            (torch.from_numpy(x).to(device), torch.from_numpy(y).to(device))
            for x, y in workload.minibatches()
        ]
        self.wait = torch.cuda.synchronize if device == "cuda" else lambda: None
        self.taken = 0

    def step(self, x: Any, y: Any) -> Any:
        """One step; returns its loss."""
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def run(self, steps: int) -> list[Any]:
        """The usual loop; returns the losses."""
        losses = []
        for _ in range(steps):
            losses.append(self.step(*self.minibatches[self.taken % len(self.minibatches)]))
            self.taken += 1
        self.wait()
        return losses


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
    model = workload.model("reference")
    net = nn.Sequential(*(twins[type(layer)](layer) for layer in model))
    state = {name: torch.from_numpy(np.array(v)) for name, v in model.state_dict().items()}
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            tensor.copy_(state[name].reshape(tensor.shape))
    return net


class Jax:
    """JAX: the whole step jitted, its state donated, so that it is updated in place."""

    quantum = 1

    def __init__(self, workload: Workload) -> None:
        import jax
        import jax.numpy as jnp

        self.block = jax.block_until_ready
        model = workload.model("reference")  # kept: layers alone would draw values of their own
        layers = list(model)
        params, running = jax_state(layers)
        zeros = partial(jax.tree.map, jnp.zeros_like)
        self.state = (params, zeros(params), zeros(params), running, jnp.float32(0))
        self.key = jax.random.key(SEED)
        self.minibatches = [(jnp.asarray(x), jnp.asarray(y)) for x, y in workload.minibatches()]
        self.step = jax.jit(partial(jax_step, workload), donate_argnums=0)
        self.taken = 0

    def run(self, steps: int) -> list[Any]:
        """Steps handed in one after the other, and waited for at the end; returns the losses."""
        losses = []
        for _ in range(steps):
            x, y = self.minibatches[self.taken % len(self.minibatches)]
            self.state, loss = self.step(self.state, x, y, self.key)
            losses.append(loss)
            self.taken += 1
        self.block((self.state, losses))
        return losses


def jax_state(layers: list[fn.Layer]) -> tuple[list[Any], list[Any]]:
    """fastnet's initial parameters for each hidden or last linear layer, and running statistics."""
    import jax.numpy as jnp

    params: list[Any] = []
    running: list[Any] = []
    for layer in layers:
        if isinstance(layer, fn.Linear):
            # A copy: XLA takes NumPy's memory as it is, and donated memory is overwritten.
            params.append([jnp.array(layer.weight.T), jnp.array(layer.bias)])
            running.append([])
        elif isinstance(layer, fn.BatchNorm1d):
            params[-1] += [jnp.array(layer.weight), jnp.array(layer.bias)]
            running[-1] += [jnp.array(layer.running_mean), jnp.array(layer.running_var)]
    return params, running


def jax_step(workload: Workload, state: Any, x: Any, y: Any, key: Any) -> Any:
    """One step of Adam: the new state, and the loss."""
    import jax
    import jax.numpy as jnp

    params, m, v, running, count = state
    activation = jax.nn.relu if workload.activation == "relu" else jnp.tanh

    def loss(params: Any) -> Any:
        h, moved = x, []
        keys = jax.random.split(jax.random.fold_in(key, count.astype(int)), len(params))
        for number, ((w, b, *scale), stats) in enumerate(zip(params, running, strict=True)):
            h = h @ w + b
            if number == len(params) - 1:
                moved.append([])
                break
            if workload.batchnorm:
                mean, var = h.mean(0), h.var(0)
                unbiased = var * (len(h) / (len(h) - 1))
                now = zip(stats, (mean, unbiased), strict=True)
                moved.append([(1 - MOMENTUM) * old + MOMENTUM * new for old, new in now])
                h = (h - mean) * jax.lax.rsqrt(var + NORM_EPS) * scale[0] + scale[1]
            else:
                moved.append([])
            h = activation(h)
            if workload.dropout:
                kept = jax.random.bernoulli(keys[number], 1 - workload.dropout, h.shape)
                h = jnp.where(kept, h / (1 - workload.dropout), 0)
        if workload.classes:
            picked = jnp.take_along_axis(jax.nn.log_softmax(h), y[:, None], axis=1)
            return -picked.mean(), moved
        return jnp.square(h - y).mean(), moved

    (value, moved), grads = jax.value_and_grad(loss, has_aux=True)(params)
    count = count + 1
    b1, b2 = BETAS
    m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, grads)
    v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, grads)
    # 1 − βⁿ, without the loss of digits that float32 would bring.
    c1, c2 = (-jnp.expm1(count * math.log(b)) for b in BETAS)
    rate, root = LR / c1, 1 / jnp.sqrt(c2)
    params = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(v) * root + ADAM_EPS), params, m, v
    )
    return (params, m, v, moved, count), value


class Sklearn:
    """scikit-learn's MLP: `partial_fit` on the whole data set, one epoch of minibatches a call.

    Without batchnorm and dropout, which it lacks. Its squared error is half of the others'.
    """

    def __init__(
        self, workload: Workload, batches: int | None = None, shuffle: bool = True
    ) -> None:
        self.quantum = batches or workload.batches
        pairs = workload.minibatches()[: self.quantum]
        self.x, y = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
        self.y = y if workload.classes else y[:, 0]
        self.options: dict[str, Any] = {}
        if workload.classes:
            self.options = {"classes": np.arange(workload.widths[-1])}
        self.estimator = sklearn_mlp(workload, shuffle=shuffle)

    def run(self, steps: int) -> None:
        """Whole epochs."""
        for _ in range(steps // self.quantum):
            self.estimator.partial_fit(self.x, self.y, **self.options)
            self.estimator.loss_curve_.clear()

    def mean_loss(self, workload: Workload) -> float:
        """Of one epoch in order from fastnet's initial parameters."""
        start_from(workload, self.estimator, self.x, self.y)
        self.estimator.partial_fit(self.x, self.y, **self.options)
        return float(self.estimator.loss_curve_[-1]) * (1 if workload.classes else 2)


def sklearn_mlp(workload: Workload, **options: Any) -> Any:
    """The workload's net in scikit-learn, with Adam and without a penalty."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    return (MLPClassifier if workload.classes else MLPRegressor)(
        hidden_layer_sizes=workload.widths[1:-1],
        activation=workload.activation,
        solver="adam",
        alpha=0.0,
        batch_size=workload.batch,
        learning_rate_init=LR,
        random_state=SEED,
        **options,
    )


def start_from(workload: Workload, mlp: Any, x: Any, y: Any) -> None:
    """Give an MLP fastnet's initial parameters, and its optimizer no state."""
    options = {"classes": np.arange(workload.widths[-1])} if workload.classes else {}
    mlp.partial_fit(x, y, **options)  # makes its arrays
    model = workload.model("reference")  # kept: layers alone would draw values of their own
    linears = [layer for layer in model if isinstance(layer, fn.Linear)]
    for w, b, linear in zip(mlp.coefs_, mlp.intercepts_, linears, strict=True):
        w[...], b[...] = linear.weight.T, linear.bias
    mlp.loss_curve_.clear()
    del mlp._optimizer


def available() -> dict[str, Callable[[Workload], Any]]:
    """The peers that are installed, as functions that make their contenders."""
    makers: dict[str, tuple[str, Callable[[Workload], Any]]] = {
        "PyTorch": ("torch", Torch),
        "PyTorch fused": ("torch", partial(Torch, fused=True)),
        "PyTorch compiled": ("torch", partial(Torch, fused=True, compiled=True)),
        "JAX": ("jax", Jax),
        "scikit-learn": ("sklearn", Sklearn),
    }
    return {
        name: make for name, (module, make) in makers.items() if importlib.util.find_spec(module)
    }
