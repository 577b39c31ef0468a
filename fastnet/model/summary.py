"""The table that `Sequential.summary` shows."""

from __future__ import annotations

import math

from fastnet.layers.base import Layer, Shape
from fastnet.plan.segments import Storage


class Summary(str):
    """A string whose repr is its text, for interactive sessions."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def summarize(
    layers: list[tuple[str, Layer]], shape: Shape | None, storage: Storage, workspace: int | None
) -> Summary:
    """A table of layers, output shapes and parameters, and the bytes of each segment."""
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
    rule = "-" * len(lines[0])
    table = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    if buffers:
        table.append(f"and {buffers:,} numbers in buffers")
    sizes = {name: block.nbytes for name, block in storage.segments.items()}
    if workspace is not None:
        sizes["workspace"] = workspace
    table.append("bytes: " + ", ".join(f"{name} {size:,}" for name, size in sizes.items()))
    return Summary("\n".join(table))


def _count(layer: Layer, buffers: bool) -> int:
    held = layer._parameters.values()
    return sum(math.prod(p.shape) for p in held if p.buffer is buffers)
