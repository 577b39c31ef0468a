"""Writes fastnet/names.py: in which module each public name, configured class and op is.

    python csrc/late_names.py

The public names are those that the packages import under TYPE_CHECKING. The modules of their rooms are
loaded, and tell the classes and ops.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1] / "fastnet"
FILE = PACKAGE / "names.py"
HEAD = '''\
"""In which module of fastnet each name is that loads with its first use (see fastnet.late).

Written by `python csrc/late_names.py`.
"""

'''


def imported(source: Path) -> Iterator[tuple[str, str]]:
    """The names that a package imports for type checkers, each with its module within fastnet."""
    for block in ast.parse(source.read_text("utf-8")).body:
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING"):
            for node in block.body:
                assert isinstance(node, ast.ImportFrom) and node.module
                place = node.module.partition(".")[2]
                for alias in node.names:
                    if alias.name != "*":
                        yield alias.name, place or alias.name


def public() -> dict[str, str]:
    """The modules of public names; those that a package takes from another are in the latter's module."""
    packages = {
        ".".join(path.parent.relative_to(PACKAGE).parts): dict(imported(path))
        for path in PACKAGE.rglob("__init__.py")
    }
    found: dict[str, str] = {}
    for names in packages.values():
        for name, place in names.items():
            module = packages.get(place, {}).get(name, place)
            if found.setdefault(name, module) != module:
                raise ValueError(f"the name {name} is in {found[name]} and in {module}")
    return found


def table(title: str, places: Mapping[str, str]) -> str:
    """A table as Python code."""
    lines = [f'    "{name}": "{place}",' for name, place in sorted(places.items())]
    return "\n".join([f"{title} = {{", *lines, "}"])


def whole(public: Mapping[str, str], kinds: Mapping[str, str], ops: Iterable[str]) -> str:
    """The file's text."""
    lines = (f'    "{place}",' for place in sorted(ops))
    return HEAD + "\n".join(
        [
            table("PUBLIC", public),
            "# Classes that configurations name.",
            table("KINDS", kinds),
            "# The modules with ops.",
            *("OPS = (", *lines, ")", ""),
        ]
    )


def first() -> str:
    """The text with the present public names, by which the package loads."""
    old: dict[str, Any] = {}
    if FILE.exists():
        exec(FILE.read_text("utf-8"), old)
    return whole(public(), old.get("KINDS", {}), old.get("OPS", ()))


def text() -> str:
    """The text that fits the package, whose modules load."""
    names = public()
    rooms = {place.partition(".")[0] for place in names.values()} - {"sklearn"}  # not optional
    for path in (path for room in rooms for path in (PACKAGE / room).rglob("[!_]*.py")):
        import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    from fastnet.configured import registered
    from fastnet.op import KERNELS

    def within(values: Iterable[type]) -> dict[str, str]:
        there = [v for v in values if hasattr(sys.modules[v.__module__], v.__name__)]
        places = {v.__name__: v.__module__.partition(".") for v in there}
        return {name: place for name, (top, _, place) in places.items() if top == PACKAGE.name}

    return whole(
        names,
        within(registered()),
        {*within(kernel.op for kernel in KERNELS.values()).values()},
    )


if __name__ == "__main__":
    sys.path.insert(0, str(PACKAGE.parent))
    FILE.write_text(first(), encoding="utf-8")  # with these names the package loads
    FILE.write_text(text(), encoding="utf-8")
