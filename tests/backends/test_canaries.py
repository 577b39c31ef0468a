"""Every C kernel at every length and every address modulo 64: it leaves alone what is not its output, and
its results have the same bits wherever the tensors lie, at every level with FMA, on any team."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any

import gradcheck
import numpy as np
import pytest
from engines import backends, fma_levels
from onecall import TEAM, Call, compare, same_bits, tensors_for, variants

from fastnet.backends import registry
from fastnet.op import KERNELS, Array, Kernel

if "c" not in backends():
    pytest.skip("not of the backends to be tested", allow_module_level=True)

C: Any = registry.get("c")
LENGTHS = range(258)
A_FEW = (0, 1, 7, 16, 17, 33, 257)


@pytest.fixture(autouse=True)
def _level_as_before() -> Iterator[None]:
    before = C.level()
    yield
    C.set_level(before)


def sizes_of_length(kernel: Kernel, n: int) -> Iterator[tuple[int, dict[str, int]]]:
    """Rows and dims, one of which is n; the others are small, or just beyond what vectors take."""
    dims = kernel.op.dims[:2]
    if kernel.phase == "update":
        for small in ((n,),) if len(dims) == 1 else ((n, 5), (34, n)) if n else ((n, 5),):
            yield 1, gradcheck.named(kernel.op, small, 1)
        return
    for others in {0: ((),), 1: ((3,),), 2: ((3, 5), (17, 34))}[len(dims)]:
        yield n, gradcheck.named(kernel.op, others, n)
        for k, name in enumerate(dims):
            if n:
                rows = others[k]
                yield rows, gradcheck.with_length(kernel.op, reversed(others), rows, name, n)


def shifts(dtype: str) -> list[tuple[int, ...]]:
    """Where tensors begin, in elements after a multiple of 64 bytes: each of them comes everywhere, and
    at many distances from the others."""
    places = 64 // np.dtype(dtype).itemsize
    return [tuple(s * (2 * k + 1) % places for k in range(12)) for s in range(1, places)]


def check(
    kernel: Kernel,
    dtype: str,
    lengths: Iterable[int],
    shifts: Iterator[Sequence[int]],
    few: int,
    many: int,
) -> None:
    """At each length: on aligned tensors as the reference; then at the next `many` shifts (`few` for
    all but the first variant) and on a team the same bits."""
    covered = fma_levels()
    for n in lengths:
        todo = list(ways_at(kernel, dtype, n, shifts, few, many))
        found: dict[tuple[int, int], Mapping[str, Array]] = {}
        for level in range(len(C.levels())):
            C.set_level(level)
            promise = -1 if level in covered else level  # those that are to be equal
            for k, (first, *others) in enumerate(todo):
                if (promise, k) not in found:
                    # Of so many draws some cancel; test_agreement.py is the one for accuracy.
                    found[promise, k] = compare(first, C, 4 * first.tolerance())
                for way in (first, *others):
                    same_bits(way, C, found[promise, k])


def ways_at(
    kernel: Kernel, dtype: str, n: int, shifts: Iterator[Sequence[int]], few: int, many: int
) -> Iterator[list[Call]]:
    """At the sizes of one length, for each variant the calls whose results are to be equal."""
    for rows, sizes in sizes_of_length(kernel, n):
        if rows < gradcheck.MIN_ROWS.get(kernel.op.name, 0):
            continue
        for i, variant in enumerate(variants(kernel)):
            tensors = tensors_for(kernel, dtype, rows, sizes, variant["absent"])
            call = partial(Call, kernel, dtype, rows, sizes, tensors, **variant)
            ways = [call(), call(threads=TEAM)]
            ways += [call(shift=s) for s in islice(shifts, many if i == 0 else few)]
            if kernel.op.inplace:
                ways += [call(shift=s, inplace=True) for s in islice(shifts, few)]
            yield ways


@pytest.mark.contract
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", KERNELS)
def test_a_few_lengths(name, dtype):
    check(KERNELS[name], dtype, A_FEW, cycle(shifts(dtype)), few=1, many=2)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", KERNELS)
def test_every_length_at_every_shift(name, dtype):
    every = shifts(dtype)
    check(KERNELS[name], dtype, LENGTHS, cycle(every), few=2, many=len(every))
