"""California housing from a file of its nine columns."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.errors import DataError, check_choice, check_path

_COLUMNS = (
    "longitude",
    "latitude",
    "housing_median_age",
    "total_rooms",
    "total_bedrooms",
    "population",
    "households",
    "median_income",
    "median_house_value",
)
_SOURCE = (
    "StatLib's cal_housing.tgz, its cal_housing.data, or a CSV file of the same columns, plain or .gz; "
    "https://www.dcc.fc.up.pt/~ltorgo/Regression/cal_housing.tgz is one of its mirrors, and "
    "sklearn.datasets.fetch_california_housing downloads the same numbers"
)
_MOST = 1 << 26  # bytes that are read


def california_housing(
    path: str | os.PathLike[str], dtype: str = "float32"
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read California housing: `X, y`, features (n, 8) and house values (n, 1) of 20,640 districts.

    path: of StatLib's `cal_housing.tgz`, of `cal_housing.data` in it, or of a CSV file with its nine
        columns (longitude, latitude, housing_median_age, total_rooms, total_bedrooms, population,
        households, median_income, median_house_value), plain or gzipped. A first line of names may give
        them in any order.
    dtype: "float32" (default) or "float64".

    X has the features of scikit-learn's fetch_california_housing: the median income in 10,000 dollars, the
    median age of houses, rooms and bedrooms for each household, population, people for each household,
    latitude, longitude. y is the median house value in 100,000 dollars. The order is that of the file. The
    arrays are new and writable.

    Raises `FileNotFoundError` if there is no file, `DataError` (a `ValueError`) if it is damaged or has
    other columns, `HyperparameterError` (a `ValueError`) for another dtype or an invalid path.
    R. K. Pace, R. Barry, "Sparse spatial autoregressions", Statistics and Probability Letters 33, 1997.
    """
    known = check_choice("dtype", dtype, ("float32", "float64"))
    place = check_path("path", path)
    if not place.is_file():
        raise FileNotFoundError(f"{place} is no file; expected {_SOURCE}")
    columns = _columns(place, _text(place))
    age, rooms, bedrooms, people, homes, income = (columns[name] for name in _COLUMNS[2:8])
    if not (homes > 0).all():
        raise DataError(f"{place} has a district without households; expected {_SOURCE}")
    features = (
        *(income, age, rooms / homes, bedrooms / homes, people, people / homes),
        *(columns["latitude"], columns["longitude"]),
    )
    value = columns["median_house_value"] / 100000
    return np.stack(features, axis=1).astype(known), value[:, None].astype(known)


def _text(path: Path) -> str:
    """The text of a file, which may be compressed, or that of cal_housing.data in an archive."""
    try:
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                for member in archive:
                    inner = archive.extractfile(member) if member.isfile() else None
                    if inner is not None and member.name.endswith("cal_housing.data"):
                        return inner.read(_MOST).decode("ascii")
            raise DataError(f"{path} holds no cal_housing.data; expected {_SOURCE}")
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                content = file.read(_MOST)
        return content[:_MOST].decode("ascii")
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; expected {_SOURCE}") from None


def _columns(path: Path, text: str) -> dict[str, NDArray[np.float64]]:
    """The columns by name."""
    lines = text.split("\n")
    lines = [line.rstrip("\r") for line in lines if line.strip()]
    names: tuple[str, ...] = _COLUMNS
    if lines and lines[0].lstrip()[0] not in "+-.0123456789":
        names = tuple(name.strip().strip('"').lower() for name in lines.pop(0).split(","))
    if sorted(names) != sorted(_COLUMNS):
        raise DataError(
            f"{path} has the columns {', '.join(names)[:200]}; expected {', '.join(_COLUMNS)}"
        )
    found = np.empty((len(lines), len(names)))
    for number, line in enumerate(lines):
        try:
            found[number] = [float(part) for part in line.split(",")]
        except ValueError:
            raise DataError(
                f"{path}: row {number} is {line[:80]!r}; expected {len(names)} numbers"
            ) from None
    if not (len(found) and np.isfinite(found).all()):
        raise DataError(f"{path} has no rows, or NaN or infinity; expected {_SOURCE}")
    return {name: found[:, column] for column, name in enumerate(names)}
