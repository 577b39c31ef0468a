"""Random models with skips, branches, gates and layers that are used twice, and their twins in PyTorch.

`tree(seed)` draws a description, `fastnet_of` and `torch_of` make models of it. In a tree a layer stands as
[kind, arguments…]; two places with the same object hold the same layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnet as fn
from fastnet.formulas import exp

WIDTHS = (1, 2, 3, 5, 8, 17)
SMOOTH = ("Tanh", "Sigmoid", "SiLU", "Softplus", "Softsign", "GELU")
FEATURES = 6  # of the input, as rows of 2 × 3 where the model begins with Flatten


@fn.elementwise
def damped(x: Any, rate: float = 0.5) -> Any:
    """A function of users' own: x·e^(−rate·x²)."""
    return x * exp(-rate * x * x)


class Squares(fn.CustomLayer):
    """y = x²·scale + x, in NumPy, with a trained scale of each feature."""

    def __init__(self, features: int) -> None:
        super().__init__(features=features)
        self.parameter("scale", (features,), fn.init.Constant(0.1))

    def forward(self, x: Any, saved: Any) -> Any:
        saved.x = x
        return x * x * self.scale + x

    def backward(self, dy: Any, saved: Any) -> Any:
        x = saved.x
        return dy * (2 * x * self.scale + 1), {"scale": (dy * x * x).sum(axis=0)}


OWN = {"damped": damped, "Squares": Squares}


class Drawn:
    """A tree's random choices."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.linear: list[Any] = []  # those of the whole tree

    def chance(self, p: float) -> bool:
        return bool(self.random.random() < p)

    def of(self, choices: Any) -> Any:
        return choices[int(self.random.integers(len(choices)))]

    def leaf(self, width: int, out: int | None = None) -> list[Any]:
        """A layer for this width; `out` asks for one of that width."""
        if out is not None or self.chance(0.5):
            fitting = [la for la in self.linear if la[1] == width and out in (None, la[2])]
            if fitting and self.chance(0.3):
                return self.of(fitting)
            wide = self.of(WIDTHS) if out is None else out
            self.linear.append(["Linear", width, wide, self.chance(0.8)])
            return self.linear[-1]
        if self.chance(0.15):
            return ["BatchNorm1d", width]
        if self.chance(0.15):
            return ["Identity"]
        if self.chance(0.15):
            return ["Squares", width] if self.chance(0.5) else ["damped"]
        return [self.of(SMOOTH)]

    def chain(self, width: int, depth: int, out: int | None = None) -> list[Any]:
        """Layers one after the other; some stand there twice."""
        layers: list[Any] = []
        at = [width]
        for _ in range(1 + self.random.integers(4)):
            again = [la for la in layers if widths(la, at[-1]) is not None]
            if again and self.chance(0.3):
                layers.append(self.of(again))
            else:
                layers.append(self.node(at[-1], depth))
            at.append(widths(layers[-1], at[-1]))
        if out is not None and at[-1] != out:
            layers.append(self.leaf(at[-1], out))
        return ["Sequential", *layers]

    def node(self, width: int, depth: int) -> list[Any]:
        """A layer, or something that holds layers."""
        if depth == 0 or self.chance(0.3):
            return self.leaf(width)
        kind = self.of(("Residual", "Residual", "Concat", "Add", "Multiply", "Sequential"))
        if kind == "Sequential":
            return self.chain(width, depth - 1)
        if kind == "Residual":
            out = width if self.chance(0.6) else self.of(WIDTHS)
            layers = self.chain(width, depth - 1, out)[1:]
            shortcut = None if out == width else self.chain(width, 0, out)
            return ["Residual", shortcut, *layers]
        count = 1 + self.random.integers(3)
        out = None if kind == "Concat" else self.of(WIDTHS)
        branches = [self.chain(width, depth - 1, out) for _ in range(count)]
        if self.chance(0.4):
            branches.append(self.of(branches))
        return [kind, *branches]


def widths(layer: list[Any], width: int) -> int | None:
    """The width that a layer makes of a width; None where it does not fit."""
    kind, *rest = layer
    if kind == "Linear":
        return rest[1] if rest[0] == width else None
    if kind in ("BatchNorm1d", "Squares"):
        return width if rest[0] == width else None
    if kind == "Residual":
        shortcut, *rest = rest
        if shortcut is not None and widths(shortcut, width) is None:
            return None
        kind = "Sequential"
    if kind == "Sequential":
        found: int | None = width
        for inner in rest:
            found = None if found is None else widths(inner, found)
        return found if layer[0] == "Sequential" or layer[1] is not None or found == width else None
    if kind in ("Concat", "Add", "Multiply"):
        several = [widths(branch, width) for branch in rest]
        if None in several:
            return None
        return sum(several) if kind == "Concat" else several[0]
    return width


def tree(seed: int) -> list[Any]:
    """The description of a model of FEATURES inputs and two outputs."""
    drawn = Drawn(seed)
    kind, *layers = drawn.chain(FEATURES, 3, 2)
    if drawn.chance(0.3):
        layers.insert(0, ["Flatten"])
    return [kind, *layers]


def inputs(tree: list[Any], rows: int, seed: int) -> Any:
    """Random rows for the model of a tree."""
    x = np.random.default_rng(seed).normal(size=(rows, FEATURES))
    return x.reshape(rows, 2, 3) if tree[1] == ["Flatten"] else x


def fastnet_of(tree: list[Any], **options: Any) -> fn.Sequential:
    """The model of a tree, with these options."""
    made: dict[int, Any] = {}

    def of(layer: Any) -> Any:
        if id(layer) in made:
            return made[id(layer)]
        kind, *rest = layer
        if kind == "Residual":
            shortcut, *rest = rest
            inner = [of(la) for la in rest]
            found = fn.Residual(*inner, shortcut=None if shortcut is None else of(shortcut))
        elif kind in ("Sequential", "Concat", "Add", "Multiply"):
            found = getattr(fn, kind)(*map(of, rest))
        else:
            found = (OWN.get(kind) or getattr(fn, kind))(*rest)
        made[id(layer)] = found
        return found

    _, *layers = tree
    return fn.Sequential(*map(of, layers), **options)


def torch_of(tree: list[Any], torch: Any) -> Any:
    """PyTorch's module of a tree, with the same names of parameters."""
    nn = torch.nn

    class Joined(nn.Module):
        def __init__(self, kind: str, branches: list[Any]) -> None:
            super().__init__()
            self.kind = kind
            for i, branch in enumerate(branches):
                self.add_module(str(i), branch)
            self.branches = branches

        def forward(self, x: Any) -> Any:
            found = [branch(x) for branch in self.branches]
            if self.kind == "Concat":
                return torch.cat(found, dim=1)
            total = found[0]
            for other in found[1:]:
                total = total + other if self.kind == "Add" else total * other
            return total

    class Damped(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * torch.exp(-0.5 * x * x)

    class Square(nn.Module):
        def __init__(self, features: int) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.full((features,), 0.1))

        def forward(self, x: Any) -> Any:
            return x * x * self.scale + x

    own = {"damped": Damped, "Squares": Square}

    class Residual(nn.Module):
        def __init__(self, layers: list[Any], shortcut: Any) -> None:
            super().__init__()
            for i, layer in enumerate(layers):
                self.add_module(str(i), layer)
            self.layers = layers
            if shortcut is not None:
                self.shortcut = shortcut
            self.other = shortcut is not None

        def forward(self, x: Any) -> Any:
            y = x
            for layer in self.layers:
                y = layer(y)
            return y + (self.shortcut(x) if self.other else x)

    made: dict[int, Any] = {}

    def of(layer: Any) -> Any:
        if id(layer) in made:
            return made[id(layer)]
        kind, *rest = layer
        if kind == "Residual":
            shortcut, *rest = rest
            found = Residual(list(map(of, rest)), None if shortcut is None else of(shortcut))
        elif kind == "Sequential":
            found = nn.Sequential(*map(of, rest))
        elif kind in ("Concat", "Add", "Multiply"):
            found = Joined(kind, list(map(of, rest)))
        elif kind == "Linear":
            found = nn.Linear(rest[0], rest[1], bias=rest[2])
        else:
            found = (own.get(kind) or getattr(nn, kind))(*rest)
        made[id(layer)] = found
        return found

    _, *layers = tree
    return nn.Sequential(*map(of, layers)).double()


def to_freeze(model: fn.Sequential, seed: int) -> list[str]:
    """Some parameters of linear layers, in one graph of three."""
    drawn = Drawn(seed + 1)
    if drawn.chance(0.6):
        return []
    norms = {path for path, layer in model.layers if isinstance(layer, fn.BatchNorm1d)}
    names = [n for n in model.named_parameters() if n.rpartition(".")[0] not in norms]
    return [name for name in names if drawn.chance(0.5)]
