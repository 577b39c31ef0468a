"""Entries: one native function entry(instruction, context) for each kernel and dtype.

An entry reads a kernel's arguments from the records at the two addresses, as the op declares, and calls it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cfunc
from numba.np.numpy_support import from_dtype

from fastnet.backends.numba.lowlevel import build_array, intrinsic, load, types
from fastnet.op import ROWS, Kernel, TensorSpec
from fastnet.plan.records import ABSENT, CONTEXT, INSTRUCTION

_WORD, _HALF, _DOUBLE = ir.IntType(64), ir.IntType(32), ir.DoubleType()


def _at(record: np.dtype[Any], field: str, index: int = 0) -> int:
    """The offset of a field, or of one element of an array field."""
    dtype, offset = record.fields[field][:2]  # type: ignore[index]
    return int(offset) + index * dtype.base.itemsize


class _Reader:
    """Emits the code that reads one kernel's arguments."""

    def __init__(self, kernel: Kernel, dtype: str) -> None:
        self.kernel, self.op, self.dtype = kernel, kernel.op, dtype

    def type_of(self, name: str) -> Any:
        """The Numba type of an argument."""
        spec = self.op.spec(name)
        if spec is not None:
            dtype = from_dtype(np.dtype(spec.dtype or self.dtype))
            return types.Array(dtype, len(spec.dims), "C")
        if name in self.op.scalars or name in self.op.hyper:
            return types.float64
        return types.uint64 if name in ("seed", "step") else types.int64

    def emit(self, name: str, context: Any, builder: Any, instruction: Any, run: Any) -> Any:
        """Emit the value of an argument."""
        spec = self.op.spec(name)
        if spec is not None:
            return self._tensor(name, spec, context, builder, instruction, run)
        if name in self.op.scalars:
            place = _at(INSTRUCTION, "scalar", self.op.scalars.index(name))
            return load(builder, _DOUBLE, instruction, place)
        if name in self.op.hyper:
            group = load(builder, _WORD, instruction, _at(INSTRUCTION, "group"))
            width = load(builder, _WORD, run, _at(CONTEXT, "hyper_size"))
            row = builder.mul(builder.mul(group, width), ir.Constant(_WORD, 8))
            base = builder.add(load(builder, _WORD, run, _at(CONTEXT, "hyper")), row)
            return load(builder, _DOUBLE, base, 8 * self.op.hyper.index(name))
        if name == "stream":
            return load(builder, _WORD, instruction, _at(INSTRUCTION, "stream"))
        value = load(builder, _WORD, run, _at(CONTEXT, name))
        if name == "accumulate":
            value = builder.or_(value, load(builder, _WORD, instruction, _at(INSTRUCTION, name)))
        return value

    def _size(self, word: str, builder: Any, instruction: Any) -> Any:
        if word.isdigit():
            return ir.Constant(_WORD, int(word))
        return load(builder, _WORD, instruction, _at(INSTRUCTION, "size", self.op.dims.index(word)))

    def _tensor(
        self, name: str, spec: TensorSpec, context: Any, builder: Any, instruction: Any, run: Any
    ) -> Any:
        place = self.kernel.tensors.index(name)
        zero = ir.Constant(_WORD, 0)
        number = load(builder, _HALF, instruction, _at(INSTRUCTION, "segment", place))
        given = builder.icmp_signed("!=", number, ir.Constant(_HALF, ABSENT))
        known = builder.select(given, number, ir.Constant(_HALF, 0))
        table = builder.add(run, ir.Constant(_WORD, _at(CONTEXT, "segment")))
        slot = builder.mul(builder.sext(known, _WORD), ir.Constant(_WORD, 8))
        base = load(builder, _WORD, builder.add(table, slot))
        given = builder.and_(given, builder.icmp_signed("!=", base, zero))
        offset = load(builder, _WORD, instruction, _at(INSTRUCTION, "offset", place))
        address = builder.select(given, builder.add(base, offset), zero)
        shape = []
        for dim in spec.dims:
            if dim == ROWS:
                more = load(builder, _WORD, instruction, _at(INSTRUCTION, "more_rows"))
                rows = load(builder, _WORD, run, _at(CONTEXT, "rows"))
                size = builder.mul(rows, builder.add(more, ir.Constant(_WORD, 1)))
            else:
                parts = (self._size(word, builder, instruction) for word in dim.split("+"))
                size = functools.reduce(builder.add, parts)
            shape.append(builder.select(given, size, zero))
        data = builder.inttoptr(address, ir.IntType(8).as_pointer())
        return build_array(context, builder, self.type_of(name), data, shape)


def compile_entry(kernel: Kernel, function: Any, dtype: str) -> Any:
    """Compile the jitted kernel `function` for a dtype, with its entry; returns the cfunc."""
    reader = _Reader(kernel, dtype)
    kinds = types.Tuple([reader.type_of(name) for name in kernel.arguments])

    @intrinsic  # type: ignore[untyped-decorator]
    def arguments(typingctx: Any, instruction: Any, run: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            found = [reader.emit(name, context, builder, *args) for name in kernel.arguments]
            return context.make_tuple(builder, kinds, found)

        return kinds(types.int64, types.int64), codegen

    def entry(instruction: int, run: int) -> None:
        function(*arguments(instruction, run))

    return cfunc(types.void(types.int64, types.int64))(entry)
