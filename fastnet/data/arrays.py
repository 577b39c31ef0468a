"""Arrays of users: which of them are data, and the checks that all entry points share."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.errors import DataError, ShapeError
from fastnet.op import Array

# Input dtypes that steps read directly; arrays of others are converted first.
SOURCE_DTYPES = (np.dtype("float32"), np.dtype("float64"), np.dtype("uint8"))

ANY_ROWS = ()  # in place of a row's shape: rows of any shape

NUMBERS = "fiub"  # dtype kinds of numbers
_BLOCK = (
    1 << 16
)  # values that are looked at together: few enough to be in a cache for a second look
_DLPACK_CUDA = 2  # DLPack's number for CUDA devices


def on_device(value: Any) -> bool:
    """Whether an array lies in the memory of a CUDA device."""
    if type(value) is np.ndarray or value is None:
        return False
    try:
        if hasattr(value, "__cuda_array_interface__") or hasattr(value, "__cuda_ndarray__"):
            return True
    except RuntimeError:  # PyTorch's, for a tensor that requires a gradient
        return True
    try:
        return bool(value.__dlpack_device__()[0] == _DLPACK_CUDA)
    except Exception:  # no device, or an unknown one: reading the array tells
        return False


def as_array(name: str, value: Any) -> Array:
    """`value` as an ndarray, without a copy where it has `__array__`, `__dlpack__` or a buffer."""
    # Without np.ma, which NumPy imports at its first use: in the child of a fork that could deadlock.
    if isinstance(value, np.ndarray) and np.any(getattr(value, "mask", False)):
        raise DataError(f"{name} is a masked array with masked values; fill them or leave them out")
    if on_device(value):
        raise DataError(
            f"{name} lies on a CUDA device; expected an array in the host's memory here, such as "
            f"tensor.cpu() or cupy.asnumpy(array)"
        )
    if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(f"{name} cannot be read by DLPack: {error}") from None
    of = name.rpartition(" ")[2]  # "X" for "validation X"
    if hasattr(value, "toarray"):
        raise DataError(
            f"{name} is a sparse {type(value).__name__}; expected a dense array: pass {of}.toarray()"
        )
    if hasattr(value, "collect_schema") and hasattr(value, "collect"):  # a lazy frame of polars
        raise DataError(
            f"{name} is a {type(value).__name__}; expected its values: pass {of}.collect()"
        )
    columns = _columns(value)
    if columns is not None:
        parts = [numbers(f"column {label!r} of {name}", column) for label, column in columns]
        return np.column_stack(parts) if parts else np.empty((len(value), 0))
    if _missing(value):
        raise DataError(
            f"{name} has dtype {_dtype(value)} and missing values, which are NaN; fill them or leave "
            "their rows out"
        )
    try:
        return np.asarray(value, value.dtype.numpy_dtype if _nullable(value) else None)
    except ValueError as error:
        raise DataError(f"{name} is not a rectangular array: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # a library's own exception
        raise DataError(f"{name} cannot be read as an array: {error}") from None


def numbers(name: str, value: Any) -> Array:
    """`value` as an ndarray of numbers."""
    array = as_array(name, value)
    if array.dtype.kind not in NUMBERS:
        raise DataError(f"{name} has dtype {_dtype(value)}; expected numbers{_remedy(value)}")
    return array


def _columns(value: Any) -> list[tuple[Any, Any]] | None:
    """The columns of a data frame with their labels; None where NumPy can read it as numbers."""
    if type(value) is np.ndarray:
        return None
    if hasattr(value, "column_names") and hasattr(value, "schema"):  # a table of pyarrow
        return list(zip(value.column_names, value.columns, strict=True))
    if not (hasattr(value, "columns") and hasattr(value, "dtypes")):
        return None
    if hasattr(value, "iter_columns"):  # a frame of polars
        return list(zip(value.columns, value.iter_columns(), strict=True))
    if all(isinstance(dtype, np.dtype) and dtype.kind in "fiu" for dtype in value.dtypes):
        return None
    return list(value.items())


def _nullable(value: Any) -> bool:
    """Whether this is a series with one of pandas' own number dtypes."""
    dtype = getattr(value, "dtype", None)
    return hasattr(dtype, "numpy_dtype") and getattr(dtype, "kind", "O") in NUMBERS


def _missing(value: Any) -> bool:
    """Whether a series has missing values."""
    if _nullable(value):
        return bool(value.isna().any())
    count = getattr(value, "null_count", 0)  # a number in pyarrow, a method in polars
    return bool(count() if callable(count) else count)


def _dtype(value: Any) -> Any:
    """The dtype of a series in its library's terms, else NumPy's."""
    own = getattr(value, "dtype", getattr(value, "type", None))
    return np.asarray(value).dtype if own is None else own


def _remedy(value: Any) -> str:
    """The end of an error message: how to convert a series to numbers."""
    if type(value) is np.ndarray:
        return ""
    if hasattr(value, "astype"):
        return (
            ": convert it with astype('float32'), or categories with pandas.get_dummies, "
            "or leave it out"
        )
    if hasattr(value, "cast"):
        return ": convert it with cast, or categories to one column each, or leave it out"
    return ""


def features(
    name: str, value: Any, shape: tuple[int, ...] | None, dtype: Any, *, finite: bool = True
) -> Array:
    """Rows of numbers, C-contiguous and aligned, of a dtype in SOURCE_DTYPES.

    shape: expected shape of one row (None: any number of features; ANY_ROWS: any).
    dtype: the model's, in which every value must be finite.
    """
    array = numbers(name, value)
    check_rows(name, array.shape, shape)
    if array.dtype not in SOURCE_DTYPES or not array.dtype.isnative:
        with np.errstate(all="ignore"):  # check_finite refuses values that overflow
            array = array.astype(dtype)
    if finite:
        check_finite(name, array, dtype)
    return np.require(array, requirements=["C", "A"])


def check_rows(name: str, found: tuple[int, ...], shape: tuple[int, ...] | None) -> None:
    """Raise ShapeError where these are no rows of that shape, which is as for `features`."""
    fits = len(found) == 2 if shape is None else len(found) > 1 and found[1:] == shape
    if not (fits or (shape == ANY_ROWS and len(found) > 1)):
        wanted = "(n, features)" if shape is None else f"({', '.join(map(str, ('n', *shape)))})"
        if shape == ANY_ROWS:
            wanted = "(n, ...)"
        one = shape and found == shape
        remedy = f"; for a single row pass {name}[None]" if one else ""
        raise ShapeError(f"{name} has shape {found}, expected {wanted}{remedy}")


def floats(name: str, value: Any, shape: tuple[int, ...] | None = None) -> Array:
    """Rows of numbers for a layer or loss outside a model: float64, else float32."""
    array = features(name, value, shape, np.float32, finite=False)
    return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)


def check_finite(name: str, array: Array, dtype: Any, minus_infinity: bool = False) -> None:
    """Raise DataError where a value is NaN or infinite, or becomes infinite in `dtype`.

    minus_infinity: allow −∞.
    """
    if array.dtype.kind != "f" or not array.size:
        return
    limit = float(np.finfo(dtype).max)
    lowest = -np.inf if minus_infinity else -limit
    if lies_within(array, lowest, limit):
        return
    count, first, begin = 0, -1, 0
    # In blocks, so that refusing a large array needs no copy of it.
    blocks: Any = np.nditer(array, ["external_loop", "buffered"], order="C", buffersize=_BLOCK)
    for block in blocks:
        bad = ~((lowest <= block) & (block <= np.float64(limit)))
        if not count and bad.any():
            first = begin + int(bad.argmax())
        count, begin = count + int(bad.sum()), begin + block.size
    where = tuple(int(i) for i in np.unravel_index(first, array.shape))
    raise DataError(
        f"{name} holds {count} values that are NaN, infinite or too large for "
        f"{np.dtype(dtype)}; the first is {array[where]} at index {where}"
    )


def lies_within(array: Array, lowest: float, limit: float) -> bool:
    """Whether all values of an array are in an interval, and so none is NaN.

    Goes through it once, block by block, because it may be a file that is larger than the memory.
    """
    if array.size <= _BLOCK or not array.ndim:
        # Without a temporary: minimum and maximum propagate NaN and infinity.
        return not array.size or (lowest <= float(array.min()) and float(array.max()) <= limit)
    rows = max(1, _BLOCK * len(array) // array.size)
    blocks = (array[begin : begin + rows] for begin in range(0, len(array), rows))
    return all(lowest <= float(b.min()) and float(b.max()) <= limit for b in blocks)


def check_lengths(x_name: str, x: Any, y_name: str, y: Array) -> None:
    """Raise ShapeError where inputs and targets differ in rows, DataError where there are no rows."""
    if len(x) != len(y):
        raise ShapeError(f"{x_name} has {len(x)} rows and {y_name} has {len(y)}; expected as many")
    if not len(x):
        raise DataError(f"{x_name} and {y_name} are empty; expected at least one row")


def weights(name: str, value: Any, count: int, dtype: Any) -> Array:
    """A new array of `count` weights ≥ 0, finite, of a dtype."""
    array = numbers(name, value)
    if array.shape != (count,):
        raise ShapeError(f"{name} has shape {array.shape}, expected ({count},)")
    check_finite(name, array, dtype)
    if array.size and array.min() < 0:
        raise DataError(f"{name} holds {array.min()}; expected weights of at least 0")
    return np.array(array, dtype)
