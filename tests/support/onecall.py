"""One kernel through a backend's own programs: a one-instruction program on tensors between guards."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, cycle, product
from typing import Any

import gradcheck
import numpy as np
from engines import Engine, title
from gradcheck import COUNTER, NUMBERS, accumulates, dtype_of, shape_of, written

from fastnet.backends.base import Backend
from fastnet.op import KERNELS, ROWS, Array, Kernel
from fastnet.plan.records import (
    ABSENT,
    CONTEXT,
    INSTRUCTION,
    KIND,
    SCRATCH,
    SEGMENTS,
    zeros_aligned,
)

GUARD = 64  # bytes around each tensor; all ones, so that a float read or left there is NaN
POISON, UNPOISON = (
    getattr(ctypes.CDLL(None), f"__asan_{name}_memory_region", None)
    for name in ("poison", "unpoison")
)  # None where there is no address sanitizer
TEAM = 3  # the most threads that a call is shared among
SCRATCH_MEMORY = zeros_aligned(GUARD + TEAM * SCRATCH + GUARD)
SCRATCH_MEMORY.fill(255)
CHAINS = {  # products of products, or sums, by kernel
    "newton_schulz_update": 3,
    "yellowfin_tune_update": 8,
    "learned_update": 3,
    "past_products_update": 1,
}
FACTORS = {  # of the terms of sums that may cancel
    "transposed_linear_forward": ("x", "w"),
    "hierarchical_nll_forward": ("x", "w"),
    "hierarchical_nll_vjp": ("drow_loss", "d", "x"),
}
GROUP, GROUPS = 1, 3  # an update's row of hyper, among others that are NaN


class Call:
    """One kernel with its operands: run on a backend, and in float64 by the reference kernel.

    `tensors`: those that exist, by name; what the kernel writes may be missing, and is absent only
    if it is in `absent`. `accumulate`: gradients of parameters start from random numbers, which
    must be added to. `inplace`: the first tensor (an output) lies on the second. `shift`: tensors
    start that many elements (one number for all, or one for each, over and over) after an address
    that is a multiple of 64, modulo 64 bytes. Tensors are spread over all segments, whatever their
    names. `threads`: how many may share the work.
    """

    def __init__(
        self,
        kernel: Kernel,
        dtype: str,
        rows: int,
        sizes: Mapping[str, int],
        tensors: Mapping[str, Array],
        *,
        absent: tuple[str, ...] = (),
        accumulate: bool = False,
        inplace: bool = False,
        shift: int | Sequence[int] = 0,
        threads: int = 1,
    ) -> None:
        self.kernel, self.dtype, self.absent = kernel, dtype, absent
        self.sizes = {**sizes, ROWS: rows}
        self.given = {n: a for n, a in tensors.items() if n in kernel.tensors and n not in absent}
        self.into: dict[str, Array] | None = None
        if accumulate:
            random = np.random.default_rng(1)
            shapes = {n: shape_of(kernel.op, n, rows, sizes) for n in written(kernel)}
            self.into = {n: gradcheck.normal(random, s, dtype) for n, s in shapes.items()}
        self._lay_out(rows, sizes, (shift,) if isinstance(shift, int) else shift, inplace)
        self._encode(rows, sizes)
        self._expected: dict[str, Array] | None = None
        self.context["threads"] = threads

    def _lay_out(
        self, rows: int, sizes: Mapping[str, int], shifts: Sequence[int], inplace: bool
    ) -> None:
        op, end = self.kernel.op, GUARD
        self.spans: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}
        for name, shift in zip(self.kernel.tensors, cycle(shifts), strict=False):
            if name in self.absent or (name not in self.given and name not in written(self.kernel)):
                continue
            dtype = np.dtype(dtype_of(op, name, self.dtype))
            shape = shape_of(op, name, rows, sizes)
            self.spans[name] = (end + shift * dtype.itemsize % 64, shape, dtype)
            end += -(-_bytes(shape, dtype) // 64) * 64 + 64 + GUARD
        if inplace and self.kernel.tensors[0] not in self.absent:
            first, second = self.kernel.tensors[:2]
            self.spans[first] = self.spans[second]
        self.memory = zeros_aligned(end)
        self.memory.fill(255)
        for name in self.spans:
            if name in self.given:
                self.view(name)[...] = self.given[name]
            elif self.into is not None and accumulates(self.kernel, name):
                self.view(name)[...] = self.into[name]

    def _encode(self, rows: int, sizes: Mapping[str, int]) -> None:
        op = self.kernel.op
        self.program, self.context = np.zeros(1, INSTRUCTION), np.zeros(1, CONTEXT)
        i, c = self.program[0], self.context[0]
        i["kernel"] = list(KERNELS).index(self.kernel.name)
        i["dtype"], i["stream"], i["group"] = KIND[self.dtype], COUNTER["stream"], GROUP
        i["size"][: len(op.dims)] = [sizes[d] for d in op.dims]
        i["scalar"][: len(op.scalars)] = [NUMBERS[s] for s in op.scalars]
        i["segment"] = ABSENT
        for k, name in enumerate(self.kernel.tensors):
            segment = k % len(SEGMENTS)
            c["segment"][segment] = self.memory.ctypes.data + 16 * segment
            if name in self.spans:
                i["segment"][k] = segment
                i["offset"][k] = self.spans[name][0] - 16 * segment
        self.hyper = np.full((GROUPS, len(op.hyper)), np.nan)
        self.hyper[GROUP] = [NUMBERS[h] for h in op.hyper]
        c["hyper"], c["hyper_size"] = self.hyper.ctypes.data, len(op.hyper)
        c["rows"], c["accumulate"] = rows, self.into is not None
        c["seed"], c["step"] = COUNTER["seed"], COUNTER["step"]
        c["scratch"], c["threads"] = SCRATCH_MEMORY.ctypes.data + GUARD, 1

    def __str__(self) -> str:
        """For messages: the kernel, its dtype, and its tensors' shapes and addresses modulo 64."""
        where = {n: (shape, begin % 64) for n, (begin, shape, _) in self.spans.items()}
        return f"{self.kernel.name}, {self.dtype}, {where}"

    def view(self, name: str, memory: Array | None = None) -> Array:
        """A tensor where it lies in memory, or in a copy of it."""
        begin, shape, dtype = self.spans[name]
        part = (self.memory if memory is None else memory)[begin : begin + _bytes(shape, dtype)]
        return part.view(dtype).reshape(shape)

    def run(self, backend: Backend) -> dict[str, Array]:
        """What the backend's kernel writes; nothing else in memory may change, and that is undone."""
        before = self.memory.copy()
        backend.prepare(self.program)
        with self._fenced():
            backend.run(self.program, self.context)
        result = {n: self.view(n).copy() for n in written(self.kernel) if n in self.spans}
        for name in result:
            self.view(name)[...] = self.view(name, before)
        if not np.array_equal(self.memory, before):
            changed = np.flatnonzero(self.memory != before)
            self.memory[...] = before
            raise AssertionError(
                f"{title(backend)}: {self} wrote outside its outputs: {changed[:5]}"
            )
        guards = SCRATCH_MEMORY[:GUARD], SCRATCH_MEMORY[-GUARD:]
        assert np.all(np.concatenate(guards) == 255), (
            f"{title(backend)}: {self} left its scratch memory"
        )
        return result

    @contextmanager
    def _fenced(self) -> Iterator[None]:
        """Under the address sanitizer, what reads or writes a guard ends the process with a report."""
        if POISON is None:
            yield
            return
        tensors = {(b, b + _bytes(shape, dtype)) for b, shape, dtype in self.spans.values()}
        ends = [0, *chain.from_iterable(sorted(tensors)), self.memory.nbytes]
        guards = [
            (self.memory.ctypes.data + b, e - b) for b, e in zip(ends[::2], ends[1::2], strict=True)
        ]
        for begin, size in guards:
            POISON(ctypes.c_void_p(begin), ctypes.c_size_t(size))
        yield
        for begin, size in guards:
            UNPOISON(ctypes.c_void_p(begin), ctypes.c_size_t(size))

    def expected(self) -> dict[str, Array]:
        """What the reference kernel makes of the same operands in float64."""
        if self._expected is None:
            self._expected = gradcheck.evaluate(
                self.kernel, self.given, into=self.into, absent=self.absent, sizes=self.sizes
            )
        return self._expected

    def tolerance(self) -> float:
        """How far a result may be off, relative to the largest number it is made of.

        A few roundings, and one for each square root of the number of terms of the longest sum, and
        that for each product of a chain.
        """
        chain = CHAINS.get(self.kernel.name, 0)
        terms = 1 if self.kernel.phase == "update" and not chain else max(self.sizes.values())
        return 4 * max(1, chain) * float(np.finfo(self.dtype).eps / 2) * (1 + terms**0.5)


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * dtype.itemsize


def compare(call: Call, backend: Backend, tol: float) -> dict[str, Array]:
    """Assert that a backend's results are the reference's, to `tol` of each tensor's largest number.

    Returns them."""
    expected, got = call.expected(), call.run(backend)
    assert got.keys() == expected.keys()
    for name, want in expected.items():
        have = got[name]
        if have.dtype == np.int64:
            assert np.array_equal(have, want), _differ(call, backend, name, have, want)
            continue
        finite = np.array_equal(np.isfinite(have), np.isfinite(want))
        assert finite, _differ(call, backend, name, have, want)
        error = np.max(np.abs(have - want), initial=0.0)
        scale = magnitude(call, name, want)
        assert error <= tol * scale, (
            f"{title(backend)}: {call}: {name} is off by {error / scale:.1e} of its scale, {tol:.1e} "
            "is allowed"
        )
    return got


def same_bits(call: Call, backend: Backend, expected: Mapping[str, Array]) -> None:
    """Assert that a backend's results are these, to the bit."""
    got = call.run(backend)
    assert got.keys() == expected.keys()
    for name, want in expected.items():
        same = np.array_equal(got[name].view("u1"), want.view("u1"))
        assert same, _differ(call, backend, name, got[name], want)


def _differ(call: Call, backend: Backend, name: str, have: Array, want: Array) -> str:
    return f"{title(backend)}: {call}: {name} is {have}, not {want}"


def has(backend: Backend, kernel: Kernel) -> bool:
    """Whether a backend must have a kernel: some are for those that read lazy rows, or pack weights."""
    skips = kernel.op.lazy > backend.reads_rows or kernel.op.packs > backend.packs_weights
    return not skips or backend.name == "reference"


def agree(calls: Iterable[Call], engines: Iterable[Engine]) -> None:
    """Assert that all engines make of the operands of each call what the reference makes.

    An engine that is `like` another makes what that one makes, to the bit. Every engine comes to its
    first failure, and the message has them all.
    """
    made, failures = list(calls), []
    assert made
    results: dict[tuple[str, int | None], list[dict[str, Array]]] = {}
    for engine in engines:
        bits = iter(results[engine.name, engine.like] if engine.like is not None else ())
        done = results[engine.name, engine.level] = []
        with engine.running() as backend:
            try:
                for call in made if has(backend, made[0].kernel) else ():
                    if (expected := next(bits, None)) is not None:
                        same_bits(call, backend, expected)
                    else:
                        done.append(compare(call, backend, call.tolerance()))
            except AssertionError as error:
                failures.append(str(error))
    assert not failures, "\n".join(failures)


def magnitude(call: Call, name: str, want: Array) -> float:
    """The largest number that a result is made of: itself, or where a sum cancels dy or what it sums."""
    terms = gradcheck.SUMS_OF.get((call.kernel.op.name, name), "dy")
    parts = [call.given[n] for n in (terms, name) if n in call.given]
    found = float(max(np.max(np.abs(a), initial=0.0) for a in (want, *parts)))
    factors = [call.given[n] for n in FACTORS.get(call.kernel.name, ()) if n in call.given]
    if factors:
        found = max(found, math.prod(float(np.max(np.abs(a), initial=0.0)) for a in factors))
    return found


def tensors_for(
    kernel: Kernel, dtype: str, rows: int, sizes: Mapping[str, int], absent: tuple[str, ...] = ()
) -> dict[str, Array]:
    """Operands of a kernel at random."""
    make = gradcheck.vjp_operands if kernel.phase == "vjp" else gradcheck.operands
    return make(kernel.op, rows, sizes, dtype, absent)


def variants(kernel: Kernel) -> Iterator[dict[str, Any]]:
    """Options of Call: optional tensors absent, each gradient alone, accumulation; in combination."""
    op, gradients = kernel.op, written(kernel) if kernel.phase == "vjp" else ()
    missing = dict.fromkeys([(), op.optional])
    accumulate = (False, True) if "accumulate" in kernel.arguments else (False,)
    for gone, add in product(missing, accumulate):
        present = [g for g in gradients if g[1:] not in gone]
        unwanted = [()] + [tuple(set(present) - {one}) for one in present if len(present) > 1]
        for others in unwanted:
            yield {"absent": (*gone, *(f"d{n}" for n in gone), *others), "accumulate": add}


def calls(
    kernel: Kernel, dtype: str, rows: int, sizes: Mapping[str, int], **options: Any
) -> Iterator[Call]:
    """A kernel at one size in all its variants."""
    made: dict[frozenset[str], dict[str, Array]] = {}
    for variant in variants(kernel):
        gone = frozenset(variant["absent"]).intersection(kernel.op.optional)
        if gone not in made:
            made[gone] = tensors_for(kernel, dtype, rows, sizes, tuple(gone))
        yield Call(kernel, dtype, rows, sizes, made[gone], **variant, **options)


def calls_at(
    sizes: Iterable[tuple[int, tuple[int, ...]]], kernel: Kernel, dtype: str, **options: Any
) -> Iterator[Call]:
    """The same at all of these rows and dims, except where so few rows have no meaning."""
    for rows, dims in sizes:
        if rows >= gradcheck.MIN_ROWS.get(kernel.op.name, 0):
            named = gradcheck.named(kernel.op, dims, rows)
            yield from calls(kernel, dtype, rows, named, **options)
