"""Trainers in files: everything that training has made, and where a fit stands."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import numpy as np

from fastnet.configured import Configured, described, from_config, is_known, is_registered
from fastnet.data.dataset import Dataset
from fastnet.data.terms import Terms
from fastnet.errors import (
    FastnetError,
    FileError,
    HyperparameterError,
    UsageError,
    check_flag,
    check_kind,
    outside,
    shown,
)
from fastnet.files import tensors, tree
from fastnet.losses.metrics import ClassAccuracy, Metric, accuracy
from fastnet.losses.named_metrics import Metrics
from fastnet.model import saved as models
from fastnet.op import Array
from fastnet.train.callbacks import Callback
from fastnet.train.scores import by_name

SAMPLE = 64  # rows whose values a fingerprint contains
BAD = (
    FastnetError,
    RecursionError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
)


def save(trainer: Any, path: Any, fit: Mapping[str, Any] | None = None) -> None:
    """`Trainer.save`; the caller holds the model's lock. fit: the state of a fit that is not over."""
    moved = trainer._to_evaluation()
    model = trainer.model
    description, arrays = models.description_of(model)
    state = trainer.state_dict()
    records = state.pop("history")
    found = {
        "kind": "trainer",
        **description,
        "modes": [layer.training for _, layer in model.layers],
        "settings": settings_of(trainer),
        "state": tree.split("trainer", state, arrays),
        "history": _columns(records, arrays),
        "fit": tree.split("trainer/fit", fit, arrays),
    }
    if moved and fit is not None:
        trainer._to_training()
    tensors.write(path, found, arrays)


def settings_of(trainer: Any) -> dict[str, Any]:
    """The arguments of a trainer as they are now; None for what no file can describe."""
    chain = trainer._chain
    return {
        "loss": describable(trainer.loss),
        "optimizer": describable(trainer.optimizer),
        "metrics": {name: _metric_settings(metric) for name, metric in trainer.metrics.items()},
        "clip_value": chain.clip_value,
        "clip_norm": chain.clip_norm,
        "averaging": None if chain.averaging is None else describable(chain.averaging),
        "seed": trainer._given_seed,
    }


def _metric_settings(metric: Any) -> Any:
    if type(metric) is ClassAccuracy:  # the loss's own
        return "accuracy"
    return describable(metric) if isinstance(metric, Configured) else None


def describable(thing: Configured) -> dict[str, Any] | None:
    """A configuration with its type, or None where an argument is a function."""
    try:
        found: dict[str, Any] = tree.split("", described(thing), {})
    except UsageError:
        return None
    return found


def difference(here: Any, there: Any, name: str = "") -> list[str]:
    """Where two settings differ, as "optimizer.lr is 0.1 here and 0.2 in the file"."""
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        names = list(dict.fromkeys([*here, *there]))
        each = [difference(here.get(n), there.get(n), f"{name}.{n}" if name else n) for n in names]
        return [found for part in each for found in part]
    if isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        each = [
            difference(a, b, f"{name}[{i}]")
            for i, (a, b) in enumerate(zip(here, there, strict=True))
        ]
        return [found for part in each for found in part]
    return [] if here == there else [f"{name} is {shown(here)} here and {shown(there)} in the file"]


# Histories: columns of the records that follow one another with the same names.


def _columns(records: Sequence[Mapping[str, Any]], arrays: dict[str, Array]) -> list[Any]:
    found = []
    for number, (names, group) in enumerate(groupby(records, key=tuple)):
        rows = list(group)
        columns = {}
        for name in names:
            values = [row[name] for row in rows]
            whole = all(type(value) is int for value in values)
            try:
                columns[name] = np.array(values, np.int64 if whole else np.float64)
            except (TypeError, ValueError, OverflowError):
                raise UsageError(
                    f"the history's {name!r} holds {shown(values[0])}; expected numbers, which a file keeps"
                ) from None
        found.append(tree.split(f"trainer/history/{number}", columns, arrays))
    return found


def _records(columns: Any, arrays: Mapping[str, Array]) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for part in tree.join(columns, arrays):
        lists = {name: values.tolist() for name, values in part.items()}
        records += [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    return records


# Fits.


def describe(fit: Any) -> None:
    """Note what a fit that begins depends on: the settings of its trainer, its arguments, and its data."""
    trainer = fit.run.trainer
    fit.start = {
        "model": describable(trainer.model),
        **settings_of(trainer),
        "fit": dict(fit.arguments),
        "callbacks": callback_settings(fit.callbacks),
    }
    fit.data = fit.run.fingerprint(fit.terms)


def go_on(fit: Any, state: Mapping[str, Any], where: str) -> None:
    """Let a fit go on from the state of an earlier one; warns where the data are others."""
    if not fit.data:
        fit.data = fit.run.fingerprint(fit.terms)
    if differs := difference(fit.data, state["data"], "data"):
        warnings.warn(
            f"the data are not those of {where}: {'; '.join(differs)}", stacklevel=outside()
        )
    fit.resume(state)


# What a file's trainer is made from.


@contextmanager
def as_file_errors(contents: tensors.Contents, what: str) -> Iterator[None]:
    """Errors in here are those of a file that does not fit."""
    try:
        yield
    except FileError:
        raise
    except BAD as error:
        raise FileError(f"{contents.path} {what}: {error}") from None


def state_in(contents: tensors.Contents, description: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's state dict in a file."""
    with as_file_errors(contents, "has no state of a trainer"):
        state = tree.join(description["state"], contents.tensors)
        return {**state, "history": _records(description["history"], contents.tensors)}


def fit_in(contents: tensors.Contents, description: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state of a fit in a file, or None."""
    with as_file_errors(contents, "has no state of a fit"):
        found = tree.join(description["fit"], contents.tensors)
        if found is None:
            return None
        needed = {"epochs", "start", "callbacks", "position", "data", "reason"}
        if not isinstance(found, dict) or not needed <= found.keys():
            raise ValueError("its fit lacks a part")
        return found


def made(
    kind: Callable[..., Any],
    contents: tensors.Contents,
    description: Mapping[str, Any],
    loss: Any,
    metrics: Metrics | None,
    layers: Iterable[type],
) -> Any:
    """A trainer from a file."""
    model = models.restored(contents, description, layers)
    with as_file_errors(contents, "describes no trainer that can be made"):
        settings = description["settings"]
        given = _parts(contents, settings)
        seed = settings["seed"]
    if loss is None:
        loss = given["loss"]
    if loss is None:
        raise HyperparameterError(
            f"loss is missing: the loss in {contents.path} is a function, or of a class that is not "
            "registered; give it by Trainer.load(path, loss=...)"
        )
    with as_file_errors(contents, "describes no metrics"):
        wanted = {name: _metric(kept) for name, kept in settings["metrics"].items()}
    wanted |= {} if metrics is None else by_name(metrics)
    if missing := [name for name, function in wanted.items() if function is None]:
        raise HyperparameterError(
            f"metrics lacks {missing[0]!r}: a file keeps the names of functions; give them by "
            f"Trainer.load(path, metrics={{{missing[0]!r}: ...}})"
        )
    with as_file_errors(contents, "describes no trainer that can be made"):
        trainer = kind(
            model,
            loss,
            given["optimizer"],
            wanted,
            seed,
            clip_value=settings["clip_value"],
            clip_norm=settings["clip_norm"],
            averaging=given["averaging"],
        )
        restore(trainer, contents, description)
    return trainer


def _parts(contents: tensors.Contents, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Loss, optimizer and averaging of a file; None for what it does not describe or cannot make."""
    found: dict[str, Any] = {}
    for name in ("loss", "optimizer", "averaging"):
        kept = tree.join(settings[name], contents.tensors)
        unknown = name == "loss" and kept is not None and not is_known(kept["type"])
        found[name] = None if kept is None or unknown else from_config(kept)
    return found


def _metric(kept: Any) -> Metric | None:
    if kept == "accuracy":
        return accuracy
    return None if kept is None or not is_known(kept["type"]) else from_config(kept)


def restore(trainer: Any, contents: tensors.Contents, description: Mapping[str, Any]) -> None:
    """Continue a trainer of equal settings from a file; whatever fails, it stays as it was.

    The hyper-parameters of the optimizer become those of the moment at which the file was saved.
    """
    model, optimizer = trainer.model, trainer.optimizer
    state = state_in(contents, description)
    values = {name: contents.tensors[name] for name in models.model_names(contents)}
    modes = description["modes"]
    if not isinstance(modes, list) or len(modes) != len(model.layers):
        raise FileError(f"{contents.path} has modes {shown(modes)}; expected one for each layer")
    modes = [check_flag("modes", mode) for mode in modes]
    frozen = models.checked_frozen(description.get("frozen", []), values)
    then = _parts(contents, description["settings"])["optimizer"]
    check_kind("optimizer", then, type(optimizer))
    before = model.state_dict(), dict(optimizer._argument_values()), model._draws
    try:
        model.load_state_dict(values)
        for name, value in then._argument_values().items():
            setattr(optimizer, name, value)
        trainer.load_state_dict(state)
    except BaseException:
        model.load_state_dict(before[0])
        for name, value in before[1].items():
            setattr(optimizer, name, value)
        raise
    model._draws = description["draws"]
    model.unfreeze()
    if frozen:
        model.freeze(*frozen)
    for mode, (_, layer) in zip(modes, model.layers, strict=True):
        layer.train(mode)


# Callbacks.


def callback_settings(callbacks: Iterable[Callback]) -> list[Any]:
    """What describes callbacks in a file: their types and arguments, or the types alone."""
    return [describable(one) or {"type": type(one).__name__} for one in callbacks]


def callbacks_of(
    contents: tensors.Contents, settings: Sequence[Any], given: Sequence[Callback]
) -> list[Callback]:
    """A fit's callbacks: those that a file may make, the others out of `given`, by the names of classes.

    A file makes no callback that writes to files: else it would choose where.
    """
    left, found = list(given), []
    for i, config in enumerate(settings):
        with as_file_errors(contents, "describes no callbacks"):
            name = str(config["type"])
        mine = next((one for one in left if type(one).__name__ == name), None)
        if mine is not None:
            left.remove(mine)
            found.append(mine)
            continue
        made = None
        with as_file_errors(contents, f"describes no callback {name!r} that can be made"):
            if is_known(config["type"]):
                made = from_config(tree.join(config, contents.tensors))
                check_kind("callback", made, Callback)
        if made is None or made.writes_files or not is_registered(type(made)):
            raise HyperparameterError(
                f"callbacks[{i}] is a {name}, which no file makes; give it by "
                f"Trainer.load(path, callbacks=[{name}(...)])"
            )
        found.append(made)
    if left:
        raise HyperparameterError(
            f"callbacks has {shown(left[0])}; the fit in {contents.path} has none of this kind left"
        )
    return found


# Data.


def fingerprint(data: Dataset | None, terms: Terms) -> dict[str, Any]:
    """What tells a data set from others: its rows, shapes, dtypes and names, and a hash of some rows.

    Nothing tells streams apart, for which the data set is None.
    """
    if data is None:
        return {}
    rows = np.unique(np.linspace(0, max(0, data.rows - 1), SAMPLE).astype(np.int64))[: data.rows]
    found = hashlib.sha256()
    for part in data.take(rows):
        if part is not None:
            found.update(np.ascontiguousarray(part).tobytes())
    columns = {"columns": list(terms.columns)} if terms.columns else {}
    classes = {"classes": list(terms.classes or ())} if terms.renames else {}
    return {
        **columns,
        **classes,
        "rows": data.rows,
        "row_shape": list(data.row_shape),
        "dtype": data.x.dtype.name,
        "target_shape": list(data.y.shape[1:]),
        "target_dtype": data.y.dtype.name,
        "weighted": data.w is not None,
        f"hash of {SAMPLE} rows": found.hexdigest()[:16],
    }
