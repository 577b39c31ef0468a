"""What a training shows on standard error: a bar on a terminal, else some lines."""

from __future__ import annotations

import sys
import time
from typing import Any

import fastnet as fn
from fastnet.cli.main import note

SECONDS = 10.0  # between two lines


class EpochBar(fn.Callback, base=True):
    """Counts epochs, with the loss of the training and the metric of the validation."""

    bar: Any = None  # tqdm's
    told: float = 0.0  # when the last line was printed

    def on_train_begin(self) -> None:
        """Wait for the first line."""
        self.told = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Move the bar, or print a line now and then."""
        numbers = [f"{n} {v:.4g}" for n, v in logs.items() if n == "loss" or n[:4] == "val_"]
        if sys.stderr is not None and sys.stderr.isatty():
            if self.bar is None:
                from tqdm import tqdm

                self.bar = tqdm(desc="epochs", unit="", initial=epoch - 1, leave=False)
            self.bar.set_postfix_str(", ".join(numbers), refresh=False)
            self.bar.update()
        elif time.monotonic() - self.told > SECONDS:
            self.told = time.monotonic()
            note(f"epoch {epoch}: {', '.join(numbers)}")

    def on_train_end(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
