"""The table that `Sequential.summary` shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from fastnet.layers.base import Layer, Shape
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
        head, *rows = ([escape(cell) for cell in row] for row in self.rows)
        lines = ["<table>", f"<thead><tr>{_cells('th', head)}</tr></thead>", "<tbody>"]
        lines += [f"<tr>{_cells('td', row)}</tr>" for row in rows[:-1]]
        lines += ["</tbody>", f"<tfoot><tr>{_cells('th', rows[-1])}</tr></tfoot>", "</table>"]
        return "\n".join([*lines, *(f"<div>{escape(note)}</div>" for note in self.notes)])


def _cells(tag: str, row: list[str]) -> str:
    """The cells of a row, the last one to the right."""
    sides = [*[""] * (len(row) - 1), RIGHT]
    return "".join(f"<{tag}{side}>{cell}</{tag}>" for side, cell in zip(sides, row, strict=True))


def summarize(
    layers: list[tuple[str, Layer]], shape: Shape | None, storage: Storage, workspace: int | None
) -> Summary:
    """A table of layers, output shapes and parameters, and the bytes of each segment.

    Its rules are of box characters where the standard output's encoding has them, else of hyphens.
    """
    rows = [("layer", "output shape", "parameters")]
    for path, layer in layers:
        if shape is not None:
            shape = layer.output_shape(shape)
        shown = "(n, ...)" if shape is None else f"({', '.join(map(str, ('n', *shape)))})"
        rows.append((f"{path}  {layer!r}", shown, f"{_count(layer, False):,}"))
    total = sum(_count(layer, False) for _, layer in layers)
    buffers = sum(_count(layer, True) for _, layer in layers)
    rows.append(("total", "", f"{total:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
    rule = (BOX if printable(BOX) == BOX else "-") * len(lines[0])
    table = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    notes = [f"and {buffers:,} numbers in buffers"] if buffers else []
    sizes = {name: block.nbytes for name, block in storage.segments.items()}
    if workspace is not None:
        sizes["workspace"] = workspace
    notes.append("bytes: " + ", ".join(f"{name} {size:,}" for name, size in sizes.items()))
    found = Summary(printable("\n".join([*table, *notes])))
    found.rows, found.notes = rows, notes
    return found


def _count(layer: Layer, buffers: bool) -> int:
    held = layer._parameters.values()
    return sum(math.prod(p.shape) for p in held if p.buffer is buffers)
