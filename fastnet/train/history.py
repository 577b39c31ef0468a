"""History: the records of a trainer, one for each epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastnet.errors import Attributed, FastnetError, HyperparameterError, MissingExtra, shown
from fastnet.plot.curves import curves


class History(Attributed):
    """The records of a trainer's epochs, in order.

    records: one dict for each epoch with "epoch" (from 1), "loss", the metrics ("accuracy"), "seconds",
        "samples_per_second" of training, and with validation data "val_loss" and "val_accuracy". Epochs
        that run in one native call share its time evenly.
    error: the DivergenceError that ended the training by `fn.fit_many`, or None.
    """

    error: Exception | None = None

    def __init__(self, records: Any = ()) -> None:
        self.records = records

    def _assignable(self) -> Iterable[str]:
        return "records", "error"

    @property
    def records(self) -> list[dict[str, Any]]:
        """One dict an epoch, in order."""
        for columns in self._columns:
            rows = zip(*columns.values(), strict=True)
            self._records += [dict(zip(columns, row, strict=True)) for row in rows]
        self._columns.clear()
        return self._records

    @records.setter
    def records(self, records: Any) -> None:
        self._records = copied_records("records", records)
        self._columns: list[Mapping[str, Sequence[Any]]] = []  # of later epochs, one record an item

    def append(self, record: dict[str, Any]) -> None:
        """Add the record of an epoch."""
        (self._records if not self._columns else self.records).append(record)

    def extend(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Add the records of epochs by their values; they are made when somebody reads them."""
        self._columns.append(columns)

    @property
    def history(self) -> dict[str, list[Any]]:
        """The records by name: {"loss": [first epoch, second, …], …}, as Keras shows them."""
        names = dict.fromkeys(name for record in self.records for name in record)
        return {name: [record.get(name) for record in self.records] for name in names}

    def plot(self, figure: Any = None) -> Any:
        """Draw loss, metrics and learning rate by epoch, training and validation; returns the figure.

        figure: a figure of matplotlib's to draw in, such as pyplot.figure(layout="constrained") (default
            None: a new one, which pyplot does not know and a notebook shows).

        Losses and rates that span decades have a logarithmic axis. A rate is drawn where the records have
        an "lr" or "learning_rate". Raises MissingExtra without matplotlib (the extra `plot`), UsageError
        without records.
        """
        return curves(self.records, figure)

    def to_frame(self) -> Any:
        """The records as a pandas DataFrame: a row for each epoch, a column for each name.

        Raises MissingExtra without pandas.
        """
        return frame_of(self.records)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.records == other.records

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        last = f", last {self.records[-1]}" if self.records else ""
        return f"<History of {len(self)} epochs{last}>"


def frame_of(records: list[dict[str, Any]]) -> Any:
    """Records as a pandas DataFrame; MissingExtra without pandas."""
    try:
        from pandas import DataFrame
    except ImportError:
        raise MissingExtra('to_frame needs pandas: pip install "fastnet-engine[pandas]"') from None
    return DataFrame.from_records(records)


def copied_records(
    name: str, records: Any, error: type[FastnetError] = HyperparameterError
) -> list[dict[str, Any]]:
    """A list of copies of the records; raises `error` where one of them is no dict."""
    if not isinstance(records, (list, tuple)) or not all(isinstance(r, Mapping) for r in records):
        raise error(f"{name} is {shown(records)}; expected a list of dicts, one an epoch")
    return [dict(record) for record in records]
