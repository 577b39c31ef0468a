"""Finds the native extension, and refuses one that does not fit this package."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fastnet.plan.records import CONTEXT, INSTRUCTION, PREDICT, TRAIN

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "fastnet._native"
DISTRIBUTION = "fastnet-engine"
STRUCTS = {
    "fn_instruction": INSTRUCTION,
    "fn_context": CONTEXT,
    "fn_train_args": TRAIN,
    "fn_predict_args": PREDICT,
}
SOURCES = os.path.join(os.path.dirname(__file__), *[os.pardir] * 3, "csrc")  # in a checkout


def extension() -> Any:
    """The extension; raises ImportError, whose text says why it is missing and how to get it."""
    try:
        module = _load()
    except ImportError as error:
        raise ImportError(
            "the C extension was not built or does not load: on Linux (x86-64, aarch64), install a "
            f"C compiler and run pip install --no-cache-dir --force-reinstall {DISTRIBUTION}, or "
            f"pip install . in a checkout [{error}]"
        ) from None
    difference = next(differences(module.ffi), None)
    if difference is None and os.path.isdir(SOURCES):
        digest = getattr(module.lib, "fn_source_digest", None)
        if digest is None or module.ffi.string(digest()).decode() != source_digest():
            difference = "its sources are not those of this checkout"
    if difference is not None:
        raise ImportError(f"the C extension is of another version ({difference}): reinstall")
    return module


def _load() -> Any:
    """Import the extension from the package or, in a checkout, from where it is installed.

    In a checkout Python finds the package's sources first, which have no extension beside them.
    """
    try:
        return importlib.import_module(MODULE)
    except ModuleNotFoundError as error:
        if error.name != MODULE or not os.path.isdir(SOURCES):
            raise
        for path in _installed():
            sys.modules[MODULE] = _from_file(MODULE, str(path))
            return sys.modules[MODULE]
        raise


def calls_module() -> Any:
    """The module of functions on arrays, which is in the extension's file."""
    return _from_file("fastnet._calls", extension().__file__)


def _from_file(name: str, path: str) -> Any:
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _installed() -> Iterator[Path]:
    import importlib.metadata  # it loads e-mail and archives, which only a checkout needs
    from pathlib import Path

    name = MODULE.replace(".", "/")
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.as_posix().startswith(f"{name}."):
            yield Path(str(file.locate()))


def source_digest() -> str:
    """The digest of C sources as the build computes it (see csrc/CMakeLists.txt)."""
    import hashlib  # it loads OpenSSL
    from pathlib import Path

    folder = Path(SOURCES)
    paths = [*folder.glob("*/*.c"), *folder.glob("*/*.h"), folder / "CMakeLists.txt"]
    paths.sort(key=lambda path: path.relative_to(folder).as_posix())
    digests = (hashlib.sha256(p.read_bytes()).hexdigest() for p in paths)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def differences(ffi: Any) -> Iterator[str]:
    """The differences between the extension's structs and the records, field by field, as text."""
    for struct, record in STRUCTS.items():
        assert record.fields is not None
        theirs = {
            name: (field.offset, ffi.sizeof(field.type))
            for name, field in ffi.typeof(struct).fields
        }
        ours = {name: (place[1], place[0].itemsize) for name, place in record.fields.items()}
        theirs["whole"], ours["whole"] = (0, ffi.sizeof(struct)), (0, record.itemsize)
        for name in (*theirs, *(ours.keys() - theirs.keys())):
            if ours.get(name) != theirs.get(name):
                yield (
                    f"{struct}.{name} has (offset, size) {theirs.get(name)} in C, "
                    f"{ours.get(name)} in the records"
                )
