"""`fastnet export`: a saved model as C or ONNX, with a list of what its inputs and outputs stand for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastnet as fn
from fastnet.cli.main import note
from fastnet.cli.predict import columns_for
from fastnet.cli.reading import frame_of, new_file
from fastnet.errors import UsageError, shown
from fastnet.files import atomic, tensors
from fastnet.tabular.model import TableModel
from fastnet.tabular.saved import KIND, restored_table
from fastnet.terminal import show


def run(options: argparse.Namespace) -> None:
    """Write the files and print the list."""
    _check(options)
    name = "net" if options.name is None else options.name
    contents = tensors.read(options.model)
    table = None
    if contents.description is not None and contents.description.get("kind") == KIND:
        table = restored_table(contents, TableModel)
    model = fn.load(options.model) if table is None else table.network()
    listed = [] if table is None else [*lines(table)]
    given: dict[str, Any] = {} if table is None else {"input_shape": (len(table.inputs),)}
    suffix = ".onnx" if options.to == "onnx" else ".c"
    out = new_file(
        "--out", options.out or Path(options.model).with_suffix(suffix), options.model, options.data
    )
    if options.to == "onnx":
        metadata = {"inputs": json.dumps(listed, ensure_ascii=False)} if listed else None
        model.export_onnx(out, metadata=metadata, **given)
        written = [out]
    elif options.to == "c":
        written = [*model.export_c(out, name=name, **given)]
    else:
        written = [*_quantized(model, table, options).export_c(out, name=name)]
    for path in written:
        if path.suffix == ".h" and listed:
            atomic.replace(path, [(_comment(listed) + path.read_text("utf-8")).encode()])
    show("\n".join(listed or _of_network(model)))
    note(f"written: {', '.join(map(str, written))}")


def _check(options: argparse.Namespace) -> None:
    """Raise UsageError where an argument has no meaning for the form."""
    if options.to == "onnx" and options.name is not None:
        raise UsageError(
            f"--name is {shown(options.name)}, which begins names in C; --to onnx has none: leave it out"
        )
    if options.to == "int8":
        return
    if options.data is not None:
        raise UsageError(
            f"--data is {shown(options.data)}, which --to int8 alone reads: leave it out"
        )
    for name in ("separator", "decimal", "encoding", "missing"):
        given = getattr(options, name)
        if given not in (None, []):
            raise UsageError(
                f"--{name} is {shown(given)}, which is of the file of --data; --to {options.to} reads "
                "none: leave it out"
            )


def _quantized(model: Any, table: TableModel | None, options: argparse.Namespace) -> Any:
    """The net of integers, scaled by the rows of a file."""
    if table is None:
        raise UsageError(
            "--to int8 takes models of fastnet train; for others write fn.quantize(model, rows) in Python"
        )
    if options.data is None:
        raise UsageError("--to int8 needs --data DATA: rows such as the net will see")
    return fn.quantize(model, table.rows(frame_of(columns_for(table, options.data, options))))


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
    """Lines as a comment of C, in which none begins or ends another.

    Line ends, other control characters and backslashes are escaped: C joins two lines where a backslash, or
    its trigraph, ends the first, and so the parts of what ends a comment.
    """
    text = "\n".join(f" * {''.join(map(_escaped, line))}" for line in listed)
    for mark, apart in (("??/", "? ?/"), ("*/", "* /"), ("/*", "/ *")):
        text = text.replace(mark, apart)
    return f"/*\n{text}\n */\n"


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() and letter != "\\" else ascii(letter)[1:-1]
