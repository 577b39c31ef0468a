"""The graph of a model, before anything is compiled: for plans, and for whoever else walks over it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastnet.errors import UsageError
from fastnet.layers.base import Shape
from fastnet.losses.base import Loss
from fastnet.op import ROWS
from fastnet.plan.fusion import fold_batchnorm, join_dropout
from fastnet.plan.graph import Graph, Structure, Tensor


@dataclass(frozen=True)
class Ending:
    """The loss that a graph ends in, and what its targets are."""

    loss: Loss
    labels: bool  # int64 (n,), else numbers
    weighted: bool = False  # by weights of the samples
    by_rows: bool = False  # a mean is over the rows, and not over their weights

    @property
    def on_host(self) -> bool:
        """Whether Python computes the loss of the graph's output."""
        return self.loss.on_host

    def key(self) -> Any:
        """What a graph depends on: that of a function of Python's ends in its output."""
        if self.on_host:
            return "on host"
        return self.loss.plan_key(), self.labels, self.weighted, self.by_rows


def graph_of(
    model: Any,
    shape: Shape,
    modes: Mapping[int, bool],
    ending: Ending | None = None,
    *,
    fold: bool = False,
) -> Structure:
    """What a model (or a layer) does to rows of a shape, as a graph of ops; with `ending`, up to the loss.

    modes: whether a layer is in training mode, by its id; layers that it does not name train. fold: for
    prediction, batchnorm's affine maps become part of the layers before them.
    """
    graph = Graph(modes)
    x = Tensor((ROWS, *shape), segment="x")
    output = graph.enter(model, x)
    made = Structure(graph, x, output, on_host=ending is not None and ending.on_host)
    if ending is not None and not made.on_host:
        made.target = Tensor((ROWS,), "int64", segment="y")
        if not ending.labels:
            row = tuple(int(d) for d in output.shape[1:])
            made.target = Tensor((ROWS, *ending.loss.target_shape(row)), segment="y")
        made.weight = Tensor((ROWS,), segment="w") if ending.weighted else None
        mean = _mean_by_rows(ending.loss) if ending.by_rows else {}
        made.loss = ending.loss.emit(graph, output, made.target, made.weight, **mean)
    made.graph = join_dropout(graph, output)
    if fold:
        made.graph = fold_batchnorm(made.graph, output)
    return made


def _mean_by_rows(loss: Loss) -> dict[str, bool]:
    """What asks `emit` for a mean by rows; UsageError where a loss of somebody's own does not take it."""
    try:
        inspect.signature(loss.emit).bind(None, None, None, None, by_rows=True)
    except TypeError:
        raise UsageError(
            f"{type(loss).__name__}.emit takes no by_rows, which weights of samples or classes need in "
            "fit; write def emit(self, g, output, target, weight=None, *, by_rows=False), where with "
            "by_rows=True a mean divides by the number of rows, or fit without weights"
        ) from None
    return {"by_rows": True}
