"""The update program of an optimizer: its ops over the parameters, group by group."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from fastnet.op import Array, Op
from fastnet.parameter import Parameter
from fastnet.plan.instructions import Place, blocks_of, update_pass
from fastnet.plan.records import INSTRUCTION, aligned, zeros_aligned
from fastnet.plan.segments import Storage


@dataclass(eq=False, repr=False)
class Rule:
    """An optimizer's compiled passes over a model's parameters, and their state vectors."""

    program: np.ndarray
    segment: np.ndarray  # bytes: the tensors of `vectors` in sequence
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
    shapes = state_tensors([*passes, points], storage)
    begins, end = {}, 0
    for name, (count, dtype) in shapes.items():
        begins[name], end = end, end + aligned(count * dtype.itemsize)
    segment, vectors = zeros_aligned(end), {}
    for name, (count, dtype) in shapes.items():
        values = segment[begins[name] :][: count * dtype.itemsize].view(dtype)
        values[...] = start.get(name, 0)
        vectors[name] = values
    programs = [
        compile_update(ops, group_of, storage, begins)
        for ops in (passes, *([[op]] * len(passes) for op in points))
    ]
    return Rule(programs[0], segment, vectors, storage.frozen, programs[1:])


def compile_update(
    passes: Sequence[Sequence[type[Op]]],
    group_of: Sequence[int],
    storage: Storage,
    begins: Mapping[str, int],
) -> np.ndarray:
    """The update program of an optimizer: each op of a group runs over each run of its parameters.

    passes: for each group the ops of a step, in order; the rows of hyper have the same order. group_of: the
    group of each parameter, in the order of the segment `params`. Frozen parameters are left out. begins:
    where the tensors of `state_tensors` begin in the segment `state`. An op over a matrix ("I O") runs once
    for each parameter with two dimensions. If an op of a group writes `penalized`, the ops after it take
    that as g. All groups have the same ops that run `once`. Each of these runs over all vectors, with its
    row of the first group, when every group has done what comes before it.
    """
    stages, row = [], 0
    for ops in passes:
        stages.append(_stages(ops, row))
        row += len(ops)
    runs = [_Run(*found, storage, begins) for found in _runs(group_of, storage)]
    records = []
    for number, (_, last) in enumerate(stages[0] if runs else ()):
        for run in runs:
            for op, row in stages[run.group][number][0]:
                records += run.instructions(op, row)
        if last is not None:
            records.append(_once(*last, storage, begins))
    return np.concatenate([np.zeros(0, INSTRUCTION), *records])


def state_tensors(
    passes: Iterable[Iterable[type[Op]]], storage: Storage
) -> dict[str, tuple[int, np.dtype[Any]]]:
    """What the ops of a step keep, in addition to the parameters `w`: elements and dtype by name.

    A tensor of N elements, or of a matrix, is a vector as long as all parameters; one of M numbers of each
    block of parameters, or of a fixed size, is there once for the whole model.
    """
    length = len(storage.flat("params"))
    sizes = {"N": length, "M": blocks_of(length)}
    found = {}
    for op in (op for ops in passes for op in ops):
        for name in op.state:
            spec = op.tensors[name]
            words = ("N",) if "I" in spec.dims else spec.dims
            count = math.prod(sizes.get(word) or int(word) for word in words)
            found[name] = count, np.dtype(spec.dtype or storage.dtype)
    found.pop("w", None)
    return found


Row = tuple[type[Op], int]  # an op and its row of hyper


def _stages(ops: Sequence[type[Op]], row: int) -> list[tuple[list[Row], Row | None]]:
    """The ops of a group with their rows, from `row` on: those before each op that runs once, and it."""
    stages: list[tuple[list[Row], Row | None]] = []
    before: list[Row] = []
    for number, op in enumerate(ops, row):
        if op.once:
            stages.append((before, (op, number)))
            before = []
        else:
            before.append((op, number))
    return [*stages, (before, None)]


def _once(op: type[Op], row: int, storage: Storage, begins: Mapping[str, int]) -> np.ndarray:
    """The instruction of an op over whole vectors."""
    count = len(storage.flat("params"))
    places = {name: ("state", begins[name]) for name in op.tensors}
    return update_pass(op, storage.dtype, places, _sizes(op, count), row)


def _sizes(op: type[Op], count: int) -> list[int]:
    """The sizes of an op over `count` elements."""
    sizes = {"N": count, "M": blocks_of(count)}
    return [sizes[word] for word in op.dims]


@dataclass(eq=False, repr=False)
class _Run:
    """Adjacent parameters of one group: begin and end in bytes of `params`, the group, the parameters."""

    begin: int
    end: int
    group: int
    members: list[Parameter]
    storage: Storage
    begins: Mapping[str, int]
    gradient: Place = ("grads", 0)  # of the first parameter of the model

    def instructions(self, op: type[Op], row: int) -> list[np.ndarray]:
        """Those of an op over these parameters, which the next op follows."""
        storage, made = self.storage, []
        if "I" in op.dims:
            for p in self.members:
                if len(p.shape) == 2:
                    places = self._places(op, storage.place(p)[1])
                    made.append(update_pass(op, storage.dtype, places, p.shape, row))
        else:
            sizes = _sizes(op, (self.end - self.begin) // storage.dtype.itemsize)
            places = self._places(op, self.begin)
            made.append(update_pass(op, storage.dtype, places, sizes, row))
        if "penalized" in op.state:
            self.gradient = "state", self.begins["penalized"]
        return made

    def _places(self, op: type[Op], offset: int) -> dict[str, Place]:
        """Where the tensors of an op lie for the parameters from an offset in `params` on."""
        segment, begin = self.gradient
        places: dict[str, Place] = {"w": ("params", offset), "g": (segment, begin + offset)}
        for name in op.tensors.keys() & self.begins.keys():
            along = op.tensors[name].dims in (("N",), ("I", "O"))
            places[name] = "state", self.begins[name] + (offset if along else 0)
        return places


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
