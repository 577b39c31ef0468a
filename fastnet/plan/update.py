"""The update program of an optimizer: its ops over the parameters, group by group."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import numpy as np

from fastnet import parallel
from fastnet.op import Array, Op
from fastnet.optim.rules import width_of
from fastnet.parameter import Parameter
from fastnet.plan.instructions import Place, dims_over, update_pass
from fastnet.plan.kept import last_used
from fastnet.plan.records import INSTRUCTION, aligned, zeros_aligned
from fastnet.plan.segments import Storage

COMPILED = 64  # kinds of rules that are kept


@dataclass(eq=False, repr=False)
class Rule:
    """An optimizer's compiled passes over a model's parameters, and their state vectors."""

    program: np.ndarray
    segment: np.ndarray  # bytes: the tensors of all passes in sequence
    vectors: dict[str, Array]  # those that the passes write
    frozen: frozenset[int]  # ids of the parameters that it leaves out
    points: list[np.ndarray]  # programs that move the parameters to another point and back


def compile_rule(
    passes: Sequence[Sequence[type[Op]]],
    group_of: Sequence[int],
    storage: Storage,
    start: Mapping[str, Any],
    points: Sequence[type[Op]],
    sizes: Mapping[str, int],
) -> Rule:
    """The rule of these passes (see compile_update).

    start: initial values of tensors, by default 0; also of those that the passes only read.
    points: ops that run alone, with the same tensors and a row of numbers for each group.
    sizes: the dims of the passes besides those that the parameters give.
    """
    every = [*chain(*passes), *points]
    with _lock:
        made = last_used(
            _compiled,
            _kind(passes, group_of, storage, points, sizes),
            lambda: _compile(passes, group_of, storage, points, sizes),
            COMPILED,
        )
    segment, tensors = zeros_aligned(made.nbytes), {}
    for name, t in made.tensors.items():
        tensors[name] = segment[t.begin :][: t.count * t.dtype.itemsize].view(t.dtype)
        tensors[name][...] = start.get(name, 0)
    written = set().union(*(op.state for op in every))
    vectors = {name: values for name, values in tensors.items() if name in written}
    program, *of_points = made.programs
    return Rule(program, segment, vectors, storage.frozen, of_points)


@dataclass(frozen=True, repr=False)
class _Compiled:
    """What the rules of all models of one structure share: their programs, and the segment's layout."""

    nbytes: int
    tensors: dict[str, _Tensor]
    programs: list[np.ndarray]  # read-only: of the passes, and of each of the points


_compiled: dict[Any, _Compiled] = {}
_lock = parallel.across_forks(threading.Lock())


def _kind(
    passes: Sequence[Sequence[type[Op]]],
    group_of: Sequence[int],
    storage: Storage,
    points: Sequence[type[Op]],
    sizes: Mapping[str, int],
) -> Any:
    """Everything that the programs of a rule depend on."""
    return (
        tuple(map(tuple, passes)),
        tuple(group_of),
        storage.dtype.name,
        tuple((p.shape, p.dtype, p.frozen) for p in storage.parameters()),
        tuple(points),
        tuple(sizes.items()),
    )


def _compile(
    passes: Sequence[Sequence[type[Op]]],
    group_of: Sequence[int],
    storage: Storage,
    points: Sequence[type[Op]],
    sizes: Mapping[str, int],
) -> _Compiled:
    layout = Layout([*chain(*passes), *points], storage, sizes)
    programs = [
        compile_update(ops, group_of, layout)
        for ops in (passes, *([[op]] * len(passes) for op in points))
    ]
    for program in programs:
        program.flags.writeable = False
    return _Compiled(layout.nbytes, layout.tensors, programs)


def compile_update(
    passes: Sequence[Sequence[type[Op]]], group_of: Sequence[int], layout: Layout
) -> np.ndarray:
    """The update program of an optimizer: each op of a group runs over each run of its parameters.

    passes: for each group the ops of a step, in order; the rows of hyper have the same order. group_of: the
    group of each parameter, in the order of the segment `params`. Frozen parameters are left out. An op
    over a matrix ("I O") runs once for each parameter with two dimensions, and one with dims of the
    optimizer's own once for each parameter. If an op of a group writes `penalized`, the ops after it take
    that as g. All groups have the same ops that run `once`. Each of these runs over all parameters, with
    its row of the first group, when every group has done what comes before it.
    """
    stages, row = [], 0
    for ops in passes:
        stages.append(_stages(ops, row))
        row += len(ops)
    storage = layout.storage
    runs = [_Run(*found, layout) for found in _runs(group_of, storage)]
    whole = _Run(0, storage.segments["params"].nbytes, 0, storage.parameters(), layout)
    records = []
    for number, (_, last) in enumerate(stages[0] if runs else ()):
        for run in runs:
            for op, row in stages[run.group][number][0]:
                records += run.instructions(op, row)
        if last is not None:
            records += whole.instructions(*last)
    return np.concatenate([np.zeros(0, INSTRUCTION), *records])


@dataclass(frozen=True, repr=False)
class _Tensor:
    """A tensor of the segment `state`: its first byte, its elements, and its dtype."""

    begin: int
    count: int
    dtype: np.dtype[Any]
    stride: int  # its bytes for each byte of `params`; 0 where it is one for all parameters


class Layout:
    """Where the tensors of an optimizer's ops, besides w and g, lie in the segment `state`.

    A tensor over parameters ("N", "I O", "L H N") has one or more numbers for each element of `params`;
    those of a parameter are together, at its place. Any other tensor ("M", "K", "16") is there once for the
    whole model. What no op writes is a constant of the optimizer.
    """

    def __init__(self, ops: Iterable[type[Op]], storage: Storage, sizes: Mapping[str, int]) -> None:
        self.storage, self.sizes, self.nbytes = storage, sizes, 0
        self.tensors: dict[str, _Tensor] = {}
        length = len(storage.flat("params"))
        users = {name: op for op in ops for name in op.tensors if name not in ("w", "g")}
        for name, op in users.items():
            dtype = np.dtype(op.tensors[name].dtype or storage.dtype)
            width = width_of(op, name, sizes)
            count = width * length
            if not width:
                count = math.prod(map(int, op.shape(name, {**dims_over(length), **sizes})))
            stride = width * dtype.itemsize // storage.dtype.itemsize
            self.tensors[name] = _Tensor(self.nbytes, count, dtype, stride)
            self.nbytes += aligned(count * dtype.itemsize)


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


@dataclass(eq=False, repr=False)
class _Run:
    """Adjacent parameters of one group: begin and end in bytes of `params`, the group, the parameters."""

    begin: int
    end: int
    group: int
    members: list[Parameter]
    layout: Layout
    gradient: Place = ("grads", 0)  # of the first parameter of the model

    def instructions(self, op: type[Op], row: int) -> list[np.ndarray]:
        """Those of an op over these parameters, which the next op follows."""
        made = []
        for offset, dims in self._spans(op):
            sizes = {**dims, **self.layout.sizes}
            places, dtype = self._places(op, offset), self.layout.storage.dtype
            made.append(update_pass(op, dtype, places, [sizes[d] for d in op.dims], row))
        if "penalized" in op.state:
            self.gradient = "state", self.layout.tensors["penalized"].begin
        return made

    def _spans(self, op: type[Op]) -> list[tuple[int, dict[str, int]]]:
        """The parts of these parameters that an op runs over: offsets in `params`, and their dims."""
        storage = self.layout.storage
        each = [(storage.place(p)[1], p.shape) for p in self.members]
        if "I" in op.dims:
            return [
                (at, dict(zip("IO", shape, strict=True))) for at, shape in each if len(shape) == 2
            ]
        if not self.layout.sizes.keys().isdisjoint(op.dims):
            return [(at, dims_over(math.prod(shape))) for at, shape in each]
        return [(self.begin, dims_over((self.end - self.begin) // storage.dtype.itemsize))]

    def _places(self, op: type[Op], offset: int) -> dict[str, Place]:
        """Where the tensors of an op lie for the parameters from an offset in `params` on."""
        segment, begin = self.gradient
        places: dict[str, Place] = {"w": ("params", offset), "g": (segment, begin + offset)}
        for name in op.tensors.keys() - places.keys():
            tensor = self.layout.tensors[name]
            places[name] = "state", tensor.begin + tensor.stride * offset
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
