"""Files of a model for other programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from fastnet.errors import HyperparameterError, ShapeError, check_int, check_path, shown
from fastnet.files import atomic
from fastnet.layers.base import Shape
from fastnet.model.saved import check_unicode, is_unicode
from fastnet.model.structure import graph_of
from fastnet.plan.graph import Structure

RESERVED = ("feature_names", "classes", "link")  # metadata that tell of the data of a fit


def export_onnx(
    model: Any,
    path: Any,
    opset: Any,
    outputs: Any,
    input_shape: Any,
    metadata: Any,
) -> None:
    """`Sequential.export_onnx`."""
    from fastnet.onnx import writing  # a program that exports nothing does without

    target = check_path("path", path)
    if target.is_dir():
        raise HyperparameterError(
            f"path is {shown(str(path))}, a folder; expected the path of a file, as 'net.onnx'"
        )
    opset = check_int("opset", opset, low=writing.OLDEST_OPSET, high=writing.NEWEST_OPSET)
    ending = writing.Ending(model._terms.link, model.classes_)
    chosen = _outputs(outputs, ending.available(), writing.OUTPUTS)
    texts = _metadata(model, metadata)
    shape = input_shape_of(model, input_shape)
    with model.training_lock():
        data = writing.model_bytes(
            prediction_of(model, shape),
            {id(p): name for name, p in model._named().items()},
            model.dtype,
            ending,
            chosen,
            opset,
            ("fastnet", sys.modules["fastnet"].__version__),
            texts,
        )
    atomic.replace(target, [data])


def to_torch(model: Any) -> Any:
    """`Sequential.to_torch`."""
    from fastnet.interop import torch_table

    return torch_table.to_torch(model)


def to_sklearn(model: Any) -> Any:
    """`Sequential.to_sklearn`."""
    from fastnet.interop import sklearn_out

    shape = input_shape_of(model, None)
    return sklearn_out.estimator(model, prediction_of(model, shape).graph)


def prediction_of(model: Any, shape: Shape) -> Structure:
    """The graph of `predict` for rows of a shape."""
    model.bind()
    modes = {id(layer): False for _, layer in model.layers}
    return graph_of(model, shape, modes, fold=True)


def input_shape_of(model: Any, given: Any) -> Shape:
    """The shape of an input row: the model's, or where no layer fixes it the given one."""
    known = model.input_shape
    if given is None:
        if known is None:
            raise ShapeError(
                "no layer fixes the width of the model's input; say the shape of one row, as "
                "input_shape=(28, 28)"
            )
        return known  # type: ignore[no-any-return]
    listed = given if isinstance(given, (tuple, list)) else [given]
    shape = tuple(check_int("input_shape", size, low=1) for size in listed)
    if known is not None and not model.any_rows and shape != known:
        raise ShapeError(f"input_shape is {shape}; the model's rows have the shape {known}")
    model.output_shape(shape)
    return shape


def _outputs(given: Any, available: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """The argument `outputs`: names, each once."""
    if given is None:
        return available
    chosen = (given,) if isinstance(given, str) else given
    if (
        not isinstance(chosen, (tuple, list))
        or not chosen
        or any(name not in known for name in chosen)
        or len(set(chosen)) < len(chosen)
    ):
        raise HyperparameterError(
            f"outputs is {shown(given)}; expected some of {', '.join(map(repr, known))}, each once"
        )
    for name in chosen:
        if name not in available:
            raise HyperparameterError(
                f"outputs has {name!r}, which the model lacks: no trainer with a loss that has such has "
                f"trained it; it has {', '.join(map(repr, available))}"
            )
    return tuple(chosen)


def _metadata(model: Any, given: Any) -> dict[str, str]:
    """The texts of a file: those that the user gives, and what the data of the fit are called."""
    given = {} if given is None else given
    if not isinstance(given, Mapping) or any(
        not isinstance(text, str) for pair in given.items() for text in pair
    ):
        raise HyperparameterError(
            f"metadata is {shown(given)}; expected texts by name, as {{'author': 'me'}}"
        )
    for text in (text for pair in given.items() for text in pair if not is_unicode(text)):
        raise HyperparameterError(
            f"metadata has {shown(text)}, which is no text: it has a lone surrogate; expected Unicode"
        )
    for name in (name for name in RESERVED if name in given):
        raise HyperparameterError(
            f"metadata has {name!r}, which the file tells of the data itself; expected other names than "
            f"{', '.join(map(repr, RESERVED))}"
        )
    check_unicode(model._terms)
    found = dict(given)
    names, classes = model.feature_names_in_, model.classes_
    if names is not None:
        found["feature_names"] = json.dumps(names.tolist(), ensure_ascii=False)
    if classes is not None:
        found["classes"] = json.dumps(classes.tolist(), ensure_ascii=False)
    if model._terms.link is not None:
        found["link"] = json.dumps(model._terms.link)
    return found
