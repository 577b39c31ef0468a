"""Graphs of layers as chains and blocks.

Each value of a graph has a dominator: the last value before it through which everything goes that it is
computed of. So a model is a chain of layers, and of blocks whose branches begin at a dominator.
"""

from __future__ import annotations

from typing import Any

from fastnet import layers as fl
from fastnet.layers.base import Layer
from fastnet.model import Sequential

MOST_DEPTH = 60  # branches within branches
MOST_LAYERS = 10_000  # of a model, each as often as it stands there


class Branches:
    """The values of a graph with one input, each added after those that it is computed of."""

    def __init__(self, start: str) -> None:
        self.start = start
        self._made: dict[str, list[Any]] = {}  # the layers that a value's dominator goes through
        self._before: dict[str, str] = {}  # the dominator
        self._depth = {start: 0}  # in the tree of dominators
        self._count: dict[str, tuple[int, int]] = {}  # of the layers, and blocks in one another

    def __contains__(self, name: str) -> bool:
        return name in self._depth

    def made(self, name: str) -> list[Any]:
        """The layers that were added with a value."""
        return self._made.get(name, [])

    def add(self, name: str, before: str, layers: list[Any]) -> None:
        """A value that these layers make of another."""
        self._made[name], self._before[name] = layers, before
        self._depth[name] = self._depth[before] + 1
        self._count[name] = len(layers), 0

    def moved(self, name: str) -> None:
        """Leave out the layers of a value: a later one has them."""
        self._made[name] = []

    def join(self, name: str, kind: Any, given: list[str], negative: list[Layer]) -> None:
        """A value that a block makes of several; `negative` follow the last of its branches.

        Raises ValueError where the branches read one another's values so that they would have too many
        layers, as each path through them is a branch of its own, and ShapeError where they do not fit.
        """
        start = given[0]
        for other in given[1:]:
            start = self._common(start, other)
        self._before[name], self._depth[name] = start, self._depth[start] + 1
        counts = [self._counted(one, start) for one in given]
        total = len(given) + sum(count for count, _ in counts)
        deepest = 1 + max(depth for _, depth in counts)
        self._count[name] = total, deepest
        if total > MOST_LAYERS or deepest > MOST_DEPTH:
            raise ValueError("its branches read one another's values, which takes too many layers")
        branches = [self.path(one, start) for one in given]
        branches[-1] += negative
        self._made[name] = [_block(kind, branches)]

    def path(self, name: str, start: str | None = None) -> list[Any]:
        """The layers that compute a value from one of its dominators (default the input)."""
        parts, start = list[list[Any]](), self.start if start is None else start
        while name != start:
            parts.append(self.made(name))
            name = self._before[name]
        return [layer for layers in reversed(parts) for layer in layers]

    def _common(self, a: str, b: str) -> str:
        """The last dominator of both values."""
        while a != b:
            if self._depth[a] < self._depth[b]:
                a, b = b, a
            a = self._before[a]
        return a

    def _counted(self, name: str, start: str) -> tuple[int, int]:
        """The number of layers of a path, and the most blocks in one another."""
        found = [(0, 0)]
        while name != start:
            found.append(self._count.get(name, (0, 0)))
            name = self._before[name]
        return sum(count for count, _ in found), max(depth for _, depth in found)


def _block(kind: Any, branches: list[list[Any]]) -> Layer:
    """The block of these branches; a sum with an empty one is a Residual."""
    empty = [branch for branch in branches if not branch]
    if kind is fl.Add and len(branches) == 2 and len(empty) == 1:
        return fl.Residual(*next(filter(None, branches)))
    made = [
        fl.Identity() if not branch else branch[0] if len(branch) == 1 else Sequential(*branch)
        for branch in branches
    ]
    return kind(*made)  # type: ignore[no-any-return]
