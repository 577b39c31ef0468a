"""Tables in files: CSV and Parquet through pandas, as columns of text or of their own types."""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import io
import lzma
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.data.labels import listed
from fastnet.errors import (
    DataError,
    HyperparameterError,
    MissingExtra,
    check_new_file,
    check_path,
    shown,
)
from fastnet.op import Array

SEPARATORS = ",;\t|"
LOOKED_AT = 50  # lines, to find the separator
PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}


@dataclass(eq=False)
class Data:
    """A table of a file: its columns by name, objects with None where a cell is empty.

    of_text: whether cells are the texts of a CSV file. separator: that of the file, else "". rows: their
    numbers in the file, from 1 on; the line of names is none.
    """

    path: str
    columns: dict[str, Array]
    of_text: bool
    separator: str = ""
    rows: Array = field(default_factory=lambda: np.arange(0))

    def __post_init__(self) -> None:
        if not len(self.rows):
            self.rows = np.arange(1, 1 + len(next(iter(self.columns.values()), ())))

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Array) -> Data:
        """Some of the rows."""
        taken = {name: column[rows] for name, column in self.columns.items()}
        return replace(self, columns=taken, rows=self.rows[rows])


def pandas() -> Any:
    """The package pandas, or MissingExtra."""
    try:
        import pandas
    except ImportError:
        raise MissingExtra('tables need pandas: pip install "fastnet-engine[cli]"') from None
    return pandas


def frame_of(columns: dict[str, Array]) -> Any:
    """Columns as a frame that keeps their dtypes."""
    library = pandas()
    kept = {name: library.Series(column, dtype=column.dtype) for name, column in columns.items()}
    return library.DataFrame(kept)


def read(path: str, options: argparse.Namespace) -> Data:
    """The table of a file, or of standard input for "-"; DataError names what is wrong with it."""
    if path != "-" and Path(path).suffix.lower() in (".parquet", ".pq"):
        return _parquet(path)
    encoding = "utf-8" if options.encoding is None else options.encoding
    data = _csv(path, encoding, options.separator)
    if not len(data):
        raise DataError(
            f"{data.path} has no rows; expected a line of names, and then a line for each row"
        )
    return data


def new_file(option: str, value: Any, *read: str | None) -> Path:
    """The path of a file to be written, which is none of those that the command reads."""
    path = check_new_file(option, value)
    for one in read:
        if one is not None and path.exists() and os.path.exists(one) and path.samefile(one):
            raise HyperparameterError(
                f"{option} is {shown(str(path))}, which the command reads and would replace; expected "
                "another file"
            )
    return path


def _parquet(path: str) -> Data:
    library = pandas()
    check_path("DATA", path)
    with open(path, "rb"):  # an OSError with the name of the file
        pass
    try:
        frame = library.read_parquet(path)
    except ImportError:
        raise MissingExtra('Parquet needs pyarrow: pip install "fastnet-engine[cli]"') from None
    except ValueError as error:  # pyarrow's errors are ValueErrors
        raise DataError(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from None
    columns = {}
    for name, values in frame.items():
        found = values.astype(object)
        columns[str(name)] = found.where(values.notna(), None).to_numpy()
    if not columns or not len(frame):
        raise DataError(f"{path} has {len(frame)} rows and {len(columns)} columns; expected some")
    return Data(path, columns, of_text=False)


def _csv(path: str, encoding: str, separator: str | None) -> Data:
    library = pandas()
    text = _text(path, encoding)
    path = "standard input" if path == "-" else path
    if not text.strip():
        raise DataError(f"{path} is empty; expected a line of names, and then a line for each row")
    separator = separator or separator_of(text)
    how: dict[str, Any] = {"sep": separator, "header": None, "dtype": object}
    how |= {"keep_default_na": False, "skipinitialspace": True, "index_col": False}
    try:
        frame = library.read_csv(io.StringIO(text), low_memory=False, **how)
        if frame.shape[1] == 1:  # an empty line is a row, whose only cell is missing
            lines = io.StringIO(text.lstrip("\r\n"))
            frame = library.read_csv(lines, low_memory=False, skip_blank_lines=False, **how)
    except (library.errors.ParserError, library.errors.EmptyDataError) as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise DataError(
            f"{path}: {reason}; fields are separated by {shown(separator)}, which --separator changes"
        ) from None
    names = _names(path, frame.iloc[0].tolist())
    cells = frame.iloc[1:]
    columns = {name: _stripped(cells.iloc[:, i].to_numpy()) for i, name in names.items()}
    return Data(path, columns, of_text=True, separator=separator)


def _text(path: str, encoding: str) -> str:
    raw = sys.stdin.buffer.read() if path == "-" else check_path("DATA", path).read_bytes()
    unpack = PACKED.get(Path(path).suffix.lower())
    if unpack is not None:
        try:
            raw = unpack(raw)
        except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
            raise DataError(f"{path} cannot be unpacked: {error}") from None
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not in the encoding {encoding}: line {line} has the byte {raw[error.start]:#x}; "
            "name another one, such as --encoding cp1252"
        ) from None
    except LookupError:
        raise DataError(f"--encoding is {shown(encoding)}, which Python does not know") from None
    except UnicodeError as error:  # of codecs that are no tables of characters
        raise DataError(
            f"--encoding is {shown(encoding)}, by which Python cannot read {path}: {error}; expected the "
            "encoding that the file was written in"
        ) from None
    return text.removeprefix("\ufeff")


def separator_of(text: str) -> str:
    """The separator by which the most lines have as many fields as the first, and more than one."""
    lines = list(islice(io.StringIO(text), LOOKED_AT))
    best, found = (0, 0), ","
    for separator in SEPARATORS:
        try:
            widths = [len(row) for row in csv.reader(lines, delimiter=separator) if row]
        except csv.Error:
            continue
        if widths and widths[0] > 1 and (widths.count(widths[0]), widths[0]) > best:
            best, found = (widths.count(widths[0]), widths[0]), separator
    return found


def _names(path: str, given: list[Any]) -> dict[int, str]:
    """The names of the columns, without those that are empty and have no name."""
    names = {i: " ".join(str(name).split()) for i, name in enumerate(given) if name == name}
    named = {i: name for i, name in names.items() if name}
    several = [name for name, count in Counter(named.values()).items() if count > 1]
    if several:
        raise DataError(
            f"{path} has {listed(several)} more than once in its first line; expected names that differ"
        )
    return {i: name or f"column {i + 1}" for i, name in names.items()}


def _stripped(cells: Array) -> Array:
    """Texts without blanks around them, None where nothing is left."""
    found = np.empty(len(cells), object)
    found[:] = [(cell.strip() or None) if isinstance(cell, str) else None for cell in cells]
    return found
