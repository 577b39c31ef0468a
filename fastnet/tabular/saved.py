"""Table models in files: one safetensors file with the nets, their scales and the columns."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from fastnet.errors import (
    FastnetError,
    FileError,
    UsageError,
    check_choice,
    check_flag,
    check_kind,
    check_real,
    shown,
)
from fastnet.files import tensors, tree
from fastnet.model import Sequential
from fastnet.model.saved import description_of, restored
from fastnet.op import Array
from fastnet.parameter import check_names
from fastnet.tabular.columns import Columns
from fastnet.tabular.nets import PRESETS, TASKS, Nets

KIND = "table"
NUMBERS = ("fill", "shift", "factor")  # the arrays of Nets
DECIMALS = (".", ",")
PLAIN = (bool, int, float, str)  # labels and categories that files keep
Model = TypeVar("Model")


def save(model: Any, path: Any) -> None:
    """`TableModel.save`."""
    arrays: dict[str, Array] = {}
    found = {f.name: getattr(model, f.name) for f in fields(model)}
    columns = {f.name: getattr(model.columns, f.name) for f in fields(Columns)}
    columns["known"] = [
        None if known is None else _plain(f"a category of {name!r}", list(known))
        for name, known in zip(model.columns.names, model.columns.known, strict=True)
    ]
    found["columns"] = columns
    if model.classes is not None:
        found["classes"] = _plain("a label", model.classes.tolist())
    found["nets"] = [_described(i, nets, arrays) for i, nets in enumerate(model.nets)]
    tensors.write(path, {"kind": KIND, "table": tree.split("table", found, arrays)}, arrays)


def _plain(what: str, values: list[Any]) -> list[Any]:
    """Values that JSON keeps, or UsageError."""
    for value in values:
        if not isinstance(value, PLAIN):
            raise UsageError(
                f"{what} is {shown(value)}, which no file keeps; expected a string, number or bool"
            )
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UsageError(f"{what} is {shown(value)} with a lone surrogate; expected Unicode")
    return values


def _described(i: int, nets: Nets, arrays: dict[str, Array]) -> dict[str, Any]:
    """The description of a fold's nets, whose arrays go to `arrays` under names of their own."""
    parts = list(nets.models)
    if nets.scaler is not None:  # a model of float64 keeps its numbers as they are
        parts.append(
            Sequential(copy.deepcopy(nets.scaler), dtype="float64", backend="reference", seed=0)
        )
    made = []
    for j, model in enumerate(parts):
        description, own = description_of(model)
        arrays.update({f"{_prefix(i, j)}{name}": value for name, value in own.items()})
        made.append(description)
    numbers = {name: np.asarray(getattr(nets, name), np.float64) for name in NUMBERS}
    return {"parts": made, "scaled": nets.scaler is not None, **numbers}


def _prefix(i: int, j: int) -> str:
    return f"nets/{i}/{j}/"


def restored_table(contents: tensors.Contents, kind: type[Model]) -> Model:
    """The TableModel, which is the class `kind`, of a file's contents, or FileError."""
    description = contents.described(KIND)
    try:
        found = tree.join(description.get("table"), contents.tensors)
        found.setdefault("decimal", ".")  # which files of the first commits lack
        check_names("the table", found, [f.name for f in fields(kind)])  # type: ignore[arg-type]
        check_choice("task", found["task"], TASKS)
        check_choice("preset", found["preset"], PRESETS)
        check_choice("decimal", found["decimal"], DECIMALS)
        check_kind("target", found["target"], str)
        check_flag("flat", found["flat"])
        check_real("temperature", found["temperature"], low=0.0, open_low=True)
        check_real("mixed", found["mixed"], low=0.0, high=1.0)
        found["missing"] = tuple(_plain("missing", [str(text) for text in found["missing"]]))
        found["columns"] = _columns(found["columns"])
        found["nets"] = [_nets(contents, i, one) for i, one in enumerate(found["nets"])]
        if found["classes"] is not None:
            found["classes"] = np.asarray(_plain("a label", found["classes"]))
        if found["bounds"] is not None:
            low, high = (np.asarray(b, np.float64) for b in found["bounds"])
            found["bounds"] = low, high
        model = kind(**found)
        _check(model)
    except (FastnetError, *_FAULTS) as error:
        raise FileError(f"{contents.path} describes no model that can be made: {error}") from None
    return model


# What values of other types than those that `save` writes lead to.
_FAULTS = (RecursionError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)


def _columns(found: Mapping[str, Any]) -> Columns:
    check_names("columns", found, [f.name for f in fields(Columns)])
    known = [
        None if values is None else {value: i for i, value in enumerate(values)}
        for values in found["known"]
    ]
    made = Columns(**{**found, "known": known})
    if not len(made.names) == len(made.known) == len(made.gaps):
        raise FileError("its columns have names, categories and gaps of different numbers")
    return made


def _nets(contents: tensors.Contents, i: int, found: Mapping[str, Any]) -> Nets:
    check_names(f"nets/{i}", found, ("parts", "scaled", *NUMBERS))
    models = []
    for j, description in enumerate(found["parts"]):
        start = _prefix(i, j)
        own = {n.removeprefix(start): t for n, t in contents.tensors.items() if n.startswith(start)}
        models.append(restored(tensors.Contents(contents.path, own, None), description).eval())
    scaler = models.pop()[0] if found["scaled"] else None
    numbers = {name: np.asarray(found[name], np.float64) for name in NUMBERS}
    return Nets(scaler, models=models, **numbers)


def _check(model: Any) -> None:
    """Raise an error where a row cannot be predicted, as parts do not fit together."""
    empty = [
        np.array([np.nan]) if known is None else np.array([None], object)
        for known in model.columns.known
    ]
    table = model.columns.table(empty)
    width = None if model.classes is None else len(model.classes)
    for nets in model.nets:
        found = nets.mean(table, model.preset, model.task)
        outputs = found.shape[1:]
        of_targets = outputs if width is None else (1,)
        shapes = {"fill": table.numeric.shape[1:], "shift": of_targets, "factor": of_targets}
        for name, shape in shapes.items():
            if getattr(nets, name).shape != shape:
                raise FileError(f"{name} has shape {getattr(nets, name).shape}; expected {shape}")
        if width is not None and outputs != (width,):
            raise FileError(f"it has {width} classes and a net with {outputs[0]} outputs")
        if model.bounds is not None and {b.shape for b in model.bounds} != {outputs}:
            raise FileError(f"its bounds are not those of {outputs[0]} outputs")
    if not model.nets or not all(nets.models for nets in model.nets):
        raise FileError("it has no nets")
