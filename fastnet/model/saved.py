"""Models in files: what describes one, and how it is made again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from fastnet.configured import also_known, described, from_config
from fastnet.data.terms import UNKNOWN, Terms
from fastnet.errors import (
    FastnetError,
    FileError,
    HyperparameterError,
    StateDictError,
    UsageError,
    check_flag,
    shown,
)
from fastnet.files import tensors, tree
from fastnet.layers.base import Layer
from fastnet.losses import links
from fastnet.model.container import Container
from fastnet.op import Array
from fastnet.parameter import check_count, check_names, check_value

OF_TRAINER = "trainer/"  # begins the names of a trainer's arrays


def description_of(model: Any) -> tuple[dict[str, Any], dict[str, Array]]:
    """A model's description for a file, and its arrays by PyTorch's names."""
    for _, layer in model.layers:
        layer._check_ready()
    arrays = dict(model.state_dict())
    found = {**described(model), "seed": model.seed, "backend": "auto"}
    made = {"model": tree.split("model", found, arrays), "draws": model._draws}
    made |= {"frozen": model.frozen, **_terms_described(model._terms)}
    return made, arrays


def _terms_described(terms: Terms) -> dict[str, Any]:
    """What users call columns and classes, for a file; nothing where nobody has told."""
    if terms == UNKNOWN:
        return {}
    check_unicode(terms)
    return {
        "terms": {
            "columns": None if terms.columns is None else list(terms.columns),
            "classes": None if terms.classes is None else list(terms.classes),
            "link": terms.link,
        }
    }


def is_unicode(text: str) -> bool:
    """Whether a file can keep a text: it has no lone surrogate."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def check_unicode(terms: Terms) -> None:
    """Raise UsageError for a name of a column or class that no file can keep."""
    for text in (*(terms.columns or ()), *(terms.classes or ())):
        if isinstance(text, str) and not is_unicode(text):
            raise UsageError(
                f"the name {shown(text)} has a lone surrogate, which no file keeps; expected Unicode"
            )


def terms_of(model: Any, found: Any) -> Terms:
    """The terms of a description, or an error of ours; files of older versions have none."""
    if found is None:
        return UNKNOWN
    check_names("terms", found, ("columns", "classes", "link"))
    columns, classes, link = found["columns"], found["classes"], found["link"]
    shape = model.input_shape
    output = None if shape is None else model.output_shape(shape)
    if columns is not None:
        texts = isinstance(columns, list) and all(isinstance(name, str) for name in columns)
        if not texts or (columns and shape is not None and len(columns) != shape[0]):
            raise FileError(
                f"columns is {shown(columns)}; expected a name for each of {shape} inputs"
            )
        columns = tuple(columns)
    if classes is not None:
        if not isinstance(classes, list) or len(classes) < 2 or not _are_sorted(classes):
            raise FileError(f"classes is {shown(classes)}; expected different labels, sorted")
        count = len(classes)
        if output is not None and output != (count,) and (output, count) != ((1,), 2):
            raise FileError(
                f"classes is {shown(classes)}; the model's output has {output[0]} columns"
            )
        classes = tuple(classes)
    if link is not None and link not in links.LINKS:
        raise FileError(f"link is {shown(link)}; expected one of {', '.join(links.LINKS)}")
    return Terms(columns, classes, link)


def _are_sorted(classes: list[Any]) -> bool:
    kinds = {type(label) for label in classes}
    if len(kinds) != 1 or not kinds <= {bool, int, str}:
        return False
    within = all(-(2**63) <= label < 2**63 for label in classes if not isinstance(label, str))
    return within and all(a < b for a, b in pairwise(classes))


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
        terms = terms_of(model, description.get("terms"))
    except (FastnetError, RecursionError, TypeError, ValueError, ArithmeticError) as error:
        raise FileError(f"{contents.path} describes no model that can be made: {error}") from None
    for name, p in named.items():
        p.value = p.held(checked[name])  # the model copies it when it lays out its memory
        p.frozen = name in frozen
    model._draws, model._terms = draws, terms
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
