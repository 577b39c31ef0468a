"""Terminal: text as the standard output's encoding can show it."""

from __future__ import annotations

import sys


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def printable(text: str) -> str:
    """The text; characters outside the output's encoding become backslash escapes."""
    encoding = _encoding()
    return text.encode(encoding, "backslashreplace").decode(encoding)


def show(text: str) -> None:
    """Print a text as `printable` makes it."""
    print(printable(text), flush=True)


class Output:
    """A file of text that writes to the standard output what `printable` makes of it."""

    def write(self, text: str) -> int:
        """Write a text, without a line's end of its own."""
        return sys.stdout.write(printable(text))
