"""Shares: which rows of a minibatch are whose, where several ranks train together."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np

from fastnet.op import Array

PARTS = (
    12  # of a minibatch whose gradients are added in a fixed order; 1, 2, 3, 4, 6 and 12 divide it
)


def own_parts(parts: int, rank: int, size: int) -> range:
    """The numbers of the parts, out of so many, that are a rank's."""
    return range(parts * rank // size, parts * (rank + 1) // size)


class Shares:
    """The rows of each minibatch that a rank takes.

    offsets: where the minibatches of an epoch begin and end. least: the fewest rows of a share that is not
    empty. A rank's rows follow those of the ranks before it.
    """

    def __init__(self, rank: int, size: int, offsets: Array, least: int = 1) -> None:
        self.rank, self.size, self.least = rank, size, least
        self.sizes: list[int] = np.diff(offsets).tolist()

    def own_parts(self) -> range:
        """The numbers of the parts that this rank computes."""
        return own_parts(PARTS, self.rank, self.size)

    def of_step(self, step: int, deterministic: bool) -> Iterator[tuple[int, int, int]]:
        """This rank's parts of a minibatch that have rows: each one's number, first row and end."""
        count = self.sizes[step]
        if deterministic:
            for part in self.own_parts():
                low, high = count * part // PARTS, count * (part + 1) // PARTS
                if low < high:
                    yield part, low, high
            return
        low, high = self.range(step)
        if low < high:
            yield 0, low, high

    def range(self, step: int, deterministic: bool = False) -> tuple[int, int]:
        """The first of this rank's rows of a minibatch, and their end."""
        count = self.sizes[step]
        if deterministic:
            own = self.own_parts()
            return count * own.start // PARTS, count * own.stop // PARTS
        taking = max(1, min(self.size, count // self.least))  # ranks that have rows
        if self.rank >= taking:
            return count, count
        return count * self.rank // taking, count * (self.rank + 1) // taking

    def sizes_of(self, step: int) -> list[int]:
        """The rows of a minibatch that each rank takes."""
        each = (self.of(rank).range(step) for rank in range(self.size))
        return [high - low for low, high in each]

    def of(self, rank: int) -> Shares:
        """Those of another rank."""
        made = copy.copy(self)
        made.rank = rank
        return made

    def before(self, step: int) -> int:
        """The rows of a minibatch before the data set's part of it: none, as it is whole."""
        return 0

    def rows(self, index: Array, offsets: Array, step: int, low: int, high: int) -> Array:
        """The rows of the data set at places low … high − 1 of a minibatch."""
        found: Array = index[offsets[step] + low : offsets[step] + high]
        return found

    def most(self, deterministic: bool) -> int:
        """The rows of the largest piece."""
        return max(
            (
                high - low
                for s in range(len(self.sizes))
                for _, low, high in self.of_step(s, deterministic)
            ),
            default=0,
        )

    def offsets(self, deterministic: bool) -> Array:
        """Where this rank's rows of each minibatch begin and end, all in a row."""
        ranges = (self.range(s, deterministic) for s in range(len(self.sizes)))
        return np.append(0, np.cumsum([high - low for low, high in ranges], dtype=np.int64))

    def index(self, index: Array, offsets: Array, deterministic: bool) -> Array:
        """This rank's rows of an epoch, out of those of all."""
        parts = []
        for step in range(len(self.sizes)):
            low, high = self.range(step, deterministic)
            parts.append(self.rows(index, offsets, step, low, high))
        return np.concatenate(parts) if parts else index[:0]


class ShardShares(Shares):
    """The rows of minibatches where each rank has rows of its own.

    counts: the rows of each rank. batch_size: rows of a minibatch, of which each rank gives its share.
    Every epoch has ⌈n/batch_size⌉ minibatches of n rows in all; a rank with k rows gives k·(i + 1)//steps −
    k·i//steps of them to minibatch i, so that each row comes once.
    """

    def __init__(self, rank: int, counts: Sequence[int], batch_size: int) -> None:
        self.counts = [int(count) for count in counts]
        self.steps = max(1, -(-sum(self.counts) // batch_size))
        ends = [[count * i // self.steps for i in range(self.steps + 1)] for count in self.counts]
        self.ends = np.array(ends, np.int64)  # of each rank's rows of minibatches
        super().__init__(rank, len(self.counts), self.ends.sum(axis=0))

    def range(self, step: int, deterministic: bool = False) -> tuple[int, int]:
        """This rank's rows, counted from its first."""
        return 0, int(self.ends[self.rank, step + 1] - self.ends[self.rank, step])

    def before(self, step: int) -> int:
        """The rows of a minibatch that ranks before this one give."""
        begin, end = self.ends[: self.rank, step], self.ends[: self.rank, step + 1]
        return int((end - begin).sum())

    def rows(self, index: Array, offsets: Array, step: int, low: int, high: int) -> Array:
        """The rows of this rank's data set; the index has them alone."""
        begin = self.ends[self.rank, step]
        found: Array = index[begin + low : begin + high]
        return found

    def fewest(self) -> int:
        """The rows of the smallest share that is not empty."""
        sizes = np.diff(self.ends, axis=1)
        return int(sizes[sizes > 0].min())
