"""Models as C files: `Sequential.export_c`."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.backends import registry
from fastnet.configured import described, from_config
from fastnet.data.codes import Code
from fastnet.errors import (
    BackendUnavailable,
    HyperparameterError,
    UsageError,
    check_choice,
    check_int,
    check_kind,
    check_new_file,
    check_real,
    shown,
)
from fastnet.files import atomic
from fastnet.layers.base import Shape
from fastnet.layers.rectifiers import hardtanh
from fastnet.losses import links
from fastnet.losses.base import Loss
from fastnet.losses.cross_entropy import CrossEntropyLoss
from fastnet.losses.regression import MSELoss
from fastnet.model.exported import input_shape_of, prediction_of
from fastnet.model.structure import Ending, graph_of
from fastnet.op import MANY_ROWS, Array
from fastnet.optim.sgd import SGD
from fastnet.plan.graph import Structure
from fastnet.preprocess import OneHot

TEST_ROWS = 4
RULES = ("sgd", "sgd_momentum", "sgd_nesterov")


@dataclass(frozen=True)
class Learning:
    """The arguments of `export_c` for training: which layers, the loss, the optimizer, rows of a step."""

    layers: Any
    loss: Any
    optimizer: Any
    batch_size: Any


def export_c(
    model: Any,
    path: Any,
    name: str,
    dtype: str | None,
    weights: str,
    clamp: Any,
    rows: Any,
    input_shape: Any,
    learning: Learning,
) -> tuple[Path, ...]:
    """`Sequential.export_c`."""
    target = checked_target(path, name)
    separate = check_choice("weights", weights, ("inline", "separate")) == "separate"
    if dtype is not None:
        dtype = check_choice("dtype", dtype, ("float32", "float64"))
    bounds = _checked_clamp(clamp)
    if bounds is not None and model._terms.link in links.OF_CLASSES:
        raise UsageError(
            "clamp bounds numbers; this model's outputs stand for classes, and bounds would change their "
            "order: leave clamp out"
        )
    _check_unused(learning)
    shape = input_shape_of(model, input_shape)
    if model.joins_rows:
        label = next(layer.label for _, layer in model.layers if layer.joins_rows)
        raise UsageError(
            f"{label} computes its outputs from several rows; C predicts one at a time: take "
            "track_running_stats=True"
        )
    with model.training_lock():
        own = _copied(model, dtype or model.dtype.name, learning.layers is not None)
        own._terms = model._terms
        files = _files(own, target, name, shape, bounds, rows, learning, separate=separate)
    texts = {target: files.source, target.with_suffix(".h"): files.header}
    if files.weights is not None:
        texts[target.with_name(f"{target.stem}_weights.c")] = files.weights
    for file in texts:
        check_new_file("path", file)
    for file, text in texts.items():
        atomic.replace(file, [text.encode("utf-8")])
    return tuple(texts)


def checked_target(path: Any, name: Any) -> Path:
    """The path of a C file whose header can be included, or HyperparameterError; also for the prefix."""
    from fastnet.export.c import is_name  # a program that exports nothing does without

    target = check_new_file("path", path)
    unfit = not target.name.isprintable() or set('"\\') & {*target.name}  # for an #include
    if target.suffix != ".c" or unfit:
        raise HyperparameterError(
            f"path is {shown(str(target))}; expected the name of a C file, net.c say, of letters that C "
            "includes files by"
        )
    if not isinstance(name, str) or not is_name(name):
        raise HyperparameterError(
            f"name is {shown(name)}; expected a prefix of C names: a letter, then letters, digits and _, "
            "at most 41 of them"
        )
    return target


def _check_unused(given: Learning) -> None:
    """Raise HyperparameterError for an argument that only a net which trains has a use for."""
    if given.layers is not None:
        return
    unused: dict[str, tuple[Any, Any]] = {
        "loss": (given.loss, None),
        "optimizer": (given.optimizer, None),
        "batch_size": (given.batch_size, 1),
    }
    for name, (value, default) in unused.items():
        if value is not default and value != default:
            raise HyperparameterError(
                f"{name} is {shown(value)} with trainable=None; expected trainable='last', a number or "
                "'all', for a net that trains"
            )


def _files(
    model: Any,
    target: Path,
    name: str,
    shape: Shape,
    bounds: tuple[float, float] | None,
    rows: Any,
    learning: Learning,
    *,
    separate: bool,
) -> Any:
    """The texts of the files (see export.c.files)."""
    from fastnet.export import c, parts
    from fastnet.export.program import Program

    training = None
    if learning.layers is None:
        structure = prediction_of(model, shape)
    else:
        training = _training(model, shape, learning)
        structure = graph_of(model, shape, _evaluating(model))
    x, y = _vectors(model, shape, rows, trains=training is not None)
    if bounds is not None:
        y = np.clip(y, *np.asarray(bounds, y.dtype))
        _bound(structure, y.shape[1], bounds)
    terms = model._terms
    meaning = parts.Meaning(tuple(terms.columns or ()), tuple(terms.classes or ()), terms.link)
    program, vectors = Program(structure, model.bind()), parts.Vectors(x, y)
    header = target.with_suffix(".h").name
    return c.files(program, training, name, header, vectors, meaning, separate=separate)


def _checked_clamp(clamp: Any) -> tuple[float, float] | None:
    """The bounds of outputs, or None."""
    if clamp is None:
        return None
    if not isinstance(clamp, (tuple, list)) or len(clamp) != 2:
        raise HyperparameterError(f"clamp is {shown(clamp)}; expected two numbers, such as (0, 10)")
    low, high = (check_real(f"clamp[{i}]", bound) for i, bound in enumerate(clamp))
    if low > high:
        raise HyperparameterError(f"clamp is {shown(clamp)}; expected the lower bound first")
    return low, high


def _bound(structure: Structure, width: int, bounds: tuple[float, float]) -> None:
    """Let the graph end with the bounds of its outputs."""
    graph, output = structure.graph, structure.output
    flat = graph.reshape(output, (width // output.times,), output.times)
    structure.output = graph.apply(hardtanh, x=flat, min_val=bounds[0], max_val=bounds[1])


def _copied(model: Any, dtype: str, trains: bool) -> Any:
    """The model; a copy for another dtype or precision, or to freeze some of its parameters."""
    if model.dtype != dtype:
        _check_categories(model, dtype)
        made = from_config({**described(model), "dtype": dtype, "precision": None})
        made.load_state_dict(model.state_dict())
        return made
    if model.precision is None:
        return copy.deepcopy(model) if trains else model
    made = copy.deepcopy(model)
    made._given["precision"] = None  # before its first plan
    return made


def _check_categories(model: Any, dtype: str) -> None:
    """Raise UsageError where categories of numbers have other values in this dtype than in float32."""
    for _, layer in model.layers if dtype == "float64" else ():
        if not isinstance(layer, OneHot):
            continue
        for value in np.concatenate([np.empty(0), *map(np.ravel, layer.state_dict().values())]):
            if np.isfinite(value) and float(value) != float(str(np.float32(value))):
                raise UsageError(
                    f"{layer.label} has the category {np.float32(value)!s}, which is another number in "
                    "float64, so that no input would equal it; export with dtype='float32', or number "
                    "the categories by integers"
                )


def _evaluating(model: Any) -> dict[int, bool]:
    """The modes of layers, all in evaluation."""
    return {id(layer): False for _, layer in model.layers}


def _vectors(model: Any, shape: Shape, rows: Any, *, trains: bool) -> tuple[Array, Array]:
    """Rows for the self-test and their outputs (n, outputs): those given, or some of numbers in [−2, 2].

    Columns that layers read as codes have such. Numbers that are no codes behind other layers give NaN;
    such rows are left out, and others of 0 and 1 take their place.
    """
    if rows is None:
        x = _random_rows(model, shape)
        y = _outputs(model, x, trains=trains)
        finite = np.flatnonzero(np.isfinite(y).all(axis=1))[:TEST_ROWS]
        x, y = x[finite], y[finite]
    else:
        x = model.features("rows", rows)
        if not isinstance(x, np.ndarray) or x.shape[1:] != shape or len(x) == 0:
            raise HyperparameterError(
                f"rows is {shown(rows)}; expected an array of at least one row of shape {shape}"
            )
        x = np.ascontiguousarray(x, model.dtype)
        y = _outputs(model, x, trains=trains)
    if len(x) == 0 or not np.isfinite(y).all():
        which = "random numbers" if rows is None else "rows"
        raise HyperparameterError(
            f"the outputs for {which} are not finite; give rows=X[:4], some rows of your data"
        )
    return x.reshape(len(x), -1), y


def _random_rows(model: Any, shape: Shape) -> Array:
    """Rows of random numbers, and behind them rows of 0 and 1."""
    random = np.random.default_rng(0)
    x = random.uniform(-2, 2, (2 * TEST_ROWS, *shape)).astype(model.dtype)
    x[TEST_ROWS:] = random.integers(2, size=x[TEST_ROWS:].shape)
    if len(shape) == 1:
        found: list[Code] = []
        model.find_codes(list(range(shape[0])), found)
        for code in found:
            x[:, code.column] = random.integers(code.count, size=len(x))
    return x


def _outputs(model: Any, x: Array, *, trains: bool) -> Array:
    """The outputs of these rows, by the C backend where it runs here; (n, outputs)."""
    own = model
    try:
        registry.get("c")
    except BackendUnavailable:
        pass
    else:
        own = model if model.backend == "c" else copy.deepcopy(model).to("c")
    # A net that learns cannot fold batchnorm into parameters that change.
    y = own.eval().forward(x) if trains else own.predict(x)
    found: Array = y.reshape(len(x), -1)
    return found


def _training(model: Any, shape: Shape, given: Learning) -> Any:
    """What the net trains; freezes the other parameters of this copy."""
    from fastnet.export.training import RATE, Training

    _freeze_others(model, given.layers)
    loss = given.loss
    if loss is None:
        loss = CrossEntropyLoss() if model._terms.link == links.SOFTMAX else MSELoss()
    check_kind("loss", loss, Loss)
    labels = isinstance(loss, CrossEntropyLoss)
    if type(loss) not in (CrossEntropyLoss, MSELoss) or repr(loss) != repr(type(loss)()):
        raise UsageError(
            f"loss is {loss!r}; training in C has CrossEntropyLoss() and MSELoss(), without options"
        )
    optimizer = SGD() if given.optimizer is None else given.optimizer
    numbers = _numbers(optimizer)
    rows = check_int("batch_size", given.batch_size, low=1, high=MANY_ROWS)
    ending = Ending(loss, labels)
    structure = graph_of(model, shape, _evaluating(model), ending)
    rule = optimizer.op.kernels["update"]
    del numbers[RATE]
    return Training(structure, model.bind(), rows, labels, rule, numbers)


def _numbers(optimizer: Any) -> dict[str, float]:
    """The numbers of SGD's rule by name, which must be the same in all steps."""
    plain = type(optimizer) is SGD and optimizer.op.name in RULES
    if not plain or optimizer.passes() != [optimizer.op] or optimizer.dampening != 0:
        raise UsageError(
            f"optimizer is {shown(optimizer)}; training in C has SGD with lr, momentum, nesterov and "
            "weight_decay alone, for all parameters alike"
        )
    first, later = (
        dict(zip(optimizer.op.hyper, optimizer.hyper(step, 1)[0, 0].tolist(), strict=False))
        for step in (1, 1000)
    )
    if {**first, "lr": 0} != {**later, "lr": 0} or first["shrink"] != 1:
        raise UsageError(
            f"optimizer is {shown(optimizer)}; training in C has constant numbers, but for the learning "
            "rate, which each step is given"
        )
    return first


def _freeze_others(model: Any, layers: Any) -> None:
    """Freeze all parameters but those of the last `layers` layers that have any to train."""
    model.bind()
    able = [
        (path, layer)
        for path, layer in model.layers
        if any(p.trainable for p in layer._parameters.values())
    ]
    if not able:
        raise UsageError("trainable: the model has no parameters to train")
    if layers == "all":
        return
    count = 1 if layers == "last" else check_int("trainable", layers, low=1, high=len(able))
    for path, layer in able[:-count]:
        model.freeze(*(f"{path}.{name}" for name in layer._parameters))
