"""Device arrays that support only DLPack, with a `__cuda_array_interface__`."""

from __future__ import annotations

import ctypes
import weakref
from ctypes import POINTER, Structure, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64
from typing import Any

_DEVICES = (2, 13)  # kDLCUDA, kDLCUDAManaged
_STREAM = 1  # the legacy default stream, which our streams synchronise with
_MAJOR = 1  # the supported version of capsules, besides those without a version
_READ_ONLY = 1
_KINDS = {0: "i", 1: "u", 2: "f", 5: "c", 6: "b"}  # NumPy's letters by DLPack's dtype codes


class _Tensor(Structure):
    _fields_ = [
        ("data", c_uint64), ("device", c_int32), ("number", c_int32), ("ndim", c_int32),
        ("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16),
        ("shape", POINTER(c_int64)), ("strides", POINTER(c_int64)), ("byte_offset", c_uint64),
    ]  # fmt: skip


_Deleter = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)  # called with the GIL, as capsules call it


class _Managed(Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class _Versioned(Structure):
    _fields_ = [
        ("major", c_uint32), ("minor", c_uint32),
        ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
        ("flags", c_uint64), ("tensor", _Tensor),
    ]  # fmt: skip


_api = ctypes.pythonapi
_is = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_IsValid", _api)
)
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_SetName", _api)
)


class View:
    """The memory that an array has exported; released when the view dies."""

    def __init__(self, array: Any) -> None:
        try:
            capsule = array.__dlpack__(stream=_STREAM, max_version=(_MAJOR, 0))
        except TypeError:  # a library older than DLPack's versions
            capsule = array.__dlpack__(stream=_STREAM)
        kind: type[_Managed] | type[_Versioned] = _Versioned
        name, used = b"dltensor_versioned", b"used_dltensor_versioned"
        if not _is(capsule, name):
            kind, name, used = _Managed, b"dltensor", b"used_dltensor"
        address = _pointer(capsule, name)
        managed = kind.from_address(address)
        _rename(capsule, used)
        if managed.deleter:
            weakref.finalize(self, _Deleter(managed.deleter), address)
        if isinstance(managed, _Versioned) and managed.major != _MAJOR:
            raise BufferError(f"it speaks DLPack {managed.major}.{managed.minor}, not {_MAJOR}")
        read_only = isinstance(managed, _Versioned) and bool(managed.flags & _READ_ONLY)
        self.__cuda_array_interface__ = _interface(managed.tensor, read_only)


def _interface(tensor: Any, read_only: bool) -> dict[str, Any]:
    if tensor.device not in _DEVICES:
        raise BufferError(f"it lies on a device of type {tensor.device}, not on a CUDA device")
    if tensor.lanes != 1 or tensor.code not in _KINDS:
        raise BufferError(f"it has a dtype that NumPy lacks (code {tensor.code})")
    size = tensor.bits // 8
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(s * size for s in tensor.strides[: tensor.ndim]) if tensor.strides else None
    return {
        "data": (tensor.data + tensor.byte_offset, read_only),
        "shape": shape,
        "strides": None if strides is None or _contiguous(shape, strides, size) else strides,
        "typestr": f"{'|' if size == 1 else '<'}{_KINDS[tensor.code]}{size}",
        "version": 3,
    }


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> bool:
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length > 1 and stride != size:
            return False
        size *= length
    return True
