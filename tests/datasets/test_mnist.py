from __future__ import annotations

import gzip
import hashlib
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastnet.datasets import mnist
from fastnet.errors import DataError, HyperparameterError

WriteIdx = Callable[..., Path]

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IMAGES = {"train": np.arange(11 * 784) % 256, "t10k": np.arange(3 * 784)[::-1] * 7 % 256}
LABELS = {"train": [3, 1, 4, 1, 5, 9, 2, 6, 0, 7, 8], "t10k": [9, 0, 8]}


@pytest.fixture
def plain(write_idx: WriteIdx, tmp_path: Path) -> Path:
    """A folder with a tiny MNIST: 11 training and 3 test images."""
    for part, labels in LABELS.items():
        write_idx(f"{part}-images-idx3-ubyte", (len(labels), 28, 28), IMAGES[part])
        write_idx(f"{part}-labels-idx1-ubyte", (len(labels),), labels)
    return tmp_path


@pytest.fixture(params=[(), FILES, FILES[1:3]], ids=["plain", "gzip", "mixed"])
def folder(request: pytest.FixtureRequest, plain: Path) -> Path:
    """The same with none, all or some of its files gzipped."""
    for name in request.param:
        file = plain / name
        (plain / f"{name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    return plain


def test_float32_is_the_default_and_bytes_over_255(folder: Path) -> None:
    for (x, y), part in zip(mnist(folder), ("train", "t10k"), strict=True):
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        expected = (IMAGES[part] / 255.0).astype(np.float32).reshape(-1, 784)
        np.testing.assert_array_equal(x, expected)
        assert (x.min(), x.max()) == (0, 1)
        assert y.tolist() == LABELS[part]


def test_uint8_is_the_raw_bytes(folder: Path) -> None:
    for (x, y), part in zip(mnist(str(folder), dtype="uint8"), ("train", "t10k"), strict=True):
        assert x.dtype == np.uint8
        assert y.dtype == np.int64
        np.testing.assert_array_equal(x, IMAGES[part].reshape(-1, 784))
        assert y.tolist() == LABELS[part]


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_arrays_are_writable_and_contiguous(plain: Path, dtype: str) -> None:
    for x, y in mnist(plain, dtype):
        assert x.flags.c_contiguous
        x[...] = 1
        y[...] = 1
        assert x.sum() == x.size
        assert y.sum() == y.size


def test_plain_file_goes_before_gzip(plain: Path, write_idx: WriteIdx) -> None:
    write_idx("t10k-labels-idx1-ubyte.gz", (3,), [1, 1, 1], gz=True)
    _, (_, y_test) = mnist(plain)
    assert y_test.tolist() == LABELS["t10k"]


@pytest.mark.parametrize("dtype", ["float64", "f4", "FLOAT32", "", None, np.float64, 32])
def test_other_dtype(tmp_path: Path, dtype: object) -> None:
    # Complains of the dtype, not of the empty folder: nothing is read before.
    with pytest.raises(HyperparameterError, match="expected one of 'float32', 'uint8'"):
        mnist(tmp_path, dtype=dtype)  # type: ignore[arg-type]


def _assert_tells_all(message: str) -> None:
    assert "\n" not in message
    for needed in (*FILES, "Y. LeCun, C. Cortes and C. Burges", "IDX", "https://ossci-datasets."):
        assert needed in message


@pytest.mark.parametrize("name", FILES)
def test_missing_file(plain: Path, name: str) -> None:
    (plain / name).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        mnist(plain)
    assert str(caught.value).startswith(f"{plain} lacks {name}; ")
    _assert_tells_all(str(caught.value))


def test_all_missing_files_are_named(plain: Path) -> None:
    (plain / FILES[1]).unlink()
    (plain / FILES[2]).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        mnist(plain)
    assert str(caught.value).startswith(f"{plain} lacks {FILES[1]}, {FILES[2]}; ")


@pytest.mark.parametrize("name", ["absent", FILES[0]])
def test_missing_folder(plain: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        mnist(plain / name)
    assert str(caught.value).startswith(f"{plain / name} is no folder; ")
    _assert_tells_all(str(caught.value))


MALFORMED = {
    "height": (
        "images",
        (3, 27, 28),
        0x08,
        "B",
        "holds uint8 of shape (3, 27, 28); expected uint8",
    ),
    "width": ("images", (3, 28, 27), 0x08, "B", "holds uint8 of shape (3, 28, 27); expected uint8"),
    "flat images": ("images", (3, 784), 0x08, "B", "holds uint8 of shape (3, 784); expected uint8"),
    "channels": ("images", (3, 28, 28, 1), 0x08, "B", "holds uint8 of shape (3, 28, 28, 1); expec"),
    "image type": ("images", (3, 28, 28), 0x0B, "h", "holds int16 of shape (3, 28, 28); expected"),
    "label type": ("labels", (3,), 0x0C, "i", "holds int32 of shape (3,); expected uint8 labels"),
    "label shape": ("labels", (3, 1), 0x08, "B", "holds uint8 of shape (3, 1); expected uint8 lab"),
    "few labels": ("labels", (2,), 0x08, "B", "holds 2 labels; expected 3, one for each image in"),
    "many labels": ("labels", (4,), 0x08, "B", "holds 4 labels; expected 3, one for each image in"),
}


@pytest.mark.parametrize(
    ("kind", "shape", "code", "letter", "message"), MALFORMED.values(), ids=MALFORMED
)
@pytest.mark.parametrize("part", ["train", "t10k"])
def test_file_that_is_not_mnists(
    plain: Path,
    write_idx: WriteIdx,
    part: str,
    kind: str,
    shape: tuple[int, ...],
    code: int,
    letter: str,
    message: str,
) -> None:
    # Three good images and labels first, in the part that the case then spoils.
    write_idx(f"{part}-images-idx3-ubyte", (3, 28, 28), bytes(3 * 784))
    write_idx(f"{part}-labels-idx1-ubyte", (3,), bytes(3))
    name = f"{part}-images-idx3-ubyte" if kind == "images" else f"{part}-labels-idx1-ubyte"
    path = write_idx(name, shape, bytes(int(np.prod(shape))), code, letter)
    with pytest.raises(DataError) as caught:
        mnist(plain)
    assert str(caught.value).startswith(f"{path} {message}")


@pytest.mark.parametrize("part", ["train", "t10k"])
@pytest.mark.parametrize("label", [10, 255])
def test_label_out_of_range(plain: Path, write_idx: WriteIdx, part: str, label: int) -> None:
    labels = [*LABELS[part][:-1], label]
    path = write_idx(f"{part}-labels-idx1-ubyte", (len(labels),), labels)
    with pytest.raises(DataError) as caught:
        mnist(plain)
    expected = f"{path} holds label {label} at position {len(labels) - 1}; expected 0 to 9"
    assert str(caught.value) == expected


def test_damaged_file(plain: Path) -> None:
    path = plain / FILES[2]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte holds 2351 bytes of data"):
        mnist(plain)


# In bytes a pixel: what is read, half as much for a buffer that grew too far, the float32.
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1.5 + 4), ("uint8", 1.5)])
def test_peak_memory(plain: Path, write_idx: WriteIdx, dtype: str, limit: float) -> None:
    n = 10_000
    write_idx(FILES[0], (n, 28, 28), bytes(n * 784))
    write_idx(FILES[1], (n,), bytes(n))
    tracemalloc.start()
    try:
        mnist(plain, dtype)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit * n * 784


def _real_mnist() -> Path:
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    path = Path(os.environ.get("FASTNET_DATA", beside)) / "mnist"
    if not path.is_dir():
        pytest.skip(f"no MNIST at {path}; FASTNET_DATA names the folder that holds mnist/")
    return path


def test_real_mnist() -> None:
    (x, y), (x_test, y_test) = mnist(_real_mnist(), dtype="uint8")
    assert x.shape == (len(y), 784)
    assert x_test.shape == (10_000, 784)
    # The counts that the official test set has for the digits 0 to 9.
    assert np.bincount(y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert hashlib.sha256(x_test.tobytes()).hexdigest() == (
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161"
    )
    assert np.unique(y).tolist() == list(range(10))
    # The mean pixel that is known of the training images, a little looser for a part of them.
    assert x.mean() / 255 == pytest.approx(0.1307, abs=5e-4)


def test_real_mnist_as_float32() -> None:
    folder = _real_mnist()
    for (x, y), (raw, raw_y) in zip(mnist(folder), mnist(folder, "uint8"), strict=True):
        assert x.dtype == np.float32
        np.testing.assert_array_equal(np.rint(x * 255).astype(np.uint8), raw)
        np.testing.assert_array_equal(y, raw_y)
