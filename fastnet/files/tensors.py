"""Reading and writing safetensors files whose metadata describe what is in them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.errors import FileError, HyperparameterError, UsageError, check_path, shown
from fastnet.files import atomic, strict_json
from fastnet.op import Array

VERSION = 1
DESCRIPTION, DIGEST = "fastnet", "sha256"  # the names of the metadata
MOST_HEADER = 1 << 26  # bytes
MOST_NAMES = 1 << 18
DTYPES = (
    "float64",
    "float32",
    "int64",
    "uint64",
    "int32",
    "uint32",
    "int16",
    "uint16",
    "int8",
    "uint8",
    "bool",
)


@dataclass(frozen=True, eq=False, repr=False)
class Contents:
    """What a file holds. description: None in a file that fastnet has not written."""

    path: Path
    tensors: dict[str, Array]  # read-only
    description: dict[str, Any] | None

    def described(self, kind: str) -> dict[str, Any]:
        """The description of a file of a kind, or FileError."""
        if self.description is None:
            raise FileError(
                f"{self.path} has arrays and no model: fastnet has not written it; make a model of the "
                "same architecture and write model.load_weights(path)"
            )
        found = self.description
        if found.get("kind") != kind:
            raise FileError(f"{self.path} holds a {found.get('kind')}; expected a {kind}")
        return found


def write(path: Any, description: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
    """Save arrays by name with a description of JSON's types, see `atomic.replace`.

    Metadata: "fastnet", the description with its version as JSON; "sha256", the digest of both.
    """
    from safetensors.numpy import save  # a program that never saves does without

    target = check_path("path", path)
    if target.is_dir():
        raise HyperparameterError(
            f"path is {shown(str(path))}, a folder; expected the path of a file, as 'net.safetensors'"
        )
    text = strict_json.written({"version": VERSION, **description})
    # safetensors writes the memory of an array as it lies there, also if that is in another order.
    arrays = {
        name: np.require(value, value.dtype.newbyteorder("<"), "C")
        for name, value in tensors.items()
    }
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES:
            raise UsageError(f"{name} has dtype {array.dtype}; expected one of {', '.join(DTYPES)}")
    metadata = {DESCRIPTION: text, DIGEST: digest(text, arrays)}
    atomic.replace(target, [save(arrays, metadata)])


def digest(text: str, tensors: Mapping[str, Array]) -> str:
    """SHA-256, in hexadecimal digits, of a description and of all arrays with names, dtypes and shapes."""
    import hashlib  # loads OpenSSL, which a program that only trains does without

    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = tensors[name]
        head = [name, array.dtype.name, *array.shape]
        found.update(strict_json.written(head).encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def read(path: Any) -> Contents:
    """What a safetensors file holds, checked by its digest if fastnet has written it.

    Takes as much memory as the file has bytes, and as much again for the arrays. Raises FileError for a
    file that is damaged or no safetensors file, and OSError where it cannot be read.
    """
    source = check_path("path", path)
    with open(source, "rb") as file:
        status = os.fstat(file.fileno())
        data = file.read(status.st_size) if stat.S_ISREG(status.st_mode) else b""
    return parsed(source, data)


def parsed(source: Path, data: bytes) -> Contents:
    """What the bytes of a file hold, see `read`."""
    try:
        metadata = _metadata(_header(data))
    except ValueError as error:
        raise FileError(f"{source} is no safetensors file: {error}") from None
    tensors = _tensors(source, data)
    if DESCRIPTION not in metadata:
        return Contents(source, tensors, None)
    unknown = metadata.keys() - {DESCRIPTION, DIGEST}
    if unknown or DIGEST not in metadata:
        raise FileError(f"{source} is damaged: its metadata are not those of fastnet")
    text = metadata[DESCRIPTION]
    if digest(text, tensors) != metadata[DIGEST]:
        raise FileError(
            f"{source} is damaged: its content has another SHA-256 than when it was saved; take an "
            "older copy"
        )
    try:
        description = strict_json.read(text)
        if not isinstance(description, dict):
            raise ValueError("its description is no object")
    except ValueError as error:
        raise FileError(f"{source} is damaged: {error}") from None
    version = description.pop("version", None)
    if version != VERSION:
        raise FileError(
            f"{source} has version {version!r} of the format; this one reads version {VERSION}: use the "
            "fastnet that has written it, or a later one"
        )
    return Contents(source, tensors, description)


def _header(data: bytes) -> bytes:
    if len(data) < 8:
        raise ValueError(f"it has {len(data)} bytes")
    length = int.from_bytes(data[:8], "little")
    if length > min(len(data) - 8, MOST_HEADER):
        raise ValueError(f"its header would have {length} bytes, the file has {len(data)}")
    return data[8 : 8 + length]


def _metadata(header: bytes) -> dict[str, str]:
    """The metadata of a header whose JSON is beyond doubt."""
    if header.count(b'":') > MOST_NAMES:
        raise ValueError(f"its header has more than {MOST_NAMES} names")
    found = strict_json.read(header)
    if not isinstance(found, dict):
        raise ValueError("its header is no JSON object")
    metadata = found.get("__metadata__", {})
    if not isinstance(metadata, dict) or any(type(v) is not str for v in metadata.values()):
        raise ValueError("its metadata are no texts by name")
    return metadata


def _tensors(source: Path, data: bytes) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)
    except SafetensorError as error:
        raise FileError(f"{source} is no safetensors file: {error}") from None
    except KeyError as error:
        raise FileError(
            f"{source} has an array of dtype {error.args[0]}, which NumPy lacks; save it as F32"
        ) from None
