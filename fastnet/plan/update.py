"""The update program of an optimizer: its ops over the parameters, group by group."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from fastnet.op import Array, Op
from fastnet.optim.rules import width_of
from fastnet.parameter import Parameter
from fastnet.plan.instructions import update_pass
from fastnet.plan.records import INSTRUCTION, aligned, zeros_aligned
from fastnet.plan.segments import Storage

Place = tuple[
    int, int
]  # the first byte of a vector, and its numbers for each parameter; 0 of a constant


@dataclass(eq=False, repr=False)
class Rule:
    """An optimizer's compiled passes over a model's parameters, and their state vectors."""

    program: np.ndarray
    segment: (
        np.ndarray
    )  # bytes: the vectors in sequence, each as long as `params` or a multiple of it
    vectors: dict[str, Array]
    frozen: frozenset[int]  # ids of the parameters that it leaves out
    points: list[np.ndarray]  # programs that move the parameters to another point and back


def compile_rule(
    passes: Sequence[Sequence[type[Op]]],
    group_of: Sequence[int],
    storage: Storage,
    start: Mapping[str, Any],
    points: Sequence[type[Op]] = (),
    sizes: Mapping[str, int] | None = None,
    constants: Mapping[str, Array] | None = None,
) -> Rule:
    """The rule of these passes (see compile_update). start: initial values of vectors, by default 0.

    points: ops that run alone, with the same vectors and a row of numbers for each group. constants:
    tensors that the ops only read, which lie behind the vectors.
    """
    sizes, constants = sizes or {}, constants or {}
    widths = state_vectors([*passes, points], sizes)
    length, end = storage.segments["params"].nbytes, 0
    places: dict[str, Place] = {}
    for name, nbytes in [
        *((name, width * length) for name, width in widths.items()),
        *((name, aligned(c.size * storage.dtype.itemsize)) for name, c in constants.items()),
    ]:
        places[name], end = (end, widths.get(name, 0)), end + nbytes
    segment = zeros_aligned(end)
    values = segment.view(storage.dtype)
    vectors = {}
    for name, (begin, width) in places.items():
        at = begin // storage.dtype.itemsize
        if name in constants:
            values[at : at + constants[name].size] = constants[name].ravel()
            continue
        vectors[name] = values[at : at + width * length // storage.dtype.itemsize]
        vectors[name][...] = start.get(name, 0)
    programs = [
        compile_update(ops, group_of, storage, places, sizes)
        for ops in (passes, *([[op]] * len(passes) for op in points))
    ]
    return Rule(programs[0], segment, vectors, storage.frozen, programs[1:])


def compile_update(
    passes: Sequence[Sequence[type[Op]]],
    group_of: Sequence[int],
    storage: Storage,
    places: Mapping[str, Place],
    sizes: Mapping[str, int],
) -> np.ndarray:
    """The update program of an optimizer: each op of a group runs over each run of its parameters.

    passes: for each group the ops of a step, in order; the rows of hyper have the same order. group_of: the
    group of each parameter, in the order of the segment `params`. Frozen parameters are left out. places:
    where the vectors begin in the segment `state`. An op over a matrix ("I O") runs once for each parameter
    with two dimensions, and one with further dims, of these sizes, once for each parameter. If an op of a
    group writes `penalized`, the ops after it take that as g.
    """
    itemsize = storage.dtype.itemsize
    first_row = np.cumsum([0, *map(len, passes)])
    records = []
    for begin, end, group, members in _runs(group_of, storage):
        gradient = ("grads", 0)
        for row, op in enumerate(passes[group], first_row[group]):
            spans: list[tuple[int, tuple[int, ...]]] = [(begin, ((end - begin) // itemsize,))]
            if len(op.dims) == 2:
                spans = [(storage.place(p)[1], p.shape) for p in members if len(p.shape) == 2]
            elif more := tuple(sizes[d] for d in op.dims[1:]):
                spans = [(storage.place(p)[1], (math.prod(p.shape), *more)) for p in members]
            for offset, dims in spans:
                at = {n: ("state", start + width * offset) for n, (start, width) in places.items()}
                at |= {"w": ("params", offset), "g": (gradient[0], gradient[1] + offset)}
                records.append(update_pass(op, storage.dtype, at, dims, row))
            if "penalized" in op.state:
                gradient = ("state", places["penalized"][0])
    return np.concatenate([np.zeros(0, INSTRUCTION), *records])


def state_vectors(passes: Iterable[Iterable[type[Op]]], sizes: Mapping[str, int]) -> dict[str, int]:
    """The vectors that the ops of a step keep beside the parameters `w`, and the numbers for each."""
    return {
        name: width_of(op, name, sizes)
        for ops in passes
        for op in ops
        for name in op.state
        if name != "w"
    }


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
