"""Users' arrays on the device: read without a copy, checked there, and returned."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda import dlpack
from fastnet.backends.cuda.device import SIMULATOR, THREADS, blocks_for, cuda, kernel, launch
from fastnet.backends.cuda.failures import doing
from fastnet.backends.reference import view
from fastnet.data import arrays
from fastnet.errors import DataError, ShapeError
from fastnet.op import Array


def adopt(name: str, value: Any, *, writes: bool = False) -> Any:
    """A Numba device array over the memory of another library's array, without a copy."""
    if getattr(value, "__cuda_ndarray__", False):  # a Numba array
        if value.stream:
            with doing(f"reading {name}"):
                value.stream.synchronize()
        return value
    try:
        if not hasattr(value, "__cuda_array_interface__"):
            value = dlpack.View(value)
        interface = value.__cuda_array_interface__
    except Exception as error:  # of any library, such as PyTorch's for a tensor with a gradient
        why = str(error) or type(error).__name__
        raise DataError(f"{name} cannot be read on the device: {why}") from None
    if writes and interface["data"][1]:
        raise DataError(f"{name} is read-only")
    if interface.get("mask") is not None:
        raise DataError(f"{name} has a mask; expected an array without")
    if not SIMULATOR:
        with doing(f"reading {name}"):
            array = cuda.as_cuda_array(value)
            _check_device(name, array)
            return array
    if interface.get("strides") is not None:
        raise DataError(f"{name} is not contiguous; expected rows one after the other")
    return cuda.to_device(view(interface["data"][0], interface["shape"], interface["typestr"]))


def _check_device(name: str, array: Any) -> None:
    if not array.size:
        return
    ordinal = cuda.driver.binding.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    pointer = array.device_ctypes_pointer.value
    found = int(cuda.driver.driver.cuPointerGetAttribute(ordinal, pointer))
    if found != (current := cuda.get_current_device().id):
        raise DataError(
            f"{name} lies on device {found}; expected device {current}, the current one"
        )


@kernel
def _bad(values: Any, limit: Any, found: Any) -> None:
    for i in range(cuda.grid(1), values.size, cuda.gridsize(1)):
        if not abs(values[i]) <= limit:
            found[0] = 1  # all threads write the same value


def features(name: str, value: Any, shape: tuple[int, ...] | None, dtype: Any) -> Any:
    """Rows of numbers, checked on the device as `data.arrays.features` checks those of the host."""
    array = adopt(name, value)
    found = tuple(array.shape)
    arrays.check_rows(name, found, shape)
    if array.dtype not in arrays.SOURCE_DTYPES:
        raise DataError(
            f"{name} has dtype {array.dtype}; expected float32, float64 or uint8 on a device"
        )
    if not array.is_c_contiguous():
        raise DataError(f"{name} is not contiguous; pass a contiguous copy of it")
    if array.dtype.kind == "f" and array.size:
        flag = cuda.to_device(np.zeros(1, np.int32))
        flat, limit = array.reshape(array.size), float(np.finfo(dtype).max)
        with doing(f"checking {name}"):
            launch(_bad, blocks_for(array.size), THREADS, 0, flat, limit, flag)
            if flag.copy_to_host()[0]:
                raise DataError(
                    f"{name} holds values that are NaN, infinite or too large for {np.dtype(dtype)}"
                )
    return array


def check_out(name: str, value: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """A device array to write to, checked."""
    array = adopt(name, value, writes=True)
    if tuple(array.shape) != shape or array.dtype != dtype or not array.is_c_contiguous():
        raise ShapeError(
            f"{name} is {array.dtype} of shape {tuple(array.shape)} on a device; expected a contiguous "
            f"array of {np.dtype(dtype)} and shape {shape}"
        )
    return array


def host(name: str, value: Any) -> Array:
    """A copy in the host's memory."""
    array = adopt(name, value)
    with doing(f"reading {name}"):
        found: Array = array.copy_to_host()
    return found


def matrix(array: Any) -> Any:
    """A view of a contiguous device array as a matrix of its rows."""
    return array.reshape(array.shape[0], math.prod(array.shape[1:]))
