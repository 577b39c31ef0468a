from __future__ import annotations

import gzip
import math
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fastnet.datasets import read_idx
from fastnet.errors import DataError

WriteIdx = Callable[..., Path]

F32_MAX = struct.unpack(">f", b"\x7f\x7f\xff\xff")[0]
TYPES = [
    pytest.param(0x08, "B", np.uint8, [0, 1, 2, 127, 128, 255], id="uint8"),
    pytest.param(0x09, "b", np.int8, [0, 1, -1, 127, -128, 5], id="int8"),
    pytest.param(0x0B, "h", np.int16, [0, 1, -2, 32767, -32768, 258], id="int16"),
    pytest.param(0x0C, "i", np.int32, [0, 1, -2, 2**31 - 1, -(2**31), 66051], id="int32"),
    pytest.param(0x0D, "f", np.float32, [0, 1.5, -2.25, F32_MAX, 2**-149, math.inf], id="float32"),
    pytest.param(0x0E, "d", np.float64, [0, 0.1, -math.pi, 1e308, 5e-324, -math.inf], id="float64"),
]
# Whether a file is written as it is or gzipped.
packed = pytest.mark.parametrize("gz", [False, True], ids=["plain", "gzip"])


def idx_bytes(code: int, shape: Sequence[int], data: bytes) -> bytes:
    return struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape) + data


@packed
@pytest.mark.parametrize(("code", "letter", "dtype", "values"), TYPES)
def test_every_type(
    write_idx: WriteIdx, code: int, letter: str, dtype: type, values: list[float], gz: bool
) -> None:
    array = read_idx(write_idx("any", (2, 3), values, code, letter, gz))
    assert array.dtype == dtype
    assert array.dtype.isnative
    assert array.tolist() == [values[:3], values[3:]]


@packed
@pytest.mark.parametrize(("code", "letter", "dtype", "values"), TYPES)
def test_result_is_writable_and_contiguous(
    write_idx: WriteIdx, code: int, letter: str, dtype: type, values: list[float], gz: bool
) -> None:
    path = write_idx("any", (6,), values, code, letter, gz)
    array = read_idx(path)
    assert array.flags.c_contiguous
    array[...] = 3
    assert array.tolist() == [3] * 6
    assert read_idx(path).tolist() == values


@pytest.mark.parametrize("shape", [(1,), (24,), (4, 6), (2, 3, 4), (2, 1, 3, 4), (1,) * 64])
def test_any_number_of_dimensions(write_idx: WriteIdx, shape: tuple[int, ...]) -> None:
    values = bytes(range(math.prod(shape)))
    array = read_idx(write_idx("any", shape, values))
    assert array.shape == shape
    assert array.ravel().tolist() == list(values)


@packed
def test_more_data_than_one_chunk(write_idx: WriteIdx, gz: bool) -> None:
    values = range(-300_000, 300_001)
    array = read_idx(write_idx("any", (len(values),), values, 0x0C, "i", gz))
    np.testing.assert_array_equal(array, np.array(values))


@pytest.mark.parametrize(("name", "gz"), [("plain.gz", False), ("zipped", True)])
def test_gzip_is_told_by_content_not_by_name(write_idx: WriteIdx, name: str, gz: bool) -> None:
    assert read_idx(write_idx(name, (3,), b"\x05\x06\x07", gz=gz)).tolist() == [5, 6, 7]


def test_gzip_of_several_members(tmp_path: Path) -> None:
    content = idx_bytes(0x08, (3,), b"\x05\x06\x07")
    path = tmp_path / "members"
    path.write_bytes(gzip.compress(content[:6]) + gzip.compress(content[6:]))
    assert read_idx(path).tolist() == [5, 6, 7]


def test_path_may_be_a_string(write_idx: WriteIdx) -> None:
    assert read_idx(str(write_idx("any", (1,), b"\x05"))).tolist() == [5]


KNOWN = "expected one of 0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E"
HUGE = (2**32 - 1,) * 3
MALFORMED = {
    "empty": (b"", "ends after 0 bytes; expected an IDX magic number of 4"),
    "magic cut": (b"\0\0\x08", "ends after 3 bytes; expected an IDX magic number of 4"),
    "first byte": (b"\x01\0\x08\x01", "begins with 01 00 08 01; expected 00 00"),
    "second byte": (b"\0\x01\x08\x01", "begins with 00 01 08 01; expected 00 00"),
    "text": (b"label,pixel0\n", "begins with 6c 61 62 65; expected 00 00"),
    "code 0x00": (idx_bytes(0x00, (1,), b"\0"), f"has IDX type code 0x00; {KNOWN}"),
    "code 0x07": (idx_bytes(0x07, (1,), b"\0"), f"has IDX type code 0x07; {KNOWN}"),
    "code 0x0A": (idx_bytes(0x0A, (1,), b"\0"), f"has IDX type code 0x0A; {KNOWN}"),
    "code 0x0F": (idx_bytes(0x0F, (1,), b"\0"), f"has IDX type code 0x0F; {KNOWN}"),
    "no dimension": (idx_bytes(0x08, (), b"\0"), "has 0 dimensions; expected 1 to 64"),
    "65 dimensions": (idx_bytes(0x08, (1,) * 65, b"\0"), "has 65 dimensions; expected 1 to 64"),
    "sizes cut": (b"\0\0\x08\x02\0\0\0\x01\0", "ends after 5 bytes of sizes; expected 8"),
    "size of zero": (idx_bytes(0x08, (2, 0), b""), "has shape (2, 0); expected every size"),
    "no data": (idx_bytes(0x0B, (2, 2), b""), "holds 0 bytes of data; expected 8 for int16"),
    "a byte short": (idx_bytes(0x0B, (2, 2), b"1234567"), "holds 7 bytes of data; expected 8"),
    "a byte over": (idx_bytes(0x0B, (2,), b"12345"), "holds more than 4 bytes of data; expected 4"),
    "huge": (idx_bytes(0x0E, HUGE, b"1234"), f"holds 4 bytes of data; expected {8 * HUGE[0] ** 3}"),
    # Each size fits, the product is 0 modulo 2**64.
    "overflow": (
        idx_bytes(0x08, (2**31, 2**31, 4), b""),
        f"holds 0 bytes of data; expected {2**64}",
    ),
}


@packed
@pytest.mark.parametrize(("content", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_file(tmp_path: Path, content: bytes, message: str, gz: bool) -> None:
    path = tmp_path / "bad-idx"
    path.write_bytes(gzip.compress(content) if gz else content)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert str(caught.value).startswith(f"{path} {message}")


@packed
def test_file_cut_anywhere(tmp_path: Path, gz: bool) -> None:
    content = idx_bytes(0x0D, (2, 2), struct.pack(">4f", 1, 2, 3, 4))
    whole = gzip.compress(content) if gz else content
    path = tmp_path / "cut-idx"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="cut-idx"):
            read_idx(path)
    path.write_bytes(whole)
    assert read_idx(path).tolist() == [[1, 2], [3, 4]]


def _damaged(position: int) -> bytes:
    stream = bytearray(gzip.compress(idx_bytes(0x08, (3,), b"\x05\x06\x07")))
    stream[position] ^= 0x55
    return bytes(stream)


DAMAGED = {
    "method": _damaged(2),
    "body": gzip.compress(b"")[:10] + b"\x07",  # the header, then a block of no known type
    "checksum": _damaged(-8),
    "length": _damaged(-4),
    "trailing bytes": gzip.compress(idx_bytes(0x08, (1,), b"\x05")) + b"more",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_gzip(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad-gzip"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert str(caught.value).startswith(f"{path} is a damaged gzip file (")
    assert str(caught.value).endswith("); expected a whole one")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such file .*absent-idx"):
        read_idx(tmp_path / "absent-idx")


@packed
@pytest.mark.parametrize(
    ("announced", "held"), [(2**30, 10), (10, 2**26)], ids=["forged header", "endless data"]
)
def test_memory_is_bounded_by_header_and_content(
    tmp_path: Path, announced: int, held: int, gz: bool
) -> None:
    path = tmp_path / "forged-idx"
    content = idx_bytes(0x08, (announced,), bytes(held))
    path.write_bytes(gzip.compress(content, 1) if gz else content)
    del content
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="forged-idx"):
            read_idx(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**22


def test_a_gzip_file_that_holds_less_than_its_header_asks_for_takes_no_memory(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(idx_bytes(0x08, (2**31,), bytes(64 << 20))))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=f"holds {64 << 20} bytes of data; expected {2**31}"):
            read_idx(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
