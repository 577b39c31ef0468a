"""Runs plans through the native extension, whose interface is csrc/fastnet.h."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastnet.backends.base import Backend, Predict, no_kernel
from fastnet.backends.c.extension import extension, predict_module
from fastnet.errors import BackendUnavailable, HyperparameterError, check_int
from fastnet.op import KERNELS
from fastnet.plan.records import ABSENT

LEVEL_VARIABLE = "FASTNET_SIMD_LEVEL"
FINISHES_TILES = 2  # fn_finishing


class CBackend(Backend):
    """The fastest backend on a CPU; needs the extension `fastnet._native`, loaded when first used.

    Kernels exist for several levels of instruction sets; a program is prepared with those of the
    highest level that this machine runs, or of a lower one that FASTNET_SIMD_LEVEL or `set_level`
    asks for.
    """

    name = "c"

    def __init__(self) -> None:
        self._native: Native | None = None
        self._reason: str | None = None

    def reason(self) -> str | None:
        """None where the extension is there and fits this version of the package."""
        if self._native is None and self._reason is None:
            try:
                self._native = Native(extension(), predict_module())
            except ImportError as error:
                self._reason = str(error)
        return self._reason

    def kernels(self) -> Mapping[str, tuple[str, ...]]:
        """As the extension lists them."""
        return dict(self._loaded().tensors)

    def prepare(self, program: np.ndarray) -> None:
        """Fill in the addresses of the kernels for the level in force; fuse what can be.

        An elementwise kernel in place on what the kernel before it has just written is called by that
        one, piece by piece, while the piece is in cache. No bit changes.
        """
        entries = self._loaded().entries
        names = tuple(KERNELS)
        before, finishes = None, 0
        for instruction in program:
            if instruction["kernel"] < 0:
                before = None
                continue
            name, kind = names[instruction["kernel"]], int(instruction["dtype"])
            if (name, kind) not in entries:
                raise no_kernel(self.name, name, formula=KERNELS[name].formula is not None)
            entry = entries[name, kind]
            instruction["entry"] = entry.address
            if before is not None and entry.piece and _in_place(instruction, before):
                before["piece"] = entry.piece
                before["gates"] = entry.gates if finishes == FINISHES_TILES else 0
            before, finishes = (instruction if entry.finishes else None), entry.finishes

    def run(self, program: np.ndarray, context: np.ndarray) -> None:
        """One native call."""
        self.runner(program, context)()

    def runner(self, program: np.ndarray, context: np.ndarray) -> Callable[[], None]:
        """The native function, which finds its arguments by their addresses."""
        native = self._native or self._loaded()
        instructions = native.from_buffer("fn_instruction[]", program)
        whole = native.from_buffer("fn_context[]", context)
        return partial(native.fn_run, instructions, len(program), whole)

    def train(self, args: np.ndarray) -> None:
        """One native call, without the GIL."""
        native = self._native or self._loaded()
        native.fn_train(native.from_buffer("fn_train_args[]", args))

    def predictor(
        self, args: np.ndarray, x_row: tuple[int, ...], out_row: tuple[int, ...]
    ) -> Predict | None:
        """One native call a prediction, whatever its number of rows."""
        predict: Predict = self._loaded().predictor(args, np.ndarray, x_row, out_row)
        return predict

    def level(self) -> int:
        """The level of instruction sets that programs are prepared for."""
        return self._loaded().level

    def levels(self) -> tuple[str, ...]:
        """The names of the levels that this machine runs, from 0."""
        return self._loaded().levels

    def set_level(self, level: int) -> None:
        """Prepare programs for another level from now on; those prepared before keep theirs."""
        self._loaded().set_level("level", level)

    def _loaded(self) -> Native:
        reason = self.reason()
        if self._native is None:
            raise BackendUnavailable(f"backend 'c' cannot run: {reason}")
        return self._native


def _in_place(instruction: Any, before: Any) -> bool:
    """Whether the main input and the output are the first tensor of the instruction before."""
    places = [
        (int(i["segment"][n]), int(i["offset"][n]))
        for i, n in ((instruction, 0), (instruction, 1), (before, 0))
    ]
    return len(set(places)) == 1 and places[0][0] != ABSENT


@dataclass(frozen=True)
class Entry:
    """A kernel at one level: its address, that of its form for pieces (0: none), how it hands pieces on."""

    address: int
    piece: int
    finishes: int  # fn_finishing
    gates: int  # which rectifier it is, where tiles do it in registers


class Native:
    """The loaded extension: its functions, its kernels, and the level of instruction sets chosen."""

    def __init__(self, module: Any, predict: Any) -> None:
        ffi, lib = module.ffi, module.lib
        self.from_buffer = ffi.from_buffer
        self.fn_run, self.fn_train = lib.fn_run, lib.fn_train
        self.predictor = predict.predictor
        self.tensors: dict[str, tuple[str, ...]] = {}
        self._all: dict[tuple[str, int], dict[int, Entry]] = {}  # by name and KIND: by level
        info = ffi.new("fn_kernel_info *")
        for i in range(lib.fn_kernel_count()):
            lib.fn_kernel_at(i, info)
            name = ffi.string(info.name).decode()
            self.tensors[name] = tuple(ffi.string(info.tensors).decode().split(", "))
            entry = Entry(info.entry, info.piece, info.finishes, info.gates)
            self._all.setdefault((name, info.dtype), {})[info.level] = entry
        top = lib.fn_machine_level()
        self.levels = tuple(ffi.string(lib.fn_level_name(i)).decode() for i in range(top + 1))
        self.set_level(LEVEL_VARIABLE, level_wanted(top))

    def set_level(self, name: str, level: int) -> None:
        """For each kernel choose the entry of the highest level up to this one."""
        self.level = check_int(name, level, low=0, high=len(self.levels) - 1)
        self.entries = {
            key: by_level[max(n for n in by_level if n <= self.level)]
            for key, by_level in self._all.items()
        }


def level_wanted(top: int) -> int:
    """The level that the environment asks for, or the highest of this machine."""
    text = os.environ.get(LEVEL_VARIABLE, "").strip()
    if not text:
        return top
    if not text.isdecimal():
        raise HyperparameterError(
            f"{LEVEL_VARIABLE} is {text!r}; expected an integer in [0, {top}]"
        )
    return int(text)
