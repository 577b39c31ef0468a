"""Progress: what a fit prints, a bar on a terminal and one line for each epoch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.errors import HyperparameterError, shown

# The line shows _FIRST, then any other metrics, then _LAST.
_FIRST = ("loss", "accuracy")
_LAST = ("seconds", "samples_per_second")


def epoch_line(record: dict[str, Any], last_epoch: int) -> str:
    """One epoch's record as a line of text."""
    names = [n for n in record if n not in (*_FIRST, *_LAST, "epoch")]
    width = len(str(last_epoch))
    parts = [f"epoch {record['epoch']:>{width}}/{last_epoch}"]
    parts += [f"{n} {record[n]:.4f}" for n in (*_FIRST, *names) if n in record]
    parts.append(f"{record['seconds']:.3f} s")
    parts.append(f"{record['samples_per_second']:,.0f} samples/s")
    return "  ".join(parts)


def show(text: str) -> None:
    """Print a text; characters outside the output's encoding become backslash escapes."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


class Progress:
    """Shows the epochs of one fit: nothing, lines, or lines below a bar."""

    def __init__(self, verbose: int, rows: int | None) -> None:
        if not isinstance(verbose, (int, np.integer)) or verbose not in (0, 1):
            raise HyperparameterError(
                f"verbose is {shown(verbose)}; expected 0 (silent) or 1 (a line an epoch, or a bar)"
            )
        self.verbose, self.rows = verbose, rows
        self.bar: Any = None

    def begin_epoch(self, epoch: int, last_epoch: int) -> None:
        """Start the bar of an epoch, on a terminal."""
        if self.verbose and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm  # slow to import, and only a terminal needs it

            self.bar = tqdm(
                total=self.rows,
                desc=f"epoch {epoch}/{last_epoch}",
                unit=" samples",
                leave=False,
                unit_scale=True,
            )

    def advance(self, rows: int, loss: Callable[[], float]) -> None:
        """Move the bar on; `loss` computes the epoch's mean so far."""
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss():.4f}", refresh=False)
            self.bar.update(rows)

    def end_epoch(self, record: dict[str, Any], last_epoch: int) -> None:
        """Take the bar away and print the epoch's line."""
        self.close()
        if self.verbose:
            show(epoch_line(record, last_epoch))  # a metric may have any name

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
