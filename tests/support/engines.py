"""What tests run on: the backends, and engines, of which C has one for each level of instruction sets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

import fastnet
from fastnet.backends import registry
from fastnet.backends.base import Backend


def backends() -> list[str]:
    """The available backends, or those named in FASTNET_TEST_BACKENDS, which must be available."""
    available = [name for name, info in fastnet.backends().items() if info.available]
    wanted = os.environ.get("FASTNET_TEST_BACKENDS", "")
    if not wanted:
        return available
    names = [name.strip() for name in wanted.split(",")]
    if missing := set(names) - set(available):
        raise pytest.UsageError(
            f"FASTNET_TEST_BACKENDS: {sorted(missing)} not available; there are {available}"
        )
    return names


@dataclass(frozen=True)
class Engine:
    """A backend by its name, at one of its levels where it has some.

    `like`: the level of the same backend that promises the same bits, if it is not the one that all of
    them are held to.
    """

    name: str
    level: int | None = None
    like: int | None = None

    def __str__(self) -> str:
        return title(registry.get(self.name), self.level)

    @contextmanager
    def running(self) -> Iterator[Backend]:
        """The backend, at this level until the end; an error says whose it is."""
        backend: Any = registry.get(self.name)
        before = None if self.level is None else backend.level()
        if self.level is not None:
            backend.set_level(self.level)
        try:
            yield backend
        except Exception as error:
            error.add_note(f"engine: {self}")
            raise
        finally:
            if before is not None:
                backend.set_level(before)


def title(backend: Any, level: int | None = None) -> str:
    """A backend's name, and that of a level, by default the one in force, where it has some."""
    if not hasattr(backend, "levels"):
        return str(backend.name)
    return f"{backend.name}-{backend.levels()[backend.level() if level is None else level]}"


def fma_levels() -> list[int]:
    """The levels of this machine that the promise of equal bits covers, lowest first."""
    c: Any = registry.get("c")
    others = {"x86-64", "aarch64-bf16"}  # a·b + c rounded twice; pairs of products rounded to odd
    return [i for i, name in enumerate(c.levels()) if name not in others]


def engines(names: Sequence[str]) -> list[Engine]:
    """All engines of these backends; of levels with equal bits the highest comes before the others."""
    found = []
    for name in names:
        backend: Any = registry.get(name)
        if not hasattr(backend, "levels"):
            found.append(Engine(name))
            continue
        *rest, top = fma_levels() or [0]
        alone = set(range(len(backend.levels()))) - {*rest, top}
        found += [Engine(name, level) for level in (*sorted(alone), top)]
        found += [Engine(name, level, like=top) for level in rest]
    return found
