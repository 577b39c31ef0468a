"""Instructions: how to encode those of kernels and of controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastnet import random
from fastnet.op import GUESTS, KERNELS, Kernel, Op
from fastnet.plan.records import ABSENT, CONTROL, INSTRUCTION, KIND, MAX_TENSORS, SEGMENT

Place = tuple[str, int]  # a segment and an offset in bytes
SUM_BLOCK = 4096  # elements whose terms of a sum one thread adds up

FIRST_GUEST = 1 << 20  # the number of the first guest's kernel
_NUMBER: dict[str, int] = {}  # of kernels of the package, and of guests
_AT: dict[int, Kernel] = {}  # the kernels that have been asked for by number


def number_of(kernel: Kernel) -> int:
    """The number by which instructions name a kernel."""
    if kernel.name not in _NUMBER:
        # Copies, as another thread may load ops meanwhile.
        _NUMBER.update({name: number for number, name in enumerate([*KERNELS])})
        _NUMBER.update({name: FIRST_GUEST + number for number, name in enumerate([*GUESTS])})
    return _NUMBER[kernel.name]


def kernel_at(number: int) -> Kernel:
    """The kernel with a number."""
    kernel = _AT.get(number)
    if kernel is None:
        table, place = (KERNELS, number) if number < FIRST_GUEST else (GUESTS, number - FIRST_GUEST)
        kernel = _AT[number] = list(table.values())[place]
    return kernel


def fill(
    record: Any,
    kernel: Kernel,
    dtype: np.dtype[Any],
    places: list[Any],
    sizes: list[int],
    scalars: list[float],
    stream: int,
    times: int = 1,
) -> None:
    """Encode a kernel's instruction in a record of zeros.

    times: rows of its tensors for each row of the minibatch.
    """
    record["kernel"] = number_of(kernel)
    record["dtype"] = KIND[dtype.name]
    record["stream"], record["more_rows"] = stream, times - 1
    record["scalar"][: len(scalars)] = scalars
    assert len(places) <= MAX_TENSORS, kernel.name
    _put_operands(record, places, sizes)


def _put_operands(record: Any, places: Sequence[Place | None], sizes: Sequence[int]) -> None:
    record["size"][: len(sizes)] = sizes
    record["segment"] = ABSENT
    for i, place in enumerate(places):
        if place is not None:
            record["segment"][i] = SEGMENT[place[0]]
            record["offset"][i] = place[1]


def copied(program: np.ndarray) -> np.ndarray:
    """A copy of a program, by its bytes: NumPy copies records field by field."""
    made: np.ndarray = program.view(np.uint8).copy().view(INSTRUCTION)
    return made


def kernels_of(program: np.ndarray) -> Iterator[tuple[Any, Kernel]]:
    """The kernel instructions of a program, each with its kernel."""
    for instruction in program:
        if instruction["kernel"] >= 0:
            yield instruction, kernel_at(int(instruction["kernel"]))


def control(
    name: str, places: Sequence[Place | None] = (), sizes: Sequence[int] = (), row: int = 0
) -> np.ndarray:
    """A control instruction (see records.CONTROL) with its tensors' places, sizes and row of the table."""
    record = np.zeros(1, INSTRUCTION)
    record["kernel"], record["group"] = CONTROL[name], row
    _put_operands(record[0], places, sizes)
    return record


def dims_over(count: int) -> dict[str, int]:
    """The dims of an op over `count` parameters: these, N, and the blocks that it makes sums of, M."""
    return {"N": count, "M": max(1, -(-count // SUM_BLOCK))}


def update_pass(
    op: type[Op], dtype: np.dtype[Any], places: Mapping[str, Place], sizes: Any, row: int
) -> np.ndarray:
    """The instruction of an update, with its tensors' places by name, dims and row of hyper."""
    kernel, record = op.kernels["update"], np.zeros(1, INSTRUCTION)
    # Its random stream is none of a layer's: layers count from 0, updates from the other end.
    stream = random.stream_of(random.NOISE, random.STREAMS_PER_KIND - 1 - row)
    fill(record[0], kernel, dtype, [places[n] for n in kernel.tensors], list(sizes), [], stream)
    record["group"] = row
    return record
