"""MNIST from the four IDX files in which its authors publish it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.datasets.idx import read_idx
from fastnet.errors import DataError, check_choice, check_path

_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_SIDE = 28
_CLASSES = 10

_Samples = tuple[NDArray[Any], NDArray[np.int64]]


def mnist(folder: str | os.PathLike[str], dtype: str = "float32") -> tuple[_Samples, _Samples]:
    """Read MNIST from a folder: `(X, y), (X_test, y_test)`.

    The folder holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
    `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`, each plain or gzipped with
    `.gz` added to its name (the plain one is read if both are there).

    X and X_test have the shape (n, 784), the 28x28 pixels row by row: with `dtype="float32"` the bytes
    divided by 255, from 0 (background) to 1 (ink); with `dtype="uint8"` the bytes themselves, in a quarter
    of the memory. y and y_test are int64 (n,), the digits 0 to 9. The order is that of the files, and so
    is n: officially 60,000 for training and 10,000 for the test. All arrays are new and writable.

    Raises `FileNotFoundError` if the folder or a file is missing, `DataError` (a `ValueError`) if a file is
    damaged or is not MNIST's, `HyperparameterError` (a `ValueError`) for another dtype or an invalid path.

    MNIST is by Y. LeCun, C. Cortes and C. Burges, licensed under CC BY-SA 3.0. fastnet does
    not download it; https://ossci-datasets.s3.amazonaws.com/mnist/ is one of its mirrors.
    """
    as_float = check_choice("dtype", dtype, ("float32", "uint8")) == "float32"
    train_images, train_labels, test_images, test_labels = _find(check_path("folder", folder))
    return (
        _samples(train_images, train_labels, as_float),
        _samples(test_images, test_labels, as_float),
    )


def _find(folder: Path) -> list[Path]:
    """The paths of the four files, or an error that names those missing and their source."""
    paths: list[Path] = []
    missing: list[str] = []
    for name in _FILES:
        plain, gz = folder / name, folder / f"{name}.gz"
        if plain.is_file():
            paths.append(plain)
        elif gz.is_file():
            paths.append(gz)
        else:
            missing.append(name)
    if not missing:
        return paths
    lack = f"{folder} lacks {', '.join(missing)}" if folder.is_dir() else f"{folder} is no folder"
    raise FileNotFoundError(
        f"{lack}; expected a folder with {', '.join(_FILES)}, plain or .gz: the MNIST files of "
        "Y. LeCun, C. Cortes and C. Burges in IDX format, available from mirrors such as "
        "https://ossci-datasets.s3.amazonaws.com/mnist/"
    )


def _samples(images_path: Path, labels_path: Path, as_float: bool) -> _Samples:
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.dtype != np.uint8 or images.shape[1:] != (_SIDE, _SIDE):
        raise DataError(
            f"{images_path} holds {images.dtype} of shape {images.shape}; "
            f"expected uint8 images of shape (n, {_SIDE}, {_SIDE})"
        )
    if labels.dtype != np.uint8 or labels.ndim != 1:
        raise DataError(
            f"{labels_path} holds {labels.dtype} of shape {labels.shape}; "
            "expected uint8 labels of shape (n,)"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path} holds {len(labels)} labels; expected {len(images)}, "
            f"one for each image in {images_path.name}"
        )
    if labels.max() >= _CLASSES:
        raise DataError(
            f"{labels_path} holds label {labels.max()} at position {labels.argmax()}; "
            f"expected 0 to {_CLASSES - 1}"
        )
    x: NDArray[Any] = images.reshape(len(images), _SIDE * _SIDE)
    if as_float:
        # Without the dtype NumPy would divide in float64, eight times the bytes of the images.
        x = np.divide(x, 255, dtype=np.float32)
    return x, labels.astype(np.int64)
