"""Streams: minibatches that come one after the other, and data sets that give single samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from fastnet.data import arrays
from fastnet.data.minibatches import epoch_order, training_offsets
from fastnet.errors import DataError, HyperparameterError, ShapeError, shown
from fastnet.op import Array

Parts = tuple[Any, Any, Any]  # inputs, targets, and weights or None

FORMS = (
    "minibatches (x, y): a list or another iterable of them, such as a DataLoader, a function that returns "
    "an iterator, or a data set with __len__ and __getitem__"
)


class Default:
    """The default value of an argument, which tells whether another one was given."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


def plain_value(argument: Any) -> Any:
    """The value of an argument that may be a Default."""
    return argument.value if isinstance(argument, Default) else argument


class in_minibatch:  # noqa: N801
    """Errors in this block name a minibatch and its epoch, both counted from 0 here."""

    def __init__(self, number: int, epoch: int) -> None:
        self._name = f"minibatch {number} of epoch {epoch + 1}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, _: Any) -> None:
        if kind in (DataError, ShapeError):
            raise kind(f"{self._name}: {error}") from None
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            error.add_note(f"in {self._name}")


class Source:
    """Where the minibatches of a fit come from, if not from arrays.

    ahead: whether minibatches may be asked for before the steps on those before them are done. replays:
    whether an epoch can be opened again, with the same minibatches. rows: those of an epoch, or None.
    division: batch_size, shuffle and drop_last where they divide it.
    """

    ahead = replays = False
    rows: int | None = None
    division: tuple[int | None, bool | None, bool] = None, None, False

    def prepare(self, least: int) -> None:
        """Called before the first epoch, with the fewest rows that a minibatch may have; may raise."""

    def open(self, epoch: int, seed: int) -> Iterator[Parts]:
        """The minibatches of an epoch, counted from 0."""
        raise NotImplementedError

    def nothing(self, epoch: int) -> DataError:
        """The error for an epoch without minibatches."""
        return DataError(f"X gave no minibatch in epoch {epoch + 1}; expected at least one")


class Stream(Source):
    """Minibatches that an iterable, an iterator or a function gives."""

    def __init__(self, given: Any) -> None:
        self._given = given
        self.once = isinstance(given, Iterator)
        function = not hasattr(given, "__iter__")
        self._call: Callable[[int], Any] = _call_of(given) if function else lambda _: given
        self.ahead = type(given) in (list, tuple)
        self.replays = self.ahead or (function and _takes(given) is not None)

    def open(self, epoch: int, seed: int) -> Iterator[Parts]:
        """The minibatches as they come."""
        came, number = self._opened(epoch), 0
        try:
            while True:
                with in_minibatch(number, epoch):
                    try:
                        item = next(came)
                    except StopIteration:
                        return
                    parts = _parts(item, "a pair (x, y), or (x, y, weight)")
                yield parts
                number += 1
        finally:
            if inspect.isgenerator(came) and not self.once:
                came.close()

    def _opened(self, epoch: int) -> Iterator[Any]:
        try:
            found = self._call(epoch)
        except StopIteration:
            raise DataError(
                f"X is {shown(self._given)}, which raised StopIteration; expected an iterator of "
                "minibatches (x, y)"
            ) from None
        if not hasattr(found, "__iter__"):
            raise DataError(
                f"X is {shown(self._given)}, which returned {shown(found)}; expected an iterator of "
                "minibatches (x, y)"
            )
        return iter(found)

    def nothing(self, epoch: int) -> DataError:
        """The error for an epoch without minibatches."""
        once = f"; {_once(self._given)}" if self.once else ""
        return DataError(f"{super().nothing(epoch)}{once}")


class Samples(Source):
    """A data set with `__len__` and `__getitem__`, whose samples are put together in the trainer's order.

    Source: the protocol of PyTorch's map-style data sets.
    """

    ahead = replays = True

    def __init__(self, given: Any, batch_size: int, shuffle: bool, drop_last: bool) -> None:
        self._given, self._batch_size, self._shuffle = given, batch_size, shuffle
        self.division = batch_size, shuffle, drop_last
        self._count = len(given)
        if not self._count:
            raise DataError(f"X is {shown(given)} without samples; expected at least one")

    def prepare(self, least: int) -> None:
        """Divide the samples."""
        drop_last = self.division[2]
        self._offsets = training_offsets(self._count, self._batch_size, drop_last, least)
        self.rows = int(self._offsets[-1])

    def open(self, epoch: int, seed: int) -> Iterator[Parts]:
        """The minibatches that arrays of the samples would have."""
        order = epoch_order(self._count, seed, epoch, self._shuffle)
        for number, (begin, end) in enumerate(pairwise(self._offsets)):
            with in_minibatch(number, epoch):
                parts = self._together(order[begin:end].tolist())
            yield parts

    def _together(self, rows: list[int]) -> Parts:
        """The minibatch of these samples."""
        samples = [self._sample(row) for row in rows]
        weighted = [row for row, (_, _, w) in zip(rows, samples, strict=True) if w is not None]
        if 0 < len(weighted) < len(rows):
            raise DataError(
                f"sample {weighted[0]} has a weight and others have none; expected one for all or none"
            )
        x, y, w = zip(*samples, strict=True)
        weights = _stacked("the weight", w, rows) if weighted else None
        return _stacked("x", x, rows), _stacked("y", y, rows), weights

    def _sample(self, row: int) -> Parts:
        item = self._given[row]
        try:
            return _parts(item, "a pair (x, y), or (x, y, weight)")
        except DataError as error:
            raise DataError(f"sample {row}: {error}") from None


def source_of(
    given_x: Any,
    *,
    epochs: Any,
    batch_size: Any,
    shuffle: Any,
    drop_last: Any,
    sample_weight: Any,
) -> Source:
    """The source that the argument X of a fit without y is; refuses other arguments that say nothing.

    batch_size and shuffle may be a Default; batch_size: checked already if it is not.
    """
    kind = type(given_x)
    if _is_array(given_x):
        raise DataError(
            f"y is missing: X is {shown(given_x)}; expected fit(X, y), or as X alone {FORMS}"
        )
    if sample_weight is not None:
        raise HyperparameterError(
            f"sample_weight is {shown(sample_weight)} and X gives minibatches; expected None: weights come "
            "with them, as (x, y, weight)"
        )
    iterable = hasattr(kind, "__iter__")
    if not iterable and hasattr(kind, "__getitem__") and hasattr(kind, "__len__"):
        return Samples(given_x, plain_value(batch_size), plain_value(shuffle), drop_last)
    if isinstance(given_x, (type, str, dict, set, frozenset, range)) or not (
        iterable or callable(given_x)
    ):
        raise DataError(f"X is {shown(given_x)} and y is missing; expected fit(X, y), or {FORMS}")
    told = {
        "batch_size": not isinstance(batch_size, Default),
        "shuffle": not isinstance(shuffle, Default) and shuffle,
        "drop_last": drop_last,
    }
    for name, said in told.items():
        if said:
            value = {"batch_size": batch_size, "shuffle": shuffle, "drop_last": drop_last}[name]
            raise HyperparameterError(
                f"{name} is {shown(value)} and X gives minibatches; expected no {name}: whoever makes the "
                "minibatches decides that"
            )
    stream = Stream(given_x)
    if stream.once and epochs > 1:
        raise HyperparameterError(f"epochs is {epochs}; {_once(given_x)}")
    return stream


def check_second(given_x: Any, y: Any) -> None:
    """Raise DataError where minibatches come with an integer, which is meant to be `epochs`."""
    if isinstance(y, int) and not _is_array(given_x):
        raise DataError(
            f"y is {y} and X is {shown(given_x)}; for minibatches give other arguments by name: "
            f"fit(batches, epochs={y})"
        )


def _once(iterator: Any) -> str:
    """What to write instead of an iterator."""
    return (
        f"X is a {type(iterator).__name__}, which can be gone through once: for further epochs pass the "
        "function that makes it, as fit(make_batches, epochs=3) or fit(lambda: make_batches(…), epochs=3)"
    )


def _is_array(value: Any) -> bool:
    """Whether this is what `fit` takes as X beside y."""
    names = (
        "__array__",
        "__dlpack__",
        "__cuda_array_interface__",
        "toarray",
        "columns",
        "column_names",
    )
    return isinstance(value, (bytes, bytearray, memoryview)) or any(
        hasattr(type(value), name) for name in names
    )


def _takes(function: Any) -> str | None:
    """How a function takes the number of an epoch: "by name", "by place", or None."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of what is not written in Python
        return None
    if any(p.name == "epoch" and p.kind is not p.POSITIONAL_ONLY for p in parameters):
        return "by name"
    needed = any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters
    )
    return "by place" if needed else None


def _call_of(function: Any) -> Callable[[int], Any]:
    """The function of an epoch that calls this one as it wants."""
    how = _takes(function)
    if how == "by name":
        return lambda epoch: function(epoch=epoch)
    return function if how == "by place" else lambda _: function()


def _parts(item: Any, wanted: str) -> Parts:
    """Inputs, targets and weights of what came."""
    if not (isinstance(item, (tuple, list)) and len(item) in (2, 3)):
        few = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
        came = f"a {type(item).__name__}{few}" if few else shown(item)
        raise DataError(f"X gave {came}; expected {wanted}")
    x, y, *weights = item
    return x, y, weights[0] if weights else None


def _stacked(name: str, values: tuple[Any, ...], rows: list[int]) -> Array:
    """One array of the arrays or numbers of these samples."""
    found = [
        arrays.as_array(f"{name} of sample {row}", v) for v, row in zip(values, rows, strict=True)
    ]
    for row, one in zip(rows, found, strict=True):
        if one.shape != found[0].shape:
            raise ShapeError(
                f"{name} of sample {row} has shape {one.shape} and that of sample {rows[0]} "
                f"{found[0].shape}; expected equal ones"
            )
    return np.stack(found)
