"""Sparse inputs: matrices in compressed rows (CSR), of SciPy or like them."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from fastnet.data import arrays
from fastnet.data.lazy import LazyRows
from fastnet.errors import DataError, ShapeError
from fastnet.op import Array

DENSE = 16  # one of so many numbers is not zero: a product of dense rows takes about as long
_BLOCK = 1 << 20  # elements that are checked at once
_PARTS = ("indptr", "indices", "data")


class SparseRows(LazyRows):
    """The rows of a sparse matrix: of each, its elements in the order of columns, each column once."""

    begins: Array
    columns: Array

    def __init__(
        self,
        array: Array,
        shape: tuple[int, ...],
        dtype: Any,
        scale: float,
        begins: Array,
        columns: Array,
    ) -> None:
        super().__init__(array, shape, dtype, scale)
        self.begins, self.columns = begins, columns

    @property
    def counts(self) -> Array:
        """The number of elements of each row."""
        return np.diff(self.begins)

    def room(self, rows: int) -> int:
        """Room for the elements of any so many rows, in few sizes; 0 where it pays to read zeros, too."""
        height, width = self.shape
        most = 1 << max(0, int(self.counts.max(initial=1)) - 1).bit_length()
        sparse = len(self.columns) * DENSE <= height * width and 4 * most <= width
        return rows * most if sparse and rows * most < 1 << 32 else 0

    def __getitem__(self, index: Any) -> Self:
        rows = np.arange(len(self))[index]
        first = self.begins[rows]
        counts = self.begins[rows + 1] - first
        begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        elements = np.arange(begins[-1]) + np.repeat(first - begins[:-1], counts)
        shape, columns = (len(rows), *self.shape[1:]), self.columns[elements]
        return type(self)(self.array[elements], shape, self.dtype, self.scale, begins, columns)

    def numbers(self) -> Array:
        """The numbers of all rows, a new array."""
        made, columns = np.zeros(self.shape, self.dtype), self.columns
        if columns.size and not 0 <= columns.min() <= columns.max() < made.shape[1]:
            raise bad_column(made.shape[1])
        made[np.repeat(np.arange(len(self)), self.counts), columns] = self.scaled(self.array)
        return made


def bad_column(width: int) -> DataError:
    """The error for a column out of range in rows that have been checked."""
    return DataError(f"X has a column outside [0, {width}): it was changed during training")


def is_sparse(value: Any) -> bool:
    """Whether this is a sparse matrix that can be read: one that has `tocsr`, or has CSR's parts."""
    if callable(getattr(value, "tocsr", None)):
        return True
    return getattr(value, "format", None) == "csr" and all(hasattr(value, n) for n in _PARTS)


def rows_in(value: Any) -> Any:
    """A sparse matrix in the format CSR, in which its library takes rows."""
    return value.tocsr() if hasattr(value, "tocsr") else value


def checked(name: str, value: Any, shape: tuple[int, ...] | None, dtype: Any) -> SparseRows | None:
    """The checked rows of a sparse matrix; None for anything else.

    shape: expected shape of a row (None: any number of features). dtype: the model's, in which every
    value must be finite. Values of float32, float64 and uint8 are not copied, and columns of int32 are
    not either, unless columns are unsorted or come twice.
    """
    if not is_sparse(value):
        return None
    arrays.check_rows(name, tuple(value.shape), shape)
    _check_places(name, value)
    csr = rows_in(value)
    rows = _parts(name, csr, dtype)
    if not _is_canonical(rows):
        csr = csr.copy()
        csr.sum_duplicates()  # sorts, too
        rows = _parts(name, csr, dtype)
        if not _is_canonical(rows):
            raise DataError(
                f"{name} has a row whose columns are unsorted or come twice, even after sum_duplicates(); "
                f"expected each column once, such as in scipy.sparse.csr_array({name.split()[-1]}.tocoo())"
            )
    _check_values(name, rows)
    return rows


def _check_places(name: str, value: Any) -> None:
    """Raise DataError where a matrix of another format has elements at places that do not exist.

    SciPy's `tocsr` would write beyond its arrays.
    """
    kind = getattr(value, "format", None)
    if kind == "lil" and any(len(a) != len(b) for a, b in zip(value.rows, value.data, strict=True)):
        raise DataError(
            f"{name} is a damaged {type(value).__name__}: rows and data differ in lengths"
        )
    if kind in ("csc", "bsr"):
        try:
            value.check_format(full_check=True)
        except ValueError as error:
            raise DataError(f"{name} is a damaged {type(value).__name__}: {error}") from None
    for part, size in zip(("row", "col"), value.shape, strict=True):
        places = getattr(value, part, None)
        if isinstance(places, np.ndarray) and places.size:
            low, high = int(places.min()), int(places.max())
            if low < 0 or high >= size:
                raise DataError(
                    f"{part} of {name} holds {low if low < 0 else high}; expected places in [0, {size})"
                )


def _parts(name: str, csr: Any, dtype: Any) -> SparseRows:
    """The rows of a CSR matrix, whose columns all exist."""
    begins, columns, values = (arrays.numbers(f"{n} of {name}", getattr(csr, n)) for n in _PARTS)
    count, width = (int(n) for n in csr.shape)
    if width > np.iinfo(np.int32).max:
        raise ShapeError(f"{name} has {width} columns; expected at most {np.iinfo(np.int32).max}")
    for part, array in (("indptr", begins), ("indices", columns)):
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise DataError(
                f"{part} of {name} has dtype {array.dtype} and shape {array.shape}; expected a vector of "
                "integers"
            )
    begins = begins.astype(np.int64)  # a copy, which stays as it is checked here
    if len(begins) != count + 1 or begins[0] != 0 or (np.diff(begins) < 0).any():
        raise DataError(
            f"indptr of {name} has {len(begins)} numbers; expected {count + 1}, from 0 on and never falling"
        )
    elements = int(begins[-1])
    if values.ndim != 1 or min(len(columns), len(values)) < elements:
        raise DataError(
            f"indices and data of {name} have shapes {columns.shape} and {values.shape}; expected vectors "
            f"of the {elements} elements that indptr counts"
        )
    columns, values = columns[:elements], values[:elements]
    if elements and (columns.min() < 0 or columns.max() >= width):
        low, high = int(columns.min()), int(columns.max())
        raise DataError(
            f"indices of {name} holds the column {low if low < 0 else high}; expected columns in "
            f"[0, {width})"
        )
    if values.dtype not in arrays.SOURCE_DTYPES or not values.dtype.isnative:
        with np.errstate(all="ignore"):  # _check_values refuses those that overflow
            values = values.astype(dtype)
    columns = np.require(columns, np.int32, ["C", "A"])
    values = np.require(values, requirements=["C", "A"])
    return SparseRows(values, (count, width), dtype, 0.0, begins, columns)


def _is_canonical(rows: SparseRows) -> bool:
    """Whether the columns of each row grow."""
    columns, ends = rows.columns, rows.begins[1:]
    for begin in range(0, len(columns) - 1, _BLOCK):
        part = columns[begin : begin + _BLOCK + 1]
        falls = np.flatnonzero(part[1:] <= part[:-1]) + begin + 1  # only a new row may begin there
        if (ends[np.searchsorted(ends, falls)] != falls).any():
            return False
    return True


def _check_values(name: str, rows: SparseRows) -> None:
    """Raise DataError where a value is not finite in the dtype."""
    values = rows.array
    if values.dtype.kind != "f" or not values.size:
        return
    limit = float(np.finfo(rows.dtype).max)
    low, high = float(values.min()), float(values.max())
    if -limit <= low and high <= limit:
        return
    bad = np.flatnonzero(~((-limit <= values) & (values <= np.float64(limit))))
    row = int(np.searchsorted(rows.begins, bad[0], "right")) - 1
    raise DataError(
        f"{name} holds {len(bad)} values that are NaN, infinite or too large for {rows.dtype}; the first "
        f"is {values[bad[0]]} at index ({row}, {rows.columns[bad[0]]})"
    )
