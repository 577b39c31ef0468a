"""`fastnet info`: what runs here, and why something does not."""

from __future__ import annotations

import argparse
import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import fastnet
from fastnet.backends.c.backend import LEVEL_VARIABLE, CBackend
from fastnet.backends.c.extension import DISTRIBUTION
from fastnet.backends.numba.store import directory
from fastnet.backends.registry import backends, get
from fastnet.parallel import VARIABLES, get_num_threads
from fastnet.terminal import show

WORK = ("test", "bench", "dev", "docs")  # extras for work on fastnet itself


def run(options: argparse.Namespace) -> None:
    """Print all of it."""
    for line in lines():
        show(line)


def lines() -> Iterator[str]:
    """The lines of the text."""
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    yield f"fastnet {fastnet.__version__} in {Path(fastnet.__file__).parent}"
    yield f"Python {platform.python_version()}, {system}"
    yield "backends:"
    for name, found in backends().items():
        yield f"  {name}: {found}"
    yield f'  "auto" takes {get("auto").name}'
    yield f"instruction set of c: {_level()}"
    set_here = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    yield f"threads: {get_num_threads()}, {' '.join(set_here) or 'the cores that this process may use'}"
    yield f"cache of compiled code (numba): {_cache(directory())}"
    yield "packages:"
    for name, extra in required():
        yield f"  {name}{extra and f' (extra {extra})'}: {_version(name)}"


def _level() -> str:
    """The level of kernels that programs get, and which there are."""
    if not backends()["c"].available:
        return "none, as the backend is missing"
    backend = get("c")
    assert isinstance(backend, CBackend)
    known = backend.levels()
    return f"{known[backend.level()]} of {', '.join(known)} ({LEVEL_VARIABLE} selects)"


def _cache(place: Path | None) -> str:
    """A folder and what is in it."""
    if place is None:
        return "none, as there is no home directory"
    sizes = [file.stat().st_size for file in place.rglob("*") if file.is_file()]
    return f"{place}, {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB"


def required() -> Iterator[tuple[str, str]]:
    """The packages that the installed distribution needs, each with its extra or ""."""
    try:
        found = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return
    seen = set[str]()
    for text in found:
        name = re.match(r"[\w.-]+", text)
        extra = re.search(r"""extra\s*==\s*["']([\w-]+)["']""", text)
        if name is None or name[0] in (DISTRIBUTION, *seen) or (extra and extra[1] in WORK):
            continue
        seen.add(name[0])
        yield name[0], extra[1] if extra else ""


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
