"""Predictions of a model with many classes that do without the outputs of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastnet.data import arrays, labels
from fastnet.errors import DataError, HyperparameterError, shown
from fastnet.losses import links
from fastnet.op import Array

if TYPE_CHECKING:
    from fastnet.layers.tree_search import TreeSearch


def probabilities(model: Any, link: str, x: Any, batch_size: int | None, classes: Any) -> Array:
    """Probabilities (n, k) of these classes, in the model's dtype."""
    chosen = _numbers(model, link, x, classes)
    search, h = _below(model, x, batch_size)
    if search is None:
        output = model.on_host("output", model.predict(x, batch_size))
        return links.probabilities(link, output)[:, chosen].astype(model.dtype)
    with np.errstate(all="ignore"):
        found: Array = np.exp(search.log_probabilities(h, chosen)).astype(model.dtype)
    return found


def most_probable(model: Any, x: Any, batch_size: int | None) -> Array | None:
    """The number of each row's most probable class, int64 (n,); None: the outputs of all must tell."""
    search, h = _below(model, x, batch_size)
    if search is None:
        return None
    with np.errstate(all="ignore"):
        return search.most_probable(h)


def _below(model: Any, x: Any, batch_size: int | None) -> tuple[TreeSearch | None, Array]:
    """The tree at the end of the model, and what it reads for x; None: there is none."""
    x = model.on_host("x", model.features("x", x))
    rows = model.rows_at_once("x", len(x), batch_size)
    found = model._runtime.below_head(tuple(x.shape[1:]), rows)
    if found is None:
        return None, np.empty(0)
    executor, head = found
    h = np.empty((len(x), *executor.plan.output_shape), model.dtype)
    run = executor.fast_path()
    for begin in range(0, len(x), rows):
        part = np.ascontiguousarray(x[begin : begin + rows], model.dtype)
        if run(part, h[begin : begin + rows]) is None:
            raise DataError("x is not finite any more; leave it alone while it is predicted from")
    from fastnet.layers.tree_search import TreeSearch

    bias = None if head.bias is None else head.bias.value
    return TreeSearch(head.nodes.tree, head.weight.value, bias), h


def _numbers(model: Any, link: str, x: Any, classes: Any) -> Array:
    """The numbers of classes, of the labels that `classes` has."""
    try:
        given = arrays.as_array("classes", classes)
    except DataError:  # a ragged list
        given = np.empty((0, 0))
    if given.ndim != 1 or not given.size:
        raise HyperparameterError(
            f"classes is {shown(classes)}; expected a list of labels, some of the model's classes"
        )
    known = model.classes_ if model._terms.renames else None
    if known is not None:
        places = {label: number for number, label in enumerate(known.tolist())}
        wrong = [label for label in given.tolist() if label not in places]
        if not wrong:
            return np.array([places[label] for label in given.tolist()], np.int64)
        expected = labels.listed(known.tolist())
    else:
        width = model.output_shape(tuple(np.shape(x)[1:]))[0]
        count = 2 if width == 1 and link in links.OF_TRUTHS else width
        if given.dtype.kind in "biu" and given.min() >= 0 and given.max() < count:
            return given.astype(np.int64)
        number = given.dtype.kind in "biu"
        wrong = [label for label in given.tolist() if not (number and 0 <= label < count)]
        expected = f"integers from 0 to {count - 1}"
    raise HyperparameterError(
        f"classes holds {shown(wrong[0])}; the model's classes are {expected}"
    )
