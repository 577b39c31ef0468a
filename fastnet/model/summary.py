"""The table that `Sequential.summary` shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastnet.layers.base import Layer, Shape
from fastnet.layers.block import Holder
from fastnet.op import ROWS
from fastnet.plan.graph import Graph, Tensor
from fastnet.plan.segments import Storage
from fastnet.terminal import printable

BOX = "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
RIGHT = ' style="text-align: right"'


class Summary(str):
    """A string whose repr is its text, for interactive sessions; notebooks show it as a table.

    rows: the cells of its table, the head first and the total last. notes: the lines below it.
    """

    rows: Sequence[Sequence[str]]
    notes: Sequence[str]

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from html import escape  # a program that only predicts does without

        head, *rows = ([escape(cell) for cell in row] for row in self.rows)
        lines = ["<table>", f"<thead><tr>{_cells('th', head)}</tr></thead>", "<tbody>"]
        lines += [f"<tr>{_cells('td', row)}</tr>" for row in rows[:-1]]
        lines += ["</tbody>", f"<tfoot><tr>{_cells('th', rows[-1])}</tr></tfoot>", "</table>"]
        return "\n".join([*lines, *(f"<div>{escape(note)}</div>" for note in self.notes)])


def _cells(tag: str, row: list[str]) -> str:
    """The cells of a row, the last one to the right."""
    sides = [*[""] * (len(row) - 1), RIGHT]
    return "".join(f"<{tag}{side}>{cell}</{tag}>" for side, cell in zip(sides, row, strict=True))


class _Shapes(Graph):
    """A graph that notes the shape of a row of each layer's output, in the order in which layers begin."""

    def __init__(self, modes: Mapping[int, bool]) -> None:
        super().__init__(modes)
        self.found: list[Shape] = []

    def enter(self, layer: Any, x: Any) -> Any:
        """The output of a layer, whose shape is noted."""
        place = len(self.found)
        self.found.append(())
        y = super().enter(layer, x)
        self.found[place] = tuple(y.shape[1:])
        return y


def _shapes(model: Any, shape: Shape) -> list[Shape]:
    """The shapes of the outputs of the layers in a model, in the order of `_all`."""
    graph = _Shapes({id(layer): False for _, layer in model.layers})
    graph.enter(model, Tensor((ROWS, *shape), segment="x"))
    return graph.found[1:]  # without the model's own


def summarize(
    model: Any, shape: Shape | None, storage: Storage, more: Mapping[str, int]
) -> Summary:
    """A table of layers, output shapes and parameters, and the bytes of each segment and of `more`.

    What holds other layers has a row before theirs. A layer's further uses count no parameters.

    Its rules are of box characters where the standard output's encoding has them, else of hyphens.
    """
    rows = [("layer", "output shape", "parameters")]
    places, layers = list(model._all()), [layer for _, layer in model.layers]
    shapes = [None] * len(places) if shape is None else _shapes(model, shape)
    counted: set[int] = set()
    for (path, layer), found in zip(places, shapes, strict=True):
        shown = "(n, ...)" if found is None else f"({', '.join(map(str, ('n', *found)))})"
        if isinstance(layer, Holder):
            rows.append((f"{path}  {type(layer).__name__}", shown, ""))
        elif id(layer) in counted:
            rows.append((f"{path}  {layer!r}, again", shown, ""))
        else:
            rows.append((f"{path}  {layer!r}", shown, f"{_count(layer, False):,}"))
            counted.add(id(layer))
    total = sum(_count(layer, False) for layer in layers)
    buffers = sum(_count(layer, True) for layer in layers)
    rows.append(("total", "", f"{total:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
    rule = (BOX if printable(BOX) == BOX else "-") * len(lines[0])
    table = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    notes = [f"and {buffers:,} numbers in buffers"] if buffers else []
    sizes = {name: block.nbytes for name, block in storage.segments.items()} | dict(more)
    if model.precision is not None:
        notes.append(f"products of linear layers in {model.precision}")
    notes.append("bytes: " + ", ".join(f"{name} {size:,}" for name, size in sizes.items()))
    made = Summary(printable("\n".join([*table, *notes])))
    made.rows, made.notes = rows, notes
    return made


def _count(layer: Layer, buffers: bool) -> int:
    held = layer._parameters.values()
    return sum(math.prod(p.shape) for p in held if p.buffer is buffers)
