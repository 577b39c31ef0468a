"""Progress: what a fit shows, lines for epochs and on a terminal a bar with loss and time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastnet.errors import HyperparameterError, shown
from fastnet.terminal import show

# The line shows _FIRST, then any other metrics, then _LAST.
_FIRST = ("loss", "accuracy")
_LAST = ("seconds", "samples_per_second")

SECONDS = 0.1  # at least, between two drawings of the bar; on average, between two lines
LINES = 20  # the first epochs, which have lines however short they are


def _number(value: float) -> str:
    """Four decimals; three digits for what would have none of them."""
    return f"{value:.4f}" if value == 0 or not abs(value) < 1e-3 else f"{value:.2e}"


def epoch_line(record: dict[str, Any], last_epoch: int) -> str:
    """One epoch's record as a line of text."""
    names = [n for n in record if n not in (*_FIRST, *_LAST, "epoch")]
    width = len(str(last_epoch))
    parts = [f"epoch {record['epoch']:>{width}}/{last_epoch}"]
    parts += [f"{n} {_number(record[n])}" for n in (*_FIRST, *names) if n in record]
    parts.append(f"{record['seconds']:.3f} s")
    parts.append(f"{record['samples_per_second']:,.0f} samples/s")
    return "  ".join(parts)


def round_up(number: float) -> int:
    """The least of 1, 2, 5, 10, 20, 50, … that is about as large, or larger."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power >= 0.95 * number:
                return digit * power
        power *= 10


class Progress:
    """Shows the epochs of one fit: nothing, lines, or lines above a bar.

    Epochs that take less than SECONDS have no line each. After the first LINES epochs those whose number
    is a multiple of 1, 2, 5, 10, 20, … have one, of that which makes about one line in SECONDS; and so has
    the last epoch. The bar is drawn after SECONDS at the earliest, and again after SECONDS each.

    rows: those of an epoch; None: not known.
    """

    def __init__(self, verbose: int, rows: int | None) -> None:
        if not isinstance(verbose, (int, np.integer)) or verbose not in (0, 1):
            raise HyperparameterError(
                f"verbose is {shown(verbose)}; expected 0 (silent) or 1 (lines for epochs, and a bar)"
            )
        self.verbose, self.rows = verbose, rows
        self.bar: Any = None
        self._on_terminal = False
        self._first = self._last_epoch = 0  # epochs before this fit, and after it
        self._epoch = 0  # that has ended
        self._before = self._done = (
            0  # rows of this fit's epochs that are done, at its begin and now
        )
        self._begun = self._drawn = 0.0
        self._lines = 0  # that have been printed
        self._every: int | None = None  # epochs from line to line; None: not known yet
        self._counted = 0.0, 0  # when `_every` was found, and the epoch then
        self._unshown: Callable[[], dict[str, Any]] | None = None  # the last epoch's record

    def begin(self, epoch: int, last_epoch: int, rows: int = 0) -> None:
        """Begin a fit, after so many epochs of the trainer and so many rows of the next one."""
        if not self.verbose:
            return
        self._on_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._first, self._epoch, self._last_epoch = epoch, epoch, last_epoch
        self._before = self._done = rows
        self._begun = self._drawn = time.monotonic()
        self._counted = self._begun, epoch

    def advance(self, rows: int, loss: Callable[[], float]) -> None:
        """Move the bar on; `loss` computes the epoch's mean so far."""
        if not self._on_terminal:
            return
        self._done += rows
        now = time.monotonic()
        if now - self._drawn >= SECONDS:
            self._drawn = now
            self._draw(now, loss())

    def _draw(self, now: float, loss: float) -> None:
        if self.bar is None:
            from tqdm import tqdm  # slow to import, and only a terminal needs it

            epochs = self._last_epoch - self._first
            self.bar = tqdm(
                total=None if self.rows is None else epochs * self.rows,
                initial=self._before,
                unit=" samples",
                leave=False,
                unit_scale=True,
                delay=SECONDS / 2,  # so that it does not draw itself before it is complete
            )
            self.bar.start_t -= now - self._begun
        if self.rows is None:
            epoch = min(self._epoch + 1, self._last_epoch)
        else:
            epoch = self._first + max(1, -(-self._done // self.rows))
        self.bar.set_description_str(f"epoch {epoch}/{self._last_epoch}", refresh=False)
        self.bar.set_postfix_str(f"loss {_number(loss)}", refresh=False)
        self.bar.n = self._done
        self.bar.refresh()

    def epoch_ended(self, record: dict[str, Any]) -> None:
        """Print an epoch's line, if it has one."""
        if self.verbose:
            self._ended(record["epoch"], 1, lambda _: record)

    def epochs_ended(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Print the lines of several epochs, those of them that have one."""
        if self.verbose:
            epochs = columns["epoch"]
            self._ended(
                epochs[0], len(epochs), lambda i: {name: part[i] for name, part in columns.items()}
            )

    def _ended(self, first: int, count: int, record: Callable[[int], dict[str, Any]]) -> None:
        now, last = time.monotonic(), first + count - 1
        self._epoch = last
        since, epoch = self._counted
        if now - since >= SECONDS:
            self._every = round_up(SECONDS * (last - epoch) / (now - since))
            self._counted = now, last
        free = min(count, max(0, LINES - self._lines))
        due = list(range(first, first + free))
        if self._every is not None:
            every = self._every
            due += range(-(-(first + free) // every) * every, last + 1, every)
        self._lines += len(due)
        self._unshown = None if last in due[-1:] else partial(record, count - 1)
        if due:
            self._show([record(epoch - first) for epoch in due])

    def _show(self, records: list[dict[str, Any]]) -> None:
        if self.bar is not None:
            self.bar.clear()
        # A metric may have any name, and the output's encoding few characters.
        show("\n".join(epoch_line(record, self._last_epoch) for record in records))

    def close(self) -> None:
        """Print the line of the last epoch, unless it has one, and take the bar away."""
        unshown, self._unshown = self._unshown, None
        try:
            if unshown is not None:
                self._show([unshown()])
        finally:
            if self.bar is not None:
                self.bar.close()
                self.bar = None
