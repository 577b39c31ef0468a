"""SharedData: the data of many nets, checked and converted once for those that take the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fastnet.data import arrays
from fastnet.data.dataset import Dataset
from fastnet.data.split import split_rows
from fastnet.data.terms import Terms
from fastnet.errors import DataError, HyperparameterError, check_choice, shown
from fastnet.op import Array
from fastnet.train.given import classes_of, validation_parts, weights_of_classes
from fastnet.train.trainer import Trainer


def each(
    name: str, value: Any, count: int, several: Callable[[Any], bool] = lambda _: True
) -> list[Any]:
    """The value of each net: those given where there are `several`, else the one that is given."""
    if not several(value):
        return [value] * count
    try:
        found = list(value)
    except TypeError:
        found = []
    if isinstance(value, (str, bytes, Mapping)) or len(found) != count:
        raise HyperparameterError(
            f"{name} is {shown(value)}; expected one for each of {count} nets"
        )
    return found


class SharedData:
    """The data of all nets: arrays are checked and converted once for nets that take the same."""

    def __init__(
        self, trainers: list[Trainer], X: Any, y: Any, sample_weight: Any, class_weight: Any = None
    ) -> None:
        self._trainers, self._X, self._y, self._w = trainers, X, y, sample_weight
        self._class_weight = class_weight
        self._made: dict[Any, tuple[Any, Any]] = {}  # what is made of something, and that something
        self.count = len(self._features(trainers[0]))

    def _once(self, key: Any, of: Any, make: Callable[[], Any]) -> Any:
        """What is made of an object, which is kept so that no other one gets its id."""
        if (key, id(of)) not in self._made:
            self._made[key, id(of)] = make(), of
        return self._made[key, id(of)][0]

    def _kind(self, trainer: Trainer) -> Any:
        model = trainer.model
        return model.input_shape, model.dtype, model.backend

    def _features(self, trainer: Trainer) -> Array:
        trainer.model._terms.check_columns("X", self._X)
        kind = "X", self._kind(trainer)
        found: Array = self._once(kind, self._X, lambda: trainer.model.features("X", self._X))
        return found

    def _set(self, what: Any, of: Any, trainer: Trainer, make: Callable[[], Dataset]) -> Dataset:
        """A data set for a trainer, which shares its arrays with equal trainers."""
        model, loss = trainer.model, trainer.loss
        shape = model.output_shape(tuple(self._features(trainer).shape[1:]))
        same = id(loss) if loss.on_host else loss.plan_key()
        key = what, self._kind(trainer), shape, same, _key(self._named(trainer)[0])
        found: Dataset = self._once(key, of, make)
        return replace(found)

    def _named(self, trainer: Trainer) -> tuple[Terms, Any]:
        """What the data are called, and y with the numbers of classes."""
        model, loss = trainer.model, trainer.loss
        shape = model.output_shape(tuple(self._features(trainer).shape[1:]))
        kind: dict[str, Any] = {
            "count": loss.classes_of(shape),
            "column": shape == (1,),
            "ignored": loss.ignore_index,
            "link": loss.link,
        }

        def make() -> tuple[Terms, Any]:
            return model._terms.of_fit(self._X, "y", model.on_host("y", self._y), **kind)

        key = "y", model.backend, _key(model._terms), *kind.values()
        found: tuple[Terms, Any] = self._once(key, self._y, make)
        return found

    def training(self, trainer: Trainer, rows: Array | None) -> tuple[Terms, Dataset]:
        """What the data are called, and the data set with the weights of these rows."""
        x, data = self._features(trainer), trainer.model.data
        terms, y = self._named(trainer)

        def make() -> Dataset:
            w = self._w
            if self._class_weight is not None:
                classes = self._classes(trainer)
                _, w = weights_of_classes(trainer, terms, classes, rows, self._class_weight)
                w = w if self._w is None else w * self._weights(trainer)
            return data(trainer.loss, x, y, "X", "y", w, by_rows=True, rows=rows)

        return terms, self._set("training", rows, trainer, make)

    def _classes(self, trainer: Trainer) -> Array | None:
        """The number of each row's class; None where rows have none."""
        x, y = self._features(trainer), self._named(trainer)[1]

        def make() -> Dataset:
            return trainer.model.data(trainer.loss, x, y, "X", "y", self._w, by_rows=True)

        return classes_of(trainer, self._set("all", self._y, trainer, make))

    def _weights(self, trainer: Trainer) -> Array:
        """The weights that are given, as an array."""
        return arrays.as_array("sample_weight", trainer.model.on_host("sample_weight", self._w))

    def split(
        self, given: Any, parts: list[Array | None]
    ) -> tuple[list[Array | None], list[Dataset | None]]:
        """The rows that are left to each net's training, and the validation data of the others."""
        left: list[Array | None] = []
        held: list[Dataset | None] = []
        for trainer, part in zip(self._trainers, parts, strict=True):
            classes = self._classes(trainer)
            count = self.count if part is None else len(part)
            if classes is not None and part is not None:
                classes = classes[part]
            kept, other = split_rows(given, count, trainer.seed, classes)
            left.append(kept if part is None else part[kept])
            held.append(self._of_rows(trainer, other if part is None else part[other], self._w))
        return left, held

    def parts(self, given: Any) -> list[Array | None]:
        """The rows of each net."""
        count = len(self._trainers)
        if given is None:
            return [None] * count
        return [self._part(f"rows[{i}]", one) for i, one in enumerate(each("rows", given, count))]

    def _part(self, name: str, given: Any) -> Array | None:
        """Checked numbers of rows; equal objects give the same array."""
        if given is None:
            return None
        found: Array = self._once("rows", given, lambda: _checked_rows(name, given, self.count))
        return found

    def validation(self, given: Any, parts: list[Array | None]) -> list[Dataset | None]:
        """The validation data of each net."""
        if given is None:
            return [None] * len(parts)
        if isinstance(given, tuple):
            x, y, w = validation_parts(given)
            return [self._whole(trainer, x, y, w) for trainer in self._trainers]
        if isinstance(given, str):
            check_choice("validation", given, ("rest",))
            rows = [
                self._once("rest", part, partial(self._rest, i, part))
                for i, part in enumerate(parts)
            ]
        else:
            many = each("validation", given, len(parts))
            rows = [self._part(f"validation[{i}]", one) for i, one in enumerate(many)]
        pairs = zip(self._trainers, rows, strict=True)
        return [
            None if these is None else self._of_rows(trainer, these) for trainer, these in pairs
        ]

    def _rest(self, number: int, part: Array | None) -> Array:
        rest = np.ones(self.count, bool)
        rest[slice(None) if part is None else part] = False
        if not rest.any():
            raise HyperparameterError(
                f"validation is 'rest' and net {number} trains on all rows; expected rows that leave some"
            )
        return np.flatnonzero(rest)

    def _whole(self, trainer: Trainer, x: Any, y: Any, w: Any) -> Dataset:
        names = "validation X", "validation y"
        terms, kind = self._named(trainer)[0], ("validation", self._kind(trainer))
        terms.check_columns(names[0], x)
        found = self._once(kind, x, lambda: trainer.model.features(names[0], x))

        def make() -> Dataset:
            return trainer._checked(found, y, w, *names, terms, learn=False)[0]

        return self._set("validation", x, trainer, make)

    def _of_rows(self, trainer: Trainer, rows: Array, w: Any = None) -> Dataset:
        x = self._once(
            ("validation", self._kind(trainer)), rows, lambda: self._features(trainer)[rows]
        )
        data, y = trainer.model.data, self._named(trainer)[1]

        def make() -> Dataset:
            part, names = arrays.as_array("y", y)[rows], ("validation X", "validation y")
            of_part = None if w is None else self._weights(trainer)[rows]
            return data(trainer.loss, x, part, *names, of_part, by_rows=True)

        return self._set("validation", rows, trainer, make)


def _key(terms: Terms) -> Any:
    """A key of equal terms alone; False and 0 are equal, but not as classes."""
    return terms, type(terms.classes[0]) if terms.classes else None


def _checked_rows(name: str, given: Any, count: int) -> Array:
    """Numbers of rows from numbers or a mask."""
    wanted = f"the numbers of rows, in [0, {count}), or a mask of {count} bools"
    array = arrays.as_array(name, given)
    if array.dtype == bool and array.shape == (count,):
        array = np.flatnonzero(array)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{name} is {shown(given)}; expected {wanted}")
    if not len(array):
        raise DataError(f"{name} is empty; expected {wanted}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= count:
        raise DataError(f"{name} holds {low if low < 0 else high}; expected {wanted}")
    return np.array(array, np.int64)
