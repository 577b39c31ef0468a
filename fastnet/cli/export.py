"""`fastnet export`: a saved model as C or ONNX, with a list of what its inputs and outputs stand for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastnet as fn
from fastnet.cli.main import note
from fastnet.errors import check_new_file
from fastnet.files import atomic, tensors
from fastnet.tabular.model import TableModel
from fastnet.tabular.saved import KIND, restored_table
from fastnet.terminal import show


def run(options: argparse.Namespace) -> None:
    """Write the files and print the list."""
    contents = tensors.read(options.model)
    listed: list[str] = []
    given: dict[str, Any] = {}
    if contents.description is not None and contents.description.get("kind") == KIND:
        table = restored_table(contents, TableModel)
        model, listed = table.network(), [*lines(table)]
        given["input_shape"] = (len(table.inputs),)
    else:
        model = fn.load(options.model)
    suffix = ".onnx" if options.to == "onnx" else ".c"
    out = check_new_file("--out", options.out or Path(options.model).with_suffix(suffix))
    if options.to == "onnx":
        given["metadata"] = {"inputs": json.dumps(listed, ensure_ascii=False)} if listed else None
    else:
        given["name"] = options.name
    written = getattr(model, f"export_{options.to}")(out, **given) or [out]
    if options.to == "c":
        header = next(path for path in written if path.suffix == ".h")
        if listed:
            atomic.replace(header, [(_comment(listed) + header.read_text("utf-8")).encode()])
    show("\n".join(listed or _of_network(model)))
    note(f"written: {', '.join(map(str, written))}")


def lines(table: TableModel) -> Iterator[str]:
    """A line for each input of a table's network, and one for its outputs."""
    inputs = table.inputs
    places = {one.name: i for i, one in enumerate(inputs)}
    for i, one in enumerate(inputs):
        if one.is_gap:
            text = "1 where it is, else 0"
        elif one.categories is not None:
            codes = ", ".join(f"{category} = {k}" for k, category in enumerate(one.categories))
            text = f"a category: {codes}; any other, or none = -1"
        elif one.fill is not None:
            gap = places[f"{one.name} is missing"]
            text = f"a number; where it is missing {one.fill:.9g}, and input {gap} is 1"
        else:
            text = "a number"
        yield f"input {i}, {one.name}: {text}"
    if table.classes is None:
        yield f"output: {table.target or 'the prediction'}, a number"
        return
    for i, label in enumerate(table.classes.tolist()):
        yield f"output {i}: the logit of {table.target or 'the class'} = {label}"
    if table.mixed:
        yield (
            f"fastnet predict prints probabilities {1 - table.mixed:.9g}*p + "
            f"{table.mixed / len(table.classes):.9g}, where p is the softmax of the outputs"
        )


def _of_network(model: Any) -> list[str]:
    """What is known of the inputs of a model that is no table's."""
    names = model.feature_names_in_
    if names is None:
        return [f"inputs of shape {model.input_shape}"]
    return [f"input {i}, {name}: a number" for i, name in enumerate(names)]


def _comment(listed: list[str]) -> str:
    """Lines as a comment of C, in which none begins or ends another."""
    text = "\n".join(f" * {line}" for line in listed)
    return f"/*\n{text.replace('*/', '* /').replace('/*', '/ *')}\n */\n"
