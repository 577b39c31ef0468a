"""Models in files: what describes one, and how it is made again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastnet.configured import also_known, described, from_config
from fastnet.errors import (
    FastnetError,
    FileError,
    HyperparameterError,
    StateDictError,
    check_flag,
    shown,
)
from fastnet.files import tensors, tree
from fastnet.layers.base import Layer
from fastnet.model.container import Container
from fastnet.op import Array
from fastnet.parameter import check_count, check_names, check_value

OF_TRAINER = "trainer/"  # begins the names of a trainer's arrays


def description_of(model: Any) -> tuple[dict[str, Any], dict[str, Array]]:
    """A model's description for a file, and its arrays by PyTorch's names."""
    arrays = dict(model.state_dict())
    found = {**described(model), "seed": model.seed, "backend": "auto"}
    kept = {"draws": model._draws, "frozen": model.frozen}
    return {"model": tree.split("model", found, arrays), **kept}, arrays


def save(model: Any, path: Any) -> None:
    """`Sequential.save`."""
    description, arrays = description_of(model)
    tensors.write(path, {"kind": "model", **description}, arrays)


def load(path: Any, layers: Iterable[type] = ()) -> Any:
    """The model of a file that `model.save` or `trainer.save` has written, in evaluation mode.

    layers: classes of your own that occur in the model and were not given to `fastnet.register` (default
        none). Nothing is imported, and no code of a file is run.

    The model has backend "auto", and dtype and seed of the saved one. Of a trainer's file it is the
    model as `evaluate` sees it. Raises FileError for a file that is damaged or holds no model, and
    OSError where it cannot be read. Arrays of other programs, such as PyTorch's, have no model:
    `model.load_weights` takes them.
    """
    contents = tensors.read(path)
    if contents.description is not None and contents.description.get("kind") == "trainer":
        description = contents.described("trainer")
    else:
        description = contents.described("model")
    return restored(contents, description, layers).eval()


def restored(
    contents: tensors.Contents, description: Mapping[str, Any], layers: Iterable[type] = ()
) -> Any:
    """The model of a description with the arrays of its file, or FileError."""
    classes = _checked_classes(layers)
    known = {name: contents.tensors[name] for name in model_names(contents)}
    try:
        with also_known(classes):
            model = from_config(tree.join(description.get("model"), contents.tensors))
        if not isinstance(model, Container):
            raise HyperparameterError(f"the model is {shown(model)}; expected a Sequential")
        named = {
            f"{path}.{name}": p
            for path, layer in model.layers
            for name, p in layer._parameters.items()
        }
        check_names("the file", known, named)
        checked = {n: check_value(n, p, known[n], model.dtype) for n, p in named.items()}
        draws = check_count("draws", description.get("draws"))
        frozen = checked_frozen(description.get("frozen", []), named)
    except (FastnetError, RecursionError, TypeError, ValueError, ArithmeticError) as error:
        raise FileError(f"{contents.path} describes no model that can be made: {error}") from None
    for name, p in named.items():
        p.value = p.held(checked[name])  # the model copies it when it lays out its memory
        p.frozen = name in frozen
    model._draws = draws
    model.bind()
    return model


def checked_frozen(names: Any, named: Iterable[str]) -> list[str]:
    """The names of frozen parameters in a file, or HyperparameterError."""
    if not isinstance(names, list) or not set(map(str, names)) <= set(named):
        raise HyperparameterError(f"frozen is {shown(names)}; expected names of the model's arrays")
    return names


def model_names(contents: tensors.Contents) -> list[str]:
    """The names of a model's arrays in a file."""
    ours = contents.description is not None
    return [n for n in contents.tensors if not (ours and n.startswith(OF_TRAINER))]


def load_weights(model: Any, path: Any, strict: bool) -> None:
    """`Sequential.load_weights`."""
    strict = check_flag("strict", strict)
    contents = tensors.read(path)
    given = {name: contents.tensors[name] for name in model_names(contents)}
    try:
        model.load_state_dict(given, strict)
    except StateDictError as error:
        raise StateDictError(f"{contents.path}: {error}") from None


def _checked_classes(layers: Any) -> list[type]:
    found = list(layers) if isinstance(layers, Iterable) else [layers]
    for kind in found:
        if not (isinstance(kind, type) and issubclass(kind, (Layer, Container))):
            raise HyperparameterError(
                f"layers has {shown(kind)}; expected classes of layers, such as layers=[MyLayer]"
            )
    return found
