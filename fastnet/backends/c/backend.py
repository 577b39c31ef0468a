"""Runs plans through the native extension, whose interface is csrc/engine/fastnet.h."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from fastnet import parallel, random
from fastnet.backends import registry
from fastnet.backends.base import (
    Apply,
    Backend,
    Counter,
    Product,
    Result,
    Rows,
    Run,
    Step,
    Taken,
    no_kernel,
)
from fastnet.backends.c.extension import calls_module, extension
from fastnet.errors import BackendUnavailable, HyperparameterError, check_int
from fastnet.formulas.language import Formula
from fastnet.op import Array, Kernel
from fastnet.plan.instructions import kernel_at
from fastnet.plan.records import ABSENT, CONTROL, INSTRUCTION, KINDS

LEVEL_VARIABLE = "FASTNET_SIMD_LEVEL"
FUSES_TILES = 2  # fn_fusing
PROGRAMS = 256  # prepared programs that are kept
# Instructions for bfloat16, by level.
BFLOAT16 = {"x86-64-v4-bf16": "AVX512_BF16", "aarch64-bf16": "BFDOT"}


class Entry(NamedTuple):
    """A kernel at one level of instruction sets: addresses, and how it fuses with its neighbours."""

    address: int
    epilogue: int  # the address of its form as another kernel's epilogue, or 0
    fuses: int  # which epilogues it calls (fn_fusing)
    relu_mask: int  # which ReLU it is, where tiles apply it in registers (fn_relu_mask)


class Listed(NamedTuple):
    """A kernel of the extension, as its list has it."""

    name: str
    tensors: str
    dtype: int  # a KIND
    level: int
    entry: Entry


def listed(ffi: Any, lib: Any) -> list[Listed]:
    """The kernels of the extension, those of lower levels first."""
    table = ffi.new("fn_kernel_info[]", lib.fn_kernel_count())
    for i in range(len(table)):
        lib.fn_kernel_at(i, table + i)
    numbers = (
        memoryview(ffi.buffer(table)).cast("q").tolist()
    )  # each field of the struct has 8 bytes
    text = cache(lambda address: ffi.string(ffi.cast("char *", address)).decode())
    found = [
        Listed(text(name), text(tensors), dtype, level, Entry(*entry))
        for name, tensors, dtype, level, *entry in zip(*[iter(numbers)] * 8, strict=True)
    ]
    return sorted(found, key=attrgetter("level"))


class CBackend(Backend):
    """The fastest backend on a CPU; needs the extension `fastnet._native`, which it loads.

    Kernels exist for several levels of instruction sets. A program uses those of the highest level that
    this machine runs, or of a lower one that FASTNET_SIMD_LEVEL or `set_level` selects. Raises
    BackendUnavailable if the extension is missing or belongs to another version of the package.
    """

    name = "c"
    native_calls = joins = reads_rows = packs_weights = True

    def __init__(self) -> None:
        try:
            module, self._calls = extension(), calls_module()
        except ImportError as error:
            raise BackendUnavailable(str(error)) from None
        ffi, lib = module.ffi, module.lib
        self._from_buffer = ffi.from_buffer
        self._run, self._train, self._orders = lib.fn_run, lib.fn_train, lib.fn_orders
        self._train_many, self._draws = lib.fn_train_many, lib.fn_draws
        self._all = listed(ffi, lib)
        entries = lib.fn_foreign_entry(), lib.fn_foreign_epilogue()
        self._foreign_entry = Entry(*entries, fuses=0, relu_mask=0)
        top = lib.fn_machine_level()
        self._levels = tuple(ffi.string(lib.fn_level_name(i)).decode() for i in range(top + 1))
        self._choose(LEVEL_VARIABLE, level_wanted(top))
        self._prepared: dict[tuple[int, bytes], np.ndarray] = {}
        random.native = self._words64

    @property
    def bfloat16(self) -> str | None:
        """Those of the current level of instruction sets."""
        return BFLOAT16.get(self._levels[self._level])

    def kernels(self) -> Mapping[str, tuple[str, ...]]:
        """The kernels that the extension lists."""
        return {kernel.name: tuple(kernel.tensors.split(", ")) for kernel in self._all}

    def prepare(self, program: np.ndarray) -> None:
        """Set the kernels' addresses for the current level, and fuse instructions where possible.

        An elementwise kernel that works in place on the output of the kernel before it becomes that
        one's epilogue: it is called for each piece while the piece is in cache. Fusion changes no bits.
        Equal programs, as those of equal nets are, become so by a copy.
        """
        if not len(program):
            return
        # By bytes: NumPy copies records field by field.
        content = program.tobytes()
        prepared = self._prepared.get((self._level, content))
        if prepared is None:
            prepared = np.frombuffer(bytearray(content), INSTRUCTION)
            if self._prepare(prepared):
                if len(self._prepared) >= PROGRAMS:
                    self._prepared.clear()
                self._prepared[self._level, content] = prepared
        program.view(np.uint8)[:] = prepared.view(np.uint8)

    def _prepare(self, program: np.ndarray) -> bool:
        """Prepare a program; whether it has kernels of this build alone, which stay where they are."""
        own = True
        before, fuses = None, 0
        for instruction in program:
            if instruction["kernel"] < 0:
                before = None
                continue
            kernel, kind = kernel_at(int(instruction["kernel"])), int(instruction["dtype"])
            entry = self._entries.get((kernel.name, kind)) or self._foreign_entry
            if entry is self._foreign_entry:
                own = False
                instruction["foreign"] = self._foreign(kernel, kind)
                if not instruction["foreign"]:  # Python calls the reference's kernel
                    instruction["entry"] = 1 + instruction["kernel"]
                    instruction["kernel"], before = CONTROL["host"], None
                    continue
            instruction["entry"] = entry.address
            if before is not None and entry.epilogue and _in_place(instruction, before):
                before["epilogue"] = entry.epilogue
                before["relu_mask"] = entry.relu_mask if fuses == FUSES_TILES else 0
            before, fuses = (instruction if entry.fuses else None), entry.fuses
        return own

    def _foreign(self, kernel: Kernel, kind: int) -> int:
        """The address of an elementwise kernel that this build does not have; 0 without Numba."""
        formula = kernel.formula
        if type(formula) is not Formula or kernel.phase == "update" or formula.draws:
            raise no_kernel(self.name, kernel.name, formula=formula is not None)
        try:
            numba: Any = registry.get("numba")
        except BackendUnavailable:
            return 0
        return int(numba.range_of(kernel, KINDS[kind]))

    def run(self, program: np.ndarray, context: np.ndarray) -> None:
        """Make one native call."""
        self.runner(program, context)()

    def runner(self, program: np.ndarray, context: np.ndarray) -> Callable[[], None]:
        """The native function with its arguments by address."""
        instructions = self._from_buffer("fn_instruction[]", program)
        whole = self._from_buffer("fn_context[]", context)
        return partial(self._run, instructions, len(program), whole)

    def train(self, args: np.ndarray) -> None:
        """Make one native call, without the GIL."""
        self._train(self._from_buffer("fn_train_args[]", args))

    def train_epochs(
        self, args: np.ndarray, evaluation: np.ndarray, ended: Callable[[int], None]
    ) -> None:
        """Make one native call."""
        self.train(args)

    def train_many(self, many: Sequence[np.ndarray], seconds: float) -> Array:
        """Make one native call, without the GIL, on as many threads as the package may use."""
        nets, spent = np.array([args.ctypes.data for args in many], np.int64), np.zeros(len(many))
        self._train_many(
            self._from_buffer("int64_t[]", nets),
            len(nets),
            parallel.get_num_threads(),
            seconds,
            self._from_buffer("double[]", spent),
        )
        return spent

    def orders(self, count: int, seed: int, epoch: int, epochs: int) -> Array:
        """One native call."""
        orders, room = np.empty((epochs, count), np.int64), np.empty(count, np.uint64)
        if orders.size:
            given = seed, random.stream_of(random.SHUFFLE), epoch, epochs, count
            self._orders(
                *given,
                self._from_buffer("int64_t[]", orders),
                self._from_buffer("uint64_t[]", room),
            )
        return orders

    def _words64(self, count: int, seed: int, stream: int, step: int, first: int) -> Array:
        """`random.words64` in one native call."""
        drawn = np.empty(count, np.uint64)
        if count:
            self._draws(seed, stream, step, first, count, self._from_buffer("uint64_t[]", drawn))
        return drawn

    def apply_call(
        self,
        args: np.ndarray,
        x_row: tuple[int, ...],
        out_row: tuple[int, ...],
        kept: Any,
        counters: Sequence[Counter] = (),
    ) -> Apply | None:
        """A function of csrc/engine/calls.c."""
        counted = tuple(c.packed() for c in counters)
        made: Apply = self._calls.apply(args, np.ndarray, x_row, out_row, kept, counted)
        return made

    def step_call(
        self,
        args: np.ndarray,
        rows: Rows,
        numbers: int,
        kept: Any,
        counters: Sequence[Counter],
        result: Result | None = None,
    ) -> Step | None:
        """A function of csrc/engine/calls.c."""
        made: Step = self._calls.step(
            args,
            np.ndarray,
            (rows.x, rows.y, result.row if result else ()),
            kept,
            (tuple(c.packed() for c in counters), numbers),
            (rows.low, rows.high, rows.labels),
            (rows.least, rows.most, rows.to_share),
            (result.address, result.row_bytes) if result else (0, 0),
        )
        return made

    def update_call(
        self,
        context: np.ndarray,
        program: np.ndarray,
        table: Array,
        kept: Any,
        counters: Sequence[Counter],
    ) -> Run | None:
        """A function of csrc/engine/calls.c."""
        made: Run = self._calls.update(
            context,
            np.ndarray,
            (kept, program, table),
            (tuple(c.packed() for c in counters), len(table)),
            (program.ctypes.data, len(program), table.ctypes.data, table[0].nbytes),
        )
        return made

    def product_call(
        self,
        context: np.ndarray,
        programs: tuple[np.ndarray, np.ndarray],
        taken: Taken,
        kept: Any,
    ) -> Product | None:
        """A function of csrc/engine/directions.c."""
        rows = taken.rows
        made: Product = self._calls.product(
            context,
            np.ndarray,
            (kept, programs),
            tuple(n for program in programs for n in (program.ctypes.data, len(program))),
            (rows.x, rows.y, taken.y),
            (rows.least, rows.most, rows.to_share),
            (taken.dtype, int(taken.second), taken.classes, rows.low, rows.high),
            taken.room,
            taken.buffers,
            taken.gives,
            (tuple(p.packed() for p in taken.parameters), taken.nbytes),
        )
        return made

    def level(self) -> int:
        """The level of instruction sets for which programs are prepared."""
        return self._level

    def levels(self) -> tuple[str, ...]:
        """The names of the levels that this machine runs, in order from 0."""
        return self._levels

    def set_level(self, level: int) -> None:
        """Prepare programs for another level from now on; programs prepared before keep theirs."""
        self._choose("level", level)

    def _choose(self, name: str, level: int) -> None:
        """For each kernel select the entry of the highest level up to this one."""
        self._level = check_int(name, level, low=0, high=len(self._levels) - 1)
        self._entries = {
            (kernel.name, kernel.dtype): kernel.entry
            for kernel in self._all
            if kernel.level <= self._level
        }


def _in_place(instruction: Any, before: Any) -> bool:
    """Whether main input and output are the first tensor of the previous instruction."""
    places = [
        (int(i["segment"][n]), int(i["offset"][n]))
        for i, n in ((instruction, 0), (instruction, 1), (before, 0))
    ]
    return len(set(places)) == 1 and places[0][0] != ABSENT


def level_wanted(top: int) -> int:
    """The level that the environment selects, or the highest of this machine."""
    text = os.environ.get(LEVEL_VARIABLE, "").strip()
    if not text:
        return top
    if not text.isdecimal():
        raise HyperparameterError(
            f"{LEVEL_VARIABLE} is {text!r}; expected an integer in [0, {top}]"
        )
    return int(text)
