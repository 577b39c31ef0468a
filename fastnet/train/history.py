"""History: what a trainer recorded, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastnet.errors import Attributed, FastnetError, HyperparameterError, shown


class History(Attributed):
    """The records of the epochs of a trainer, in order.

    records: one dict an epoch: "epoch" (from 1), "loss", the metrics ("accuracy"), with validation
        data "val_loss" and "val_accuracy", "seconds", and "samples_per_second" of training.
    """

    records: list[dict[str, Any]]

    def __init__(self, records: Any = ()) -> None:
        self.records = copied_records("records", records)

    @property
    def history(self) -> dict[str, list[Any]]:
        """The records by name: {"loss": [first epoch, second, …], …}, as Keras shows them."""
        names = dict.fromkeys(name for record in self.records for name in record)
        return {name: [record.get(name) for record in self.records] for name in names}

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        last = f", last {self.records[-1]}" if self.records else ""
        return f"<History of {len(self)} epochs{last}>"


def copied_records(
    name: str, records: Any, error: type[FastnetError] = HyperparameterError
) -> list[dict[str, Any]]:
    """A list of copies of records; `error` is raised of what is none."""
    if not isinstance(records, (list, tuple)) or not all(isinstance(r, Mapping) for r in records):
        raise error(f"{name} is {shown(records)}; expected a list of dicts, one an epoch")
    return [dict(record) for record in records]
