"""Names that load with their first use: a program that only predicts needs few of the package's modules.

A package writes the imports of its public names for readers and type checkers, under TYPE_CHECKING, and
takes `__getattr__` and `__dir__` from `late_names`. `fastnet.names`, which `python csrc/late_names.py`
writes, says in which module each of them is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from fastnet.names import KINDS, OPS, PUBLIC


def late_names(
    package: str, names: Iterable[str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose public names load with their first use."""
    known, space = frozenset(names), vars(sys.modules[package])

    def get(name: str) -> object:
        if name not in known or name not in PUBLIC:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        space[name] = _found(PUBLIC[name], name)
        return space[name]

    return get, lambda: sorted({*space, *known})


def _found(place: str, name: str) -> Any:
    """The value of a name in its module, or the module that has this name."""
    module = import_module(f"fastnet.{place}")
    return module if place == name else getattr(module, name)


def kind(name: str) -> Any:
    """fastnet's own class of this name that `configured.from_config` makes, or None."""
    return _found(KINDS[name], name) if name in KINDS else None


def dropped(kind: type) -> bool:
    """Whether a class of the package is of a module whose import was interrupted, and begins anew."""
    there = getattr(sys.modules.get(kind.__module__), kind.__name__, None)
    return kind.__module__.startswith("fastnet.") and there is not kind


def load_ops() -> None:
    """Load every op of the package, for those who list kernels."""
    for place in OPS:
        import_module(f"fastnet.{place}")
