"""What pages and tutorials say that their programs print."""

from __future__ import annotations

import re


def expected(block):
    """For each print of a block, what its comment says, or None."""
    told = re.findall(r"^print\(.*?\)(?:  # (.*))?$", block, re.MULTILINE)
    return [text or None for text in told]


def fits(text, line):
    """Whether a line is what a comment says: … stands for anything, and a number for one like it."""
    parts = [re.escape(part) for part in text.split("…")]
    pattern = ".*".join(re.sub(r"\d+\\\.\d+", r"\\d+\\.\\d+", part) for part in parts)
    return re.fullmatch(pattern, line) is not None
