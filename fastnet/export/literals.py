"""Numbers and texts as C writes them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np

WIDTH = 110  # of a line


def number(value: Any, kind: str) -> str:
    """A constant of the type float, double, or an integer type; its bits are those of the value."""
    if kind not in ("float", "double"):
        return str(int(value))
    value = np.float32(value) if kind == "float" else np.float64(value)
    if not math.isfinite(value):
        text = "NAN" if value != value else "INFINITY"
        return f"({kind}){'-' if value < 0 else ''}{text}"
    text = str(value)
    text += "" if "." in text or "e" in text else ".0"
    return f"{text}f" if kind == "float" else text


def table(head: str, texts: Iterable[str]) -> str:
    """The definition of an array: `head` = {…}."""
    lines, line = [f"{head} = {{"], "   "
    for text in texts:
        if len(line) + len(text) + 2 > WIDTH:
            lines.append(line)
            line = "   "
        line += f" {text},"
    return "\n".join([*lines, line.rstrip(",") + "};"])


def comment(*paragraphs: str) -> str:
    """A comment of these paragraphs, in lines."""
    wrapped = [textwrap.wrap(text, WIDTH, break_long_words=False) for text in paragraphs]
    lines = [
        line for number, part in enumerate(wrapped) for line in ([""] if number else []) + part
    ]
    return "\n".join(f" * {line}".rstrip() for line in lines).replace(" * ", "/* ", 1) + " */"


def string(text: str) -> str:
    """A string constant in UTF-8."""
    parts = []
    for byte in text.encode("utf-8", "surrogatepass"):
        letter = chr(byte)
        plain = letter.isascii() and letter.isprintable() and letter not in '"\\?'
        parts.append(letter if plain else f"\\{byte:03o}")
    return f'"{"".join(parts)}"'


def in_comment(text: str) -> str:
    """A text of a user's as it may stand in a comment of one line."""
    shown = ascii(text)[1:-1]
    shown = shown.replace("*/", "*\\/").replace("/*", "/\\*")
    return shown.replace("??", "?\\?")  # begins a trigraph
