"""Epochs of nets that are no plain row of layers: skips, radial basis functions, very many classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import fastnet as fn
from contenders import roofline
from contenders.workloads import LR, SEED

BLOCKS, WIDTH, BATCH, CLASSES, MINIBATCHES = 20, 256, 128, 10, 8
RADIAL = {  # rows, inputs, centres, outputs
    "32×8, 30 centres": (32, 8, 30, 3),
    "32×64, 100 centres": (32, 64, 100, 10),
    "128×64, 300 centres": (128, 64, 300, 10),
    "128×784, 500 centres": (128, 784, 500, 10),
}
MANY_CLASSES, INPUTS, ROWS, STEPS = 100_000, 128, 32, 128  # of the hierarchical softmax


def minibatches(rows: int, width: int, classes: int, count: int = MINIBATCHES) -> tuple[Any, Any]:
    """Inputs and labels of all minibatches."""
    random = np.random.default_rng(SEED)
    x = random.standard_normal((rows * count, width)).astype(np.float32)
    return x, random.integers(0, classes, len(x))


class Fit:
    """Epochs by `fit` on one thread."""

    quantum = 1

    def __init__(
        self,
        layers: Any,
        rows: int,
        classes: int,
        loss: Any = None,
        optimizer: Any = None,
        count: int = MINIBATCHES,
    ) -> None:
        model = fn.Sequential(*layers, seed=SEED)
        self.x, self.y = minibatches(rows, layers[0].in_width, classes, count)
        self.rows = rows
        self.trainer = fn.Trainer(
            model,
            loss or fn.CrossEntropyLoss(),
            optimizer or fn.Adam(lr=LR),
            metrics={},
            seed=SEED,
        )

    def run(self, count: int) -> None:
        """So many epochs."""
        self.trainer.fit(self.x, self.y, epochs=count, batch_size=self.rows, verbose=0)


class Torch:
    """The same number of steps by PyTorch, of minibatches that are cut already."""

    quantum = 1

    def __init__(
        self,
        net: Callable[[Any], Any],
        rows: int,
        width: int,
        classes: int,
        *,
        fused: bool = False,
        compiled: bool = False,
    ) -> None:
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(SEED)
        module = net(torch)
        self.optimizer = torch.optim.Adam(module.parameters(), lr=LR, fused=fused or None)
        criterion = torch.nn.CrossEntropyLoss()
        self.loss = lambda x, y: criterion(module(x), y)
        if compiled:
            self.loss = torch.compile(self.loss)
        x, y = map(torch.from_numpy, minibatches(rows, width, classes))
        self.minibatches = list(zip(x.split(rows), y.split(rows), strict=True))

    def run(self, count: int) -> None:
        """So many epochs."""
        for _ in range(count):
            for x, y in self.minibatches:
                self.optimizer.zero_grad()
                self.loss(x, y).backward()
                self.optimizer.step()


class Roofline:
    """The arithmetic and the memory traffic of the residual net's epoch alone."""

    quantum = 1

    def __init__(self) -> None:
        products = BLOCKS * WIDTH * WIDTH + WIDTH * CLASSES
        parameters = products + BLOCKS * WIDTH + CLASSES
        # Forward, and gradients of weights and of all inputs but x.
        flops = 2 * BATCH * (3 * products - WIDTH * WIDTH)
        moved = roofline.ADAM_BYTES * parameters
        self.floors = [
            roofline.multiply_adds("GEMM", flops * MINIBATCHES),
            roofline._bytes("Adam", moved * MINIBATCHES, 16 * parameters),
        ]

    def run(self, count: int) -> None:
        """The work of so many epochs."""
        for floor in self.floors:
            floor.run(max(1, round(floor.units * count)))


def residual_net(torch: Any) -> Any:
    """BLOCKS times x + relu(linear(x)), and a linear layer, in PyTorch."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Any) -> Any:
            return x + torch.relu(self.linear(x))

    return nn.Sequential(*(Block() for _ in range(BLOCKS)), nn.Linear(WIDTH, CLASSES))


def residual() -> dict[str, Callable[[], Any]]:
    """Who trains the residual net."""

    def ours() -> Fit:
        blocks = [fn.Residual(fn.Linear(WIDTH, WIDTH), fn.ReLU()) for _ in range(BLOCKS)]
        return Fit([*blocks, fn.Linear(WIDTH, CLASSES)], BATCH, CLASSES)

    sizes = BATCH, WIDTH, CLASSES
    found: dict[str, Callable[[], Any]] = {
        "fastnet": ours,
        "PyTorch": partial(Torch, residual_net, *sizes),
        "PyTorch fused": partial(Torch, residual_net, *sizes, fused=True),
        "PyTorch compiled": partial(Torch, residual_net, *sizes, fused=True, compiled=True),
    }
    return found if roofline.reason() else found | {"roofline": Roofline}


def radial_net(inputs: int, centers: int, outputs: int, torch: Any) -> Any:
    """Radial basis functions with a constant, and a linear layer, in PyTorch."""
    nn = torch.nn

    class Radial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centers = nn.Parameter(torch.rand(centers, inputs) * 2 - 1)
            self.widths = nn.Parameter(torch.ones(centers))
            self.linear = nn.Linear(centers, outputs)

        def forward(self, x: Any) -> Any:
            squared = (x * x).sum(1, keepdim=True) - 2 * x @ self.centers.T
            squared = squared + (self.centers * self.centers).sum(1)
            return self.linear(torch.exp(-squared / (2 * self.widths * self.widths)))

    return Radial()


def radial(size: str) -> dict[str, Callable[[], Any]]:
    """Who trains a net of radial basis functions."""
    rows, inputs, centers, outputs = RADIAL[size]

    def ours() -> Fit:
        layers = [fn.RBF(inputs, centers), fn.Linear(centers + 1, outputs, bias=False)]
        return Fit(layers, rows, outputs)

    return {
        "fastnet": ours,
        "PyTorch": partial(
            Torch, partial(radial_net, inputs, centers, outputs), rows, inputs, outputs
        ),
    }


def hierarchical() -> dict[str, Callable[[], Any]]:
    """Plain gradient descent with very many classes, by two levels and by a full softmax."""

    def by(layer: Callable[[int, int], fn.Layer], loss: Any) -> Fit:
        head = layer(INPUTS, MANY_CLASSES)
        return Fit([head], ROWS, MANY_CLASSES, loss, fn.SGD(lr=LR), STEPS)

    return {
        "fastnet": lambda: by(fn.HierarchicalSoftmax, fn.HierarchicalSoftmaxLoss()),
        "a full softmax": lambda: by(fn.Linear, fn.CrossEntropyLoss()),
    }


CASES: dict[str, Callable[[], dict[str, Callable[[], Any]]]] = {
    f"an epoch of {BLOCKS} residual blocks, {WIDTH} wide, batch {BATCH}": residual,
    **{f"an epoch of an RBF net, {size}": partial(radial, size) for size in RADIAL},
    f"an epoch with {MANY_CLASSES:,} classes, SGD, batch {ROWS}": hierarchical,
}
