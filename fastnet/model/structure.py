"""The graph of a model before compilation, for plans and for exporters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastnet.errors import UsageError
from fastnet.layers.base import Shape
from fastnet.op import ROWS
from fastnet.plain import plain
from fastnet.plan.fusion import fold_batchnorm, join_dropout, leave_out_output, read_elements
from fastnet.plan.graph import Graph, Structure, Tensor

if TYPE_CHECKING:
    from fastnet.layers.hierarchical import Head
    from fastnet.losses.base import Loss


@plain(eq=True, frozen=True)
class Ending:
    """The loss at the end of a graph, and the kind of its targets."""

    loss: Loss
    labels: bool  # targets are int64 (n,), else numbers
    weighted: bool = False  # samples have weights
    by_rows: bool = False  # a mean divides by the number of rows, not by the sum of weights
    threshold: float | None = None  # of the decisions that steps record; None: they record none
    outputs: bool = True  # steps record the model's outputs
    elements: int = 0  # the most of a minibatch of sparse rows, for ops that read these; 0: none do

    @property
    def on_host(self) -> bool:
        """Whether Python computes the loss from the graph's output."""
        return self.loss.on_host

    def key(self) -> Any:
        """What the graph depends on; for a loss in Python the graph ends with the output."""
        if self.on_host:
            return "on host", self.elements
        kind = self.labels, self.weighted, self.by_rows, self.threshold, self.outputs, self.elements
        return self.loss.plan_key(), *kind


def graph_of(
    model: Any,
    shape: Shape,
    modes: Mapping[int, bool],
    ending: Ending | None = None,
    *,
    fold: bool = False,
) -> Structure:
    """The graph of a model or layer for rows of a shape; with `ending`, up to the loss.

    modes: whether a layer is in training mode, by the layer's id; layers without an entry train.
    fold: for prediction, merge batchnorm's affine maps into the layers before them.
    """
    graph = Graph(modes)
    x = Tensor((ROWS, *shape), segment="x")
    output = graph.enter(model, x)
    made = Structure(graph, x, output, on_host=ending is not None and ending.on_host)
    if ending is not None and not made.on_host:
        _end(made, ending)
        if not ending.outputs and made.decision is None:
            leave_out_output(made)
            output = made.output
    made.graph = join_dropout(graph, output.root)
    if fold:
        made.graph = fold_batchnorm(made.graph, output.root)
    if ending is not None and ending.elements:
        made.elements = read_elements(made.graph, x, output.root, ending.elements)
    return made


def graph_below_head(model: Any, shape: Shape) -> tuple[Structure, Head | None]:
    """The graph for prediction, up to what a HierarchicalSoftmax at its end reads, and that layer's head.

    None: the model ends otherwise, and the graph is whole.
    """
    graph = Graph(dict.fromkeys((id(layer) for _, layer in model.layers), False))
    x = Tensor((ROWS, *shape), segment="x")
    output = graph.enter(model, x)
    from fastnet.layers.hierarchical import Head

    head = Head.of(graph, output)
    if head is not None:
        graph.nodes, output = graph.nodes[:-2], head.x
    return Structure(fold_batchnorm(join_dropout(graph, output), output), x, output), head


def graph_of_loss(shape: Shape, ending: Ending) -> Structure:
    """The graph of a loss alone, of outputs with rows of a shape; these are its x."""
    x = Tensor((ROWS, *shape), segment="x")
    made = Structure(Graph({}), x, x)
    _end(made, ending)
    return made


def _end(made: Structure, ending: Ending) -> None:
    """Apply the ops of an ending to the output."""
    graph, output = made.graph, made.output
    made.target = Tensor((ROWS,), "int64", segment="y")
    if not ending.labels:
        row = tuple(int(d) for d in output.shape[1:])
        made.target = Tensor((ROWS, *ending.loss.target_shape(row)), segment="y")
    made.weight = Tensor((ROWS,), segment="w") if ending.weighted else None
    if ending.threshold is not None:
        from fastnet.losses.decision import decision

        made.decision = graph.apply(decision, y=output, threshold=ending.threshold)
    mean = _mean_by_rows(ending.loss) if ending.by_rows else {}
    made.loss = ending.loss.emit(graph, output, made.target, made.weight, **mean)


def _mean_by_rows(loss: Loss) -> dict[str, bool]:
    """The argument of `emit` for a mean by rows; UsageError where a user's loss does not take it."""
    try:
        inspect.signature(loss.emit).bind(None, None, None, None, by_rows=True)
    except TypeError:
        raise UsageError(
            f"{type(loss).__name__}.emit takes no by_rows, which weights of samples or classes need in "
            "fit; write def emit(self, g, output, target, weight=None, *, by_rows=False), where with "
            "by_rows=True a mean divides by the number of rows, or fit without weights"
        ) from None
    return {"by_rows": True}
