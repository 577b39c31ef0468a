"""Reader of the IDX format, in which MNIST and related data sets are published.

A file is two zero bytes, one byte for the type, one for the number of dimensions d, then
d sizes as big-endian uint32, then the values in row-major order, big-endian too.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastnet.errors import DataError, check_path

_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_DIMS = 64  # NumPy's limit; the format would allow 255
_CHUNK = 1 << 20


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read one IDX file, plain or gzipped (recognised by content, not by name).

    Returns a new, writable, C-contiguous array with the file's shape, of dtype uint8,
    int8, int16, int32, float32 or float64 in native byte order.

    Raises `DataError` (a `ValueError`) unless the file is one complete array: for a wrong magic number, an
    unknown type, no dimension or more than 64, a size of zero, too few or too many bytes of data, a damaged
    gzip stream. Raises `FileNotFoundError` if the file does not exist. The reader counts the bytes of data
    before it allocates memory for them, in pieces and at most one byte beyond what the header announces. So
    neither a forged header nor a gzip bomb can fill the memory.
    """
    path = check_path("path", path)
    with path.open("rb") as file:
        if file.peek(2)[:2] != _GZIP_MAGIC:
            return _parse(file, path)
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                return _parse(stream, path)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{path} is a damaged gzip file ({error}); expected a whole one"
            ) from error


def _parse(stream: BinaryIO | gzip.GzipFile, path: Path) -> NDArray[Any]:
    magic = stream.read(4)
    if len(magic) < 4:
        raise DataError(f"{path} ends after {len(magic)} bytes; expected an IDX magic number of 4")
    if magic[:2] != b"\0\0":
        raise DataError(
            f"{path} begins with {magic.hex(' ')}; expected 00 00, as in every IDX file"
        )
    code, ndim = magic[2:]
    if code not in _DTYPES:
        known = ", ".join(f"0x{c:02X}" for c in _DTYPES)
        raise DataError(f"{path} has IDX type code 0x{code:02X}; expected one of {known}")
    if not 1 <= ndim <= _MAX_DIMS:
        raise DataError(f"{path} has {ndim} dimensions; expected 1 to {_MAX_DIMS}")

    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise DataError(
            f"{path} ends after {len(sizes)} bytes of sizes; expected {4 * ndim}, 4 a dimension"
        )
    shape = struct.unpack(f">{ndim}I", sizes)
    if 0 in shape:
        raise DataError(f"{path} has shape {shape}; expected every size to be at least 1")

    dtype = _DTYPES[code]
    expected, begin = math.prod(shape) * dtype.itemsize, stream.tell()
    found = _count_up_to(stream, expected + 1)
    if found != expected:
        got = f"{found} bytes" if found < expected else f"more than {expected} bytes"
        raise DataError(
            f"{path} holds {got} of data; expected {expected} for {dtype.name} of shape {shape}"
        )
    stream.seek(begin)
    array = np.empty(shape, dtype)
    _fill(array.reshape(-1).view(np.uint8).data, stream, path)
    if not dtype.isnative:
        array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
    return array


def _count_up_to(stream: BinaryIO | gzip.GzipFile, limit: int) -> int:
    """The number of bytes left in the stream, at most `limit`; reads them in pieces and keeps none."""
    count = 0
    while piece := len(stream.read(min(_CHUNK, limit - count))):
        count += piece
    return count


def _fill(memory: memoryview, stream: BinaryIO | gzip.GzipFile, path: Path) -> None:
    """Fill the memory with bytes from the stream."""
    for begin in range(0, len(memory), _CHUNK):
        part = memory[begin : begin + _CHUNK]
        piece = stream.read(len(part))
        if len(piece) < len(part):
            raise DataError(f"{path} has become shorter while it was read; read it again")
        part[:] = piece
