"""California housing from its files: features, formats, damaged files, the real one where it is."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from fastnet.datasets import california_housing
from fastnet.errors import DataError, HyperparameterError

NAMES = "longitude latitude housing_median_age total_rooms total_bedrooms population households"
NAMES = [*NAMES.split(), "median_income", "median_house_value"]
ROWS = np.array(
    [
        [-122.23, 37.88, 41, 880, 129, 322, 126, 8.3252, 452600],
        [-122.22, 37.86, 21, 7099, 1106, 2401, 1138, 8.3014, 358500],
    ]
)
# The first rows of scikit-learn's fetch_california_housing.
WANTED = [
    [8.3252, 41.0, 6.98412698, 1.02380952, 322.0, 2.55555556, 37.88, -122.23],
    [8.3014, 21.0, 6.23813708, 0.97188049, 2401.0, 2.10984183, 37.86, -122.22],
]


def text(names=None, order=range(9)):
    lines = [",".join(f"{row[i]:.6f}" for i in order) for row in ROWS]
    head = [",".join(names[i] for i in order)] if names else []
    return "\n".join([*head, *lines, ""]).encode()


def archive():
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as file:
        for name, content in (
            ("CaliforniaHousing/cal_housing.domain", b"x"),
            ("a/cal_housing.data", text()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return held.getvalue()


FILES = {
    "cal_housing.data": text(),
    "cal_housing.csv": text(NAMES),
    "any order.csv": text(NAMES, [8, 3, 2, 1, 0, 7, 6, 5, 4]),
    "windows.csv": text(NAMES).replace(b"\n", b"\r\n"),
    "cal_housing.csv.gz": gzip.compress(text(NAMES)),
    "cal_housing.tgz": archive(),
}


@pytest.mark.parametrize("name", FILES)
def test_the_features_are_scikit_learns(name, tmp_path):
    (tmp_path / name).write_bytes(FILES[name])
    x, y = california_housing(tmp_path / name, dtype="float64")
    np.testing.assert_allclose(x, WANTED, rtol=1e-8)
    np.testing.assert_allclose(y, [[4.526], [3.585]])
    x, y = california_housing(str(tmp_path / name))
    assert x.dtype == y.dtype == np.float32 and x.flags.writeable


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"1,2,3\n", "row 0 is '1,2,3'; expected 9 numbers"),
        (b"a,b\n1,2\n", "has the columns a, b; expected longitude"),
        (text(NAMES).replace(b"880.000000", b"nan"), "NaN"),
        (text(NAMES).replace(b"126.000000", b"0"), "a district without households"),
        (text().replace(b"880.000000", b"many"), "row 0 is"),
        (gzip.compress(text())[:40], "cannot be read"),
        (b"\xff\xfe" + text(), "cannot be read"),
    ],
    ids=["empty", "few columns", "other names", "NaN", "no households", "a word", "cut", "bytes"],
)
def test_damaged_files(content, message, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=message):
        california_housing(tmp_path / "file")


def test_an_archive_without_the_file_and_no_file(tmp_path):
    with tarfile.open(tmp_path / "a.tgz", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"holds no cal_housing\.data"):
        california_housing(tmp_path / "a.tgz")
    with pytest.raises(FileNotFoundError, match="is no file; expected StatLib's"):
        california_housing(tmp_path)
    with pytest.raises(HyperparameterError, match=r"^dtype is 'int8'"):
        california_housing(tmp_path, dtype="int8")


def test_the_real_one():
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    path = Path(os.environ.get("FASTNET_DATA", beside)) / "california" / "cal_housing.csv.gz"
    if not path.is_file():
        pytest.skip(f"no California housing at {path}; FASTNET_DATA names the folder that has it")
    x, y = california_housing(path, dtype="float64")
    assert x.shape == (20640, 8) and y.shape == (20640, 1)
    np.testing.assert_allclose(x[:2], WANTED, rtol=1e-8)
    assert y.mean() == pytest.approx(2.068558, abs=1e-6)
    np.testing.assert_allclose(
        x.mean(0)[[0, 1, 3, 5]], [3.870671, 28.639486, 1.096675, 3.070655], rtol=1e-6
    )
