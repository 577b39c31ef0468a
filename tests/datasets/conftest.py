"""A writer of IDX files, on struct alone so that it shares nothing with the reader."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest


@pytest.fixture
def write_idx(tmp_path: Path) -> Callable[..., Path]:
    """Write one file to tmp_path; `letter` is the type of a value as struct names it."""

    def write(
        name: str,
        shape: Sequence[int],
        values: Sequence[float],
        code: int = 0x08,
        letter: str = "B",
        gz: bool = False,
    ) -> Path:
        header = struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape)
        content = header + struct.pack(f">{math.prod(shape)}{letter}", *values)
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if gz else content)
        return path

    return write
