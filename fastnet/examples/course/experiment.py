"""What an experiment is: a function that trains, rows of a table, a picture, and bands of its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Data:
    """Images and their classes, to train on and to test with.

    X, X_test: float32 (n, side²), from 0 to 1. y, y_test: int64 (n,). name: what they are, for people.
    mnist: whether they are MNIST's.
    """

    X: Array
    y: Array
    X_test: Array
    y_test: Array
    name: str
    mnist: bool

    @property
    def inputs(self) -> int:
        """The number of pixels of an image."""
        return int(self.X.shape[1])

    def few(self, count: int) -> Data:
        """The same with so many rows to train on, the first ones."""
        return Data(self.X[:count], self.y[:count], self.X_test, self.y_test, self.name, self.mnist)


@dataclass(frozen=True)
class Row:
    """A row of an experiment's table.

    what: what was measured. ours: what came out. published: what the source says, in the same unit, or
    None where it gives no number. source: who published it, and where. unit: behind both numbers. digits:
    behind the point. why: why the two may differ. checked: whether the published figure was compared with a
    copy of the source; if not, the table says so.
    """

    what: str
    ours: float
    published: float | None = None
    source: str = ""
    unit: str = ""
    digits: int = 2
    why: str = ""
    checked: bool = True

    def cells(self) -> tuple[str, str, str, str, str]:
        """What a table shows: what, ours, published, the difference, and the remark."""
        shown = _number(self.ours, self.digits) + self.unit
        doubt = "" if self.checked else "quoted from memory, not compared with the source"
        remark = "; ".join(part for part in (self.source, doubt, self.why) if part)
        if self.published is None:
            return self.what, shown, "–", "", remark
        published = _number(self.published, self.digits) + self.unit
        apart = round(self.ours, self.digits) - self.published
        difference = f"{apart:+,.{self.digits}f}".replace("-", "−") + self.unit
        return self.what, shown, published, difference, remark


def _number(value: float, digits: int) -> str:
    if not np.isfinite(value):
        return "∞" if value > 0 else "not a number"
    form = "e" if value and not 1e-4 < abs(value) < 1e6 else "f"
    return f"{value:,.{digits}{form}}".replace("-", "−")


@dataclass
class Result:
    """What an experiment found: the rows of its table, what its picture needs, and its key figures."""

    rows: list[Row]
    drawn: dict[Any, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """An experiment of the course.

    name: for `--only`. title: a heading. place: where it stands among the others. text: what it shows, a
    few sentences. run: (data, seed, quick) → Result; `quick` asks for seconds instead of a minute. draw:
    (figure, result), on a figure of matplotlib's. size: of the picture, in inches. needs_mnist: the
    experiment is about images of 28 × 28 pixels, and is left out without them. bands: for key figures the
    bounds that any seed keeps on the embedded digits. They hold all that 20 seeds gave, widened at each
    end by half of their range.
    """

    name: str
    title: str
    place: int
    text: str
    run: Callable[[Data, int, bool], Result]
    draw: Callable[[Any, Result], None]
    size: tuple[float, float] = (7.2, 3.2)
    needs_mnist: bool = False
    bands: Mapping[str, tuple[float, float]] = field(default_factory=dict)
