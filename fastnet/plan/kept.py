"""A cache of what is made once for all that is alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Made = TypeVar("Made")


def last_used(cache: dict[Any, Made], key: Any, make: Callable[[], Made], most: int) -> Made:
    """The cached or newly made value of a key; evicts the value that was used least recently."""
    value = cache.pop(key, None)
    if value is None:
        value = make()
    cache[key] = value
    if len(cache) > most:
        del cache[next(iter(cache))]
    return value
