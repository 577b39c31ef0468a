"""The functions of elements that formulas call, as C text: taken from the C backend's own headers.

`fastnet/export/elements.h` is a copy of what headers of csrc/lib define, as an installation has no csrc;
csrc/generate.py writes it.
"""

from __future__ import annotations

import re
from pathlib import Path

SOURCES = ("elementary.h", "formula.h")  # of csrc/lib


def elements_of(lib: Path) -> str:
    """The text of elements.h: all functions and constants of these headers, without their loops."""
    texts = [(lib / name).read_text("utf-8") for name in SOURCES]
    first = re.split(r"enum \{ MANTISSA", texts[0], maxsplit=1)[1]
    first = re.split(r"/\* to = f\(from\)", first, maxsplit=1)[0]
    # clang, which does not compile csrc with these warnings, wants parentheses before `?`.
    first = re.sub(r"\((\(\w+ [<>] \S+ & \(.*\)) \? (\w+) : ", r"((\1) ? \2 : ", first)
    lines = [line for line in texts[1].splitlines() if re.match(r"ELEMENT|static inline int", line)]
    head = (
        "/* Written by csrc/generate.py from csrc/lib: change those. Functions of elements, with the\n"
        " * bits of the C backend; `real` is the dtype, `bits` the unsigned integer of its size. */"
    )
    return "\n\n".join([head, "enum { MANTISSA" + first.rstrip(), *lines]) + "\n"
