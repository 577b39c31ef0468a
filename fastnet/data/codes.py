"""Columns of a model's input that hold integer codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastnet.errors import DataError
from fastnet.op import Array
from fastnet.plain import plain


@plain(eq=True, frozen=True)
class Code:
    """A column of the input with integer codes, and the layer that reads it.

    column: of the input. count: the codes are 0, 1, …, count − 1. label: the layer's name in messages.
    remedy: what to do where a number is no code.
    """

    column: int
    count: int
    label: str
    remedy: str


class Codes:
    """All columns with codes of one input."""

    def __init__(self, found: Sequence[Code]) -> None:
        self.found = list(found)
        self._columns = np.array([code.column for code in found], np.intp)
        self._counts = np.array([code.count for code in found], np.float64)

    def hold(self, x: Array) -> bool:
        """Whether the columns of x (n, features) hold codes."""
        values = x[:, self._columns]
        return bool((_whole(values) & (values < self._counts)).all())

    def check(self, name: str, x: Array) -> None:
        """Raise DataError where they do not; name: what messages call x."""
        if self.hold(x):
            return
        for code in self.found:
            values = x[:, code.column]
            bad = ~(_whole(values) & (values < code.count))
            if bad.any():
                first = int(bad.argmax())
                raise DataError(
                    f"{name} holds {int(bad.sum())} values in column {code.column} that are no codes of "
                    f"{code.label}; the first is {values[first]} in row {first}, expected integers in "
                    f"[0, {code.count - 1}]; {code.remedy}"
                )


def _whole(values: Array) -> Array:
    whole: Array = (values >= 0) & (values == np.trunc(values))
    return whole
