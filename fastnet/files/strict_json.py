"""JSON without its doubtful parts: no name twice, no NaN, nothing before or after the value."""

from __future__ import annotations

import json
from typing import Any


def written(value: Any) -> str:
    """The text of a value; ValueError or TypeError where JSON has none."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def read(text: str | bytes) -> Any:
    """The value of a text; ValueError where it is anything but one value without repeated names."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")  # a UnicodeDecodeError is a ValueError
    if text[:1].isspace():
        raise ValueError("it begins with a blank")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refused)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it has a name twice")
    return found


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
