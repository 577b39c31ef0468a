"""The base of preprocessing: layers whose numbers are fitted to data and are part of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from fastnet.data import arrays
from fastnet.data.frames import names_of
from fastnet.errors import DataError, ShapeError, UsageError, check_int, shown
from fastnet.init import Zeros
from fastnet.layers.base import Layer, Shape
from fastnet.op import Array
from fastnet.tape import Tape, Value

BLOCK = 1 << 18  # numbers of the data that are looked at together, in float64
LARGEST = float(np.finfo(np.float32).max)

Values = dict[str, Array]


class Preprocessor(Layer, base=True):
    """Base of the layers of `fastnet.preprocess`.

    `fit(X)` computes the layer's numbers from data X (n, features) in float64 and keeps them as buffers:
    no training changes them, and `state_dict`, `save`, `load`, copies and a trainer's files have them. A
    layer outside a model keeps them in float64; in a model they have the model's dtype. A model whose
    layer is not fitted refuses to run.

    A subclass declares its buffers in `_declare_numbers`, and defines `_fitted`, which computes their
    values, `emit`, which calls `_check_ready`, and `_inverse`.
    """

    def __init__(self, num_features: int | None, **config: Any) -> None:
        known = None if num_features is None else check_int("num_features", num_features, low=1)
        super().__init__(num_features=known, **config)
        if self._is_determined():
            self._declare_all()

    # What a subclass defines.

    least_rows = 1  # that a fit needs

    def _is_determined(self) -> bool:
        """Whether the arguments determine the shapes of the buffers."""
        return self.num_features is not None

    def _determine(self, features: int, values: Values) -> None:
        """Complete the arguments by what a first fit has found."""
        self._config["num_features"] = features

    def _declare_numbers(self, features: int) -> None:
        """Declare the buffers for data with so many features, by `_number`."""
        raise NotImplementedError

    def _fitted(self, X: Array) -> Values:
        """The values of the buffers for data X (n, features), float64."""
        raise NotImplementedError

    def _inverse(self, y: Array) -> Array:
        """The inverse of the layer for outputs y (n, …), float64."""
        raise NotImplementedError

    # What all have.

    def fit(self, X: Any) -> Self:
        """Fit the numbers to data X (n, features), finite, n ≥ 1; returns the layer.

        X is an array, a list of rows or a data frame of numbers. It is read in blocks of rows and never
        copied whole. A layer made without num_features takes X's number of features. A layer of a model is
        fitted in place, as by `load_state_dict`. Raises ShapeError where X has another number of features,
        DataError where it has no rows or holds NaN or infinity; then nothing has changed.
        """
        X = self._table("X", X)
        if len(X) < self.least_rows:
            raise DataError(
                f"X has {len(X)} rows; {self.label}.fit needs at least {self.least_rows}"
            )
        values = {name: np.asarray(v) for name, v in self._fitted(X).items()}
        for name, value in values.items():
            self._check_range(name, value)
        if not self._parameters:
            self._determine(X.shape[1], values)
            self._declare_all()
        self._take({**values, "n_samples_seen_": np.array([len(X)])})
        return self

    def fit_transform(self, X: Any) -> Array:
        """`fit(X)`, then `transform(X)`."""
        return self.fit(X).transform(X)

    def transform(self, X: Any) -> Array:
        """The layer's output for X (n, features), a new float32 array (float64 in a float64 model).

        It computes in float64 from X as it is, and rounds the result. A model rounds X to its dtype first:
        see `fastnet.preprocess`. Raises UsageError before a fit, ShapeError or DataError for what `fit`
        refuses; X may have no rows.
        """
        X = self._table("X", X)
        self._check_ready()
        return self._in_blocks(X, self._output, self.output_shape(X.shape[1:]))

    def inverse_transform(self, X: Any) -> Array:
        """The data (n, features) whose `transform` is X, a new array of the same dtype as `transform`'s."""
        self._check_ready()
        shape = self.output_shape((self.num_features,))
        X = arrays.numbers("X", X)
        arrays.check_rows("X", X.shape, shape)
        arrays.check_finite("X", X, np.float64)
        return self._in_blocks(X, self._inverse, (self.num_features,))

    @property
    def n_features_in_(self) -> int | None:
        """num_features, by scikit-learn's name."""
        found: int | None = self.num_features
        return found

    @property
    def in_width(self) -> int:
        """num_features; UsageError where it is not known yet."""
        if self.num_features is None:
            raise UsageError(
                f"a {type(self).__name__} does not know its number of features; fit it first, or give "
                "num_features"
            )
        return int(self.num_features)

    def output_shape(self, shape: Shape) -> Shape:
        """(num_features,) → (num_features,)."""
        if self.num_features is not None and shape != (self.num_features,):
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came, expected num_features = {self.num_features}"
            )
        return shape

    def reset_parameters(self, seed: int | None = None) -> None:
        """Nothing: fitted numbers are not drawn, and stay."""
        self._alone("reset_parameters")

    def _check_ready(self) -> None:
        """Raise UsageError where the layer is not fitted."""
        seen = self._parameters.get("n_samples_seen_")
        if seen is None or seen.value is None or not seen.value[0]:
            of = f"model.layers[{self._index}][1]" if self._path else "it"
            raise UsageError(
                f"{self.label} is not fitted; call {of}.fit(X) with the training data, or load a state"
            )

    def _declare_all(self) -> None:
        self._declare_numbers(self.num_features)
        self._number("n_samples_seen_", (1,), dtype="int64", low=1.0)

    def _number(self, name: str, shape: Shape, **options: Any) -> None:
        """Declare a buffer that `fit` fills."""
        self._declare(name, shape, init=Zeros(), buffer=True, fitted=True, **options)

    def _buffer(self, name: str) -> Array:
        """A buffer's value in float64, in the layout of the kernels."""
        held = self._parameters[name].value
        assert held is not None
        return held.astype(np.float64)

    def _centre(self) -> Array:
        """The centre of each column, which two buffers keep."""
        self._check_ready()
        centre: Array = self._buffer("centre_") + self._buffer("centre_rest_")
        return centre

    def _table(self, name: str, value: Any) -> Array:
        """Data of users: finite numbers (n, features)."""
        X = arrays.numbers(name, value)
        known = self.num_features
        arrays.check_rows(name, X.shape, None if known is None else (known,))
        if not X.shape[1]:
            raise ShapeError(f"{name} has shape {X.shape}; expected at least one feature")
        for begin, block in blocks(X):
            if not arrays.lies_within(block, -LARGEST, LARGEST):
                row, column = np.argwhere(~(np.abs(block) <= LARGEST))[0].tolist()
                raise DataError(
                    f"{name} holds {block[row, column]} in {column_name(value, column)}, first in row "
                    f"{begin + row}; expected numbers within float32: fill such values, or leave their "
                    "rows out"
                )
        return X

    def _check_range(self, name: str, value: Array) -> None:
        """Raise DataError where a fitted number is none in float32."""
        with np.errstate(all="ignore"):
            bad = ~np.isfinite(value.astype(np.float32))
        if bad.any():
            raise DataError(
                f"X has values whose {name} is {value[bad][0]}, too large for float32; change the units of "
                "such columns"
            )

    def _take(self, values: Mapping[str, Array]) -> None:
        """Keep fitted numbers."""
        held = self._parameters
        if (root := self._owner) is None:
            for name, value in values.items():
                kind = held[name].dtype or np.float64
                held[name].value = np.array(value, kind).reshape(held[name].shape)
            return
        while root._owner is not None:
            root = root._owner
        with root.training_lock():
            root.bind()
            for name, value in values.items():
                into = held[name].value
                assert into is not None
                np.copyto(into, value.reshape(into.shape), casting="unsafe")
            root.touch()

    def _output(self, x: Array) -> Array:
        tape = Tape(np.dtype(np.float64), training=False)
        with np.errstate(all="ignore"):
            found: Array = self.emit(tape, Value(x)).array
        return found

    def _in_blocks(self, X: Array, function: Callable[[Array], Array], shape: Shape) -> Array:
        """A function of blocks of rows in float64, whose results are put together and rounded."""
        owner = self._owner
        kind = np.dtype(np.float32) if owner is None else owner.dtype
        result = np.empty((len(X), *shape), kind)
        for begin, block in blocks(X):
            with np.errstate(all="ignore"):
                result[begin : begin + len(block)] = function(block)
        return result


def blocks(X: Array, least: int = 1) -> Iterator[tuple[int, Array]]:
    """Blocks of rows in float64, with the number of their first row."""
    rows = max(least, BLOCK // max(1, X.shape[1]))
    for begin in range(0, len(X), rows):
        yield begin, X[begin : begin + rows].astype(np.float64)


def column_name(value: Any, column: int) -> str:
    """A column of the user's data, for a message."""
    names = names_of(value)
    return f"column {column}" if names is None else f"column {shown(names[column])}"


def split(value: Array) -> tuple[Array, Array]:
    """A float64 as the sum of a float32 and a rest, so that a float32 model keeps 48 bits of it."""
    with np.errstate(over="ignore"):
        first = value.astype(np.float32).astype(np.float64)
    return first, value - first
