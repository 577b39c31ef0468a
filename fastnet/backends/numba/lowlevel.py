"""Low-level operations of jitted code: addresses, fields of records, bits of floats.

Those that kernels use have a plain Python version, which replaces them under NUMBA_DISABLE_JIT=1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config
from numba import types as numba_types
from numba.core import cgutils as numba_cgutils
from numba.extending import intrinsic as numba_intrinsic
from numba.np import arrayobj as numba_arrayobj
from numba.np.numpy_support import from_dtype

# Numba has types in parts only; the names used here have none.
types: Any = numba_types
cgutils: Any = numba_cgutils
intrinsic: Any = numba_intrinsic
populate_array: Any = numba_arrayobj.populate_array

PLAIN = bool(getattr(config, "DISABLE_JIT", 0))


def native(plain: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Make an intrinsic of the decorated typing function, or use `plain` if nothing is jitted."""
    return lambda typing: plain if PLAIN else intrinsic(typing)


def build_array(context: Any, builder: Any, kind: Any, data: Any, shape: Sequence[Any]) -> Any:
    """Emit a C-contiguous array of type `kind` at the pointer `data`, without ownership."""
    array = context.make_array(kind)(context, builder)
    item = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    stride = context.get_constant(types.intp, item)
    strides = [stride]
    for size in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], size))
    populate_array(
        array,
        data=builder.bitcast(data, context.get_data_type(kind.dtype).as_pointer()),
        shape=shape,
        strides=strides,
        itemsize=stride,
        meminfo=None,
    )
    return array._getvalue()


def load(builder: Any, native_type: ir.Type, address: Any, offset: Any = 0) -> Any:
    """Emit a load from an integer address plus an offset in bytes."""
    if offset:
        address = builder.add(address, ir.Constant(address.type, offset))
    return builder.load(builder.inttoptr(address, native_type.as_pointer()))


# For kernels.


@native(lambda array: array.reshape(-1))
def flat(typingctx: Any, array: Any) -> Any:
    """The same elements as a one-dimensional array."""
    kind = types.Array(array.dtype, 1, "C")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given = context.make_array(array)(context, builder, args[0])
        return build_array(context, builder, kind, given.data, [given.nitems])

    return kind(array), codegen


@native(lambda array, begin, size: array.reshape(-1)[begin : begin + size])
def window(typingctx: Any, array: Any, begin: Any, size: Any) -> Any:
    """The `size` elements of the array that begin with the `begin`-th, counted row by row.

    LLVM recognises that an index into a window is not negative, and can then vectorise.
    """
    kind = types.Array(array.dtype, 1, "C")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given = context.make_array(array)(context, builder, args[0])
        return build_array(context, builder, kind, builder.gep(given.data, [args[1]]), [args[2]])

    return kind(array, types.int64, types.int64), codegen


def _copy(into: Any, source: Any) -> None:
    if into.size:
        np.copyto(into, source)


@native(_copy)
def copy(typingctx: Any, into: Any, source: Any) -> Any:
    """Copy source to into, of the same shape and dtype, unless into is absent or is source itself."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = context.make_array(into)(context, builder, args[0])
        of = context.make_array(source)(context, builder, args[1])
        with builder.if_then(builder.icmp_unsigned("!=", to.data, of.data)):
            cgutils.raw_memcpy(builder, to.data, of.data, to.nitems, to.itemsize)
        return context.get_dummy_value()

    return types.void(into, source), codegen


LOCAL = 64  # elements of a local array
LANES = 16  # elements that are computed side by side


@native(lambda like: np.empty(LOCAL, like.dtype))
def local(typingctx: Any, like: Any) -> Any:
    """LOCAL elements on the stack, of the dtype of `like`."""
    kind = types.Array(like.dtype, 1, "C")
    return kind(like), _on_the_stack(kind)


@native(lambda: np.empty(LOCAL, np.float64))
def local_doubles(typingctx: Any) -> Any:
    """LOCAL float64 elements on the stack."""
    kind = types.Array(types.float64, 1, "C")
    return kind(), _on_the_stack(kind)


ROWS = 128  # of a local table


@native(lambda like: np.empty(ROWS * LANES, like.dtype))
def local_rows(typingctx: Any, like: Any) -> Any:
    """ROWS rows of LANES elements on the stack, of the dtype of `like`."""
    kind = types.Array(like.dtype, 1, "C")
    return kind(like), _on_the_stack(kind, ROWS * LANES)


def _on_the_stack(kind: Any, count: int = LOCAL) -> Callable[..., Any]:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = ir.ArrayType(context.get_data_type(kind.dtype), count)
        data = cgutils.alloca_once(builder, block)
        size = context.get_constant(types.intp, count)
        return build_array(context, builder, kind, data, [size])

    return codegen


_BITS = {
    types.float32: types.int32,
    types.float64: types.int64,
    types.int32: types.float32,
    types.int64: types.float64,
}


@native(lambda x: x.view(x.dtype.str.translate(str.maketrans("if", "fi"))))
def bits(typingctx: Any, x: Any) -> Any:
    """The integer with the bits of a float, or the float with the bits of an integer."""
    to = _BITS[x]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(to))

    return to(x), codegen


# For the loops, which never run as plain Python.


def reader(record: np.dtype[Any]) -> Any:
    """An intrinsic get(address, "field") for scalar fields of a record."""

    @intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
    def get(typingctx: Any, address: Any, name: Any) -> Any:
        dtype, offset = record.fields[name.literal_value][:2]  # type: ignore[index]
        kind = from_dtype(dtype)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return load(builder, context.get_data_type(kind), args[0], offset)

        return kind(types.int64, name), codegen

    return get


def writer(record: np.dtype[Any]) -> Any:
    """An intrinsic put(address, "field", value) for scalar fields of a record."""

    @intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
    def put(typingctx: Any, address: Any, name: Any, value: Any) -> Any:
        dtype, offset = record.fields[name.literal_value][:2]  # type: ignore[index]
        kind = from_dtype(dtype)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            into = builder.add(args[0], ir.Constant(args[0].type, offset))
            pointer = builder.inttoptr(into, context.get_data_type(kind).as_pointer())
            builder.store(args[2], pointer)
            return context.get_dummy_value()

        return types.void(types.int64, name, kind), codegen

    return put


@intrinsic  # type: ignore[untyped-decorator]
def call(typingctx: Any, entry: Any, arguments: Any) -> Any:
    """Call the compiled function at an address with a tuple of int64; it returns nothing."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words = cgutils.unpack_tuple(builder, args[1])
        function = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * len(words))
        builder.call(builder.inttoptr(args[0], function.as_pointer()), words)
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, len(arguments))), codegen


@intrinsic  # type: ignore[untyped-decorator]
def move(typingctx: Any, into: Any, source: Any, nbytes: Any) -> Any:
    """Copy bytes between addresses; the ranges must not overlap."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        to, of = (builder.inttoptr(a, byte) for a in args[:2])
        cgutils.raw_memcpy(builder, to, of, args[2], ir.Constant(args[2].type, 1))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def vector(typingctx: Any, address: Any, size: Any, dtype: Any) -> Any:
    """The array of `size` elements of `dtype` at an address."""
    kind = types.Array(dtype.dtype, 1, "C")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        return build_array(context, builder, kind, data, [args[1]])

    return kind(types.int64, types.int64, dtype), codegen
