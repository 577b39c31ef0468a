"""The update program of an optimizer: its ops over the parameters, group by group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from fastnet.op import Array, Op
from fastnet.parameter import Parameter
from fastnet.plan.instructions import update_pass
from fastnet.plan.records import INSTRUCTION, zeros_aligned
from fastnet.plan.segments import Storage


@dataclass(eq=False, repr=False)
class Rule:
    """An optimizer's compiled passes over a model's parameters, and their state vectors."""

    program: np.ndarray
    segment: np.ndarray  # bytes: the vectors in sequence, each as long as `params`
    vectors: dict[str, Array]
    frozen: frozenset[int]  # ids of the parameters that it leaves out
    points: list[np.ndarray]  # programs that move the parameters to another point and back


def compile_rule(
    passes: Sequence[Sequence[type[Op]]],
    group_of: Sequence[int],
    storage: Storage,
    start: Mapping[str, Any],
    points: Sequence[type[Op]] = (),
) -> Rule:
    """The rule of these passes (see compile_update). start: initial values of vectors, by default 0.

    points: ops that run alone, with the same vectors and a row of numbers for each group.
    """
    names = state_vectors([*passes, points])
    length = storage.segments["params"].nbytes
    segment = zeros_aligned(len(names) * length)
    rows = segment.reshape(len(names), length).view(storage.dtype)
    vectors = dict(zip(names, rows, strict=True))
    for name, vector in vectors.items():
        vector[...] = start.get(name, 0)
    programs = [
        compile_update(ops, group_of, storage, names)
        for ops in (passes, *([[op]] * len(passes) for op in points))
    ]
    return Rule(programs[0], segment, vectors, storage.frozen, programs[1:])


def compile_update(
    passes: Sequence[Sequence[type[Op]]],
    group_of: Sequence[int],
    storage: Storage,
    names: Sequence[str],
) -> np.ndarray:
    """The update program of an optimizer: each op of a group runs over each run of its parameters.

    passes: for each group the ops of a step, in order; the rows of hyper have the same order. group_of: the
    group of each parameter, in the order of the segment `params`. Frozen parameters are left out. The
    vectors with these names lie in sequence in the segment `state`, each as long as `params`. An op over
    a matrix ("I O") runs once for each parameter with two dimensions. If an op of a group writes
    `penalized`, the ops after it take that as g.
    """
    vectors = {name: i for i, name in enumerate(names)}
    length, itemsize = storage.segments["params"].nbytes, storage.dtype.itemsize
    first_row = np.cumsum([0, *map(len, passes)])
    records = []
    for begin, end, group, members in _runs(group_of, storage):
        gradient = ("grads", 0)
        for row, op in enumerate(passes[group], first_row[group]):
            spans: list[tuple[int, tuple[int, ...]]] = [(begin, ((end - begin) // itemsize,))]
            if len(op.dims) == 2:
                spans = [(storage.place(p)[1], p.shape) for p in members if len(p.shape) == 2]
            for offset, sizes in spans:
                at = {name: ("state", i * length + offset) for name, i in vectors.items()}
                at |= {"w": ("params", offset), "g": (gradient[0], gradient[1] + offset)}
                records.append(update_pass(op, storage.dtype, at, sizes, row))
            if "penalized" in op.state:
                gradient = ("state", vectors["penalized"] * length)
    return np.concatenate([np.zeros(0, INSTRUCTION), *records])


def state_vectors(passes: Iterable[Iterable[type[Op]]]) -> list[str]:
    """The names of the vectors that the ops of a step keep, in addition to the parameters `w`."""
    names = (name for ops in passes for op in ops for name in op.state if name != "w")
    return list(dict.fromkeys(names))


def _runs(
    group_of: Sequence[int], storage: Storage
) -> Iterator[tuple[int, int, int, list[Parameter]]]:
    """Adjacent parameters of one group: begin and end in bytes of `params`, the group, the parameters."""
    members = list(zip(storage.parameters(), group_of, strict=True))
    begin = 0
    for (group, frozen), together in groupby(members, key=lambda m: (m[1], m[0].frozen)):
        run = [p for p, _ in together]
        end = begin + sum(storage.nbytes(p) for p in run)
        if not frozen:
            yield begin, end, group, run
        begin = end
