"""History: what a trainer recorded, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastnet.errors import Attributed


@dataclass
class History(Attributed):
    """The records of the epochs of a trainer, in order.

    records: one dict an epoch: "epoch" (from 1), "loss", the metrics ("accuracy"), with validation
        data "val_loss" and "val_accuracy", "seconds", and "samples_per_second" of training.
    """

    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def history(self) -> dict[str, list[Any]]:
        """The records by name: {"loss": [first epoch, second, …], …}, as Keras shows them."""
        names = dict.fromkeys(name for record in self.records for name in record)
        return {name: [record.get(name) for record in self.records] for name in names}

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        last = f", last {self.records[-1]}" if self.records else ""
        return f"<History of {len(self)} epochs{last}>"
