"""TableModel: what a fit of TabularClassifier or TabularRegressor has found, without scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.data.labels import listed
from fastnet.errors import DataError, ShapeError, UsageError
from fastnet.files import tensors
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.tabular.columns import Columns, columns_of
from fastnet.tabular.nets import Nets, tempered
from fastnet.tabular.network import Input, inputs_of, network, rows_of
from fastnet.tabular.saved import restored_table, save


@dataclass(frozen=True, eq=False, repr=False)
class TableModel:
    """Trained nets for tables; `estimator.table_model()` makes it, and `fn.tabular.load` reads it.

    task: "classification" or "regression". preset: that of the estimator. columns: what was found of the
    columns. nets: those of each fold. target: what the target is called, or "". classes: the labels, None
    for a regression. temperature, mixed: of the calibration of probabilities. bounds: the least and the
    greatest target, (k,) each, within which predictions stay, or None. flat: whether predictions of a
    regression are (n,). For those who read files whose cells are text, as CSV files: missing: texts that
    stand for a missing value; decimal: the mark of decimals in the training's file, "." or ",".
    """

    task: str
    preset: str
    columns: Columns
    nets: Sequence[Nets]
    target: str = ""
    classes: Array | None = None
    temperature: float = 1.0
    mixed: float = 0.0
    bounds: tuple[Array, Array] | None = None
    flat: bool = True
    missing: Sequence[str] = ()
    decimal: str = "."

    @property
    def names(self) -> list[str]:
        """The names of the columns that a prediction needs."""
        return list(self.columns.names)

    def predict(self, X: Any) -> Array:
        """The labels (n,), or predictions (n,) or (n, k) in float64.

        X: a frame of pandas or polars or a table of pyarrow, whose columns are found by name, and may stand
        in any order among others; or an array with the columns in order. Missing numbers and categories,
        and categories that the training has not seen, are treated as by the estimator. Raises DataError
        where a column is missing or holds text in place of numbers, an infinite number or dates.
        """
        found = self._mean(X)
        if self.classes is not None:
            labels: Array = self.classes[np.argmax(found, axis=1)]
            return labels
        if self.bounds is not None:
            found = np.clip(found, *self.bounds)
        return found[:, 0] if self.flat else found

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (n, classes), float64, a column for each of `classes`; X as for `predict`."""
        if self.classes is None:
            raise UsageError("predict_proba: this model is of a regression; write predict")
        return tempered(self._mean(X), self.temperature, self.mixed)

    def network(self) -> Sequential:
        """One net that computes what `predict` does from numbers and codes, to be exported.

        Its inputs are `self.inputs`: the columns in order, where a category is its number in the list of
        categories, and a missing or unknown one is −1; then, for each column of numbers with missing ones,
        an input that is 1 where the number is missing, which itself is then `fill`, and else 0. No layer
        fixes their number: exports take input_shape=(len(self.inputs),). Its outputs are predictions of
        numbers; of C classes they are logits, whose softmax p makes the probabilities (1 − mixed)·p +
        mixed/C. They agree with `predict` within the rounding of float32.

        Raises UsageError where the model averages several nets, or where float32 is too coarse for a
        column: where its steps near the centre exceed a thousandth of what the scaler divides by, as in
        seconds since 1970 of one day. `predict` scales in float64.
        """
        return network(self)

    @property
    def inputs(self) -> list[Input]:
        """The inputs of `network`, each with its name, its categories or None, and `fill`."""
        return inputs_of(self.columns, self.nets[0].fill)

    def rows(self, X: Any) -> Array:
        """The rows of `network` for a table X, as `predict` takes and refuses it: float64 (n, inputs)."""
        columns = self._select(*columns_of(X))
        known = zip(self.columns.known, columns, strict=True)
        plain = [self.columns.numbers(i, c) if k is None else c for i, (k, c) in enumerate(known)]
        return rows_of(self.columns, self.nets[0].fill, plain)

    def save(self, path: Any) -> None:
        """Write a safetensors file, which `fn.tabular.load` reads; an existing one is replaced as a whole.

        Raises UsageError where a label or a category is of a kind that no file keeps, such as a date.
        """
        save(self, path)

    def __repr__(self) -> str:
        count = sum(len(part.models) for part in self.nets)
        return f"TableModel({self.task}, {self.preset!r}, {len(self.names)} columns, {count} nets)"

    def _mean(self, X: Any) -> Array:
        """The mean of what all nets say of rows, float64 (n, outputs)."""
        table = self.columns.table(self._select(*columns_of(X)))
        return np.asarray(
            np.mean([n.mean(table, self.preset, self.task) for n in self.nets], axis=0)
        )

    def _select(self, columns: list[Array], names: list[str]) -> list[Array]:
        """The columns that the model knows, in its order."""
        if names == self.names:
            return columns
        if names == [f"column {i}" for i in range(len(names))]:  # an array
            if len(names) != len(self.names):
                raise ShapeError(
                    f"X has {len(names)} columns; expected the {len(self.names)} of the fit: "
                    f"{listed(self.names)}"
                )
            return columns
        missing = [name for name in self.names if name not in names]
        if missing:
            raise DataError(f"X lacks {listed(missing)}; expected the columns of the fit by name")
        several = [name for name in self.names if names.count(name) > 1]
        if several:
            raise DataError(f"X has {listed(several)} more than once; expected each column once")
        return [columns[names.index(name)] for name in self.names]


def load(path: Any) -> TableModel:
    """The model of a file that `TableModel.save` or `save` of a tabular estimator has written.

    It needs no scikit-learn, and predicts to the bits of the estimator on the same backend and machine.
    Raises FileError for a file that is damaged or holds no such model, and OSError where it cannot be read.
    No code of a file is run.
    """
    return restored_table(tensors.read(path), TableModel)
