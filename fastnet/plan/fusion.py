"""Fusions: changes of a graph that keep its results, within rounding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.layers.linear import linear
from fastnet.op import KERNELS, Array
from fastnet.parameter import Derived
from fastnet.plan.graph import Elements, Graph, Node, Structure, Tensor


def fold_batchnorm(graph: Graph, output: Tensor) -> Graph:
    """For prediction: replace a linear op and batchnorm's affine map after it by one linear op.

    With s = gamma/√(running_var + eps): w′ = w·s (by columns), b′ = (b − running_mean)·s + beta.
    """
    return _joined(graph, output, "linear", "batchnorm_inference", _folded)


def join_dropout(graph: Graph, output: Tensor) -> Graph:
    """Replace a ReLU and dropout after it by one op, with the same bits."""
    return _joined(graph, output, "relu", "dropout", _rectified)


def leave_out_output(structure: Structure) -> None:
    """Leave out what only the output needs, where the loss reads what is before it.

    The output is then the first tensor that these ops read.
    """
    needed: set[Any] = {structure.loss}
    kept, left = list[Node](), list[Node]()
    for node in reversed(structure.graph.nodes):
        if any(node.arguments[name] in needed for name in node.op.outputs):
            needed.update(t for _, t in node.inputs())
            kept.append(node)
        else:
            left.append(node)
    if left:
        structure.graph.nodes = kept[::-1]
        structure.output = left[-1].inputs()[0][1]


def read_elements(graph: Graph, x: Tensor, output: Tensor, count: int) -> Elements | None:
    """Let the linear ops of x read the elements of its rows, at most `count`, in place of x.

    None: x is read by other ops too, or is the output, and the graph stays as it is.
    """
    readers = [node for node in graph.nodes if any(t is x for _, t in node.inputs())]
    if (
        not readers
        or output is x
        or any(node.op is not linear or node.times > 1 for node in readers)
    ):
        return None
    from fastnet.layers.sparse_linear import sparse_linear

    elements = Elements.of(count)
    for node in readers:
        node.arguments = {**node.arguments, **vars(elements)}
        node.op, node.sizes = sparse_linear, {**node.sizes, "N": count}
    return elements


def multiply_in_bfloat16(graph: Graph) -> None:
    """Let the linear ops round the operands of their products to bfloat16."""
    from fastnet.layers.bfloat16_linear import bfloat16_linear

    for node in graph.nodes:
        if node.op is linear:
            node.op = bfloat16_linear


def pack_weights(graph: Graph) -> None:
    """For prediction: let the linear ops in bfloat16 read weights that were rounded and packed before."""
    from fastnet.layers.bfloat16_linear import bfloat16_linear, bfloat16_pairs_linear

    packed: dict[Any, Derived] = {}  # by weight, as several nodes may share one
    for node in graph.nodes:
        if node.op is bfloat16_linear:
            w = node.arguments["w"]
            if w not in packed:
                packed[w] = _packed(w, node.sizes)
            node.arguments = {**node.arguments, "p": packed[w]}
            del node.arguments["w"]
            node.op, node.sizes = bfloat16_pairs_linear, packed[w].node.sizes


def _packed(w: Any, sizes: dict[str, int]) -> Derived:
    """Weights, a parameter or derived, as pairs of bfloat16."""
    from fastnet.layers.bfloat16_linear import bfloat16_pairs, pairs_of

    sizes = bfloat16_pairs.fitted(sizes)
    compute = w.compute if isinstance(w, Derived) else lambda: w.value
    made = Derived((sizes["P"],), lambda: pairs_of(compute()), "int64")
    made.node = Node(bfloat16_pairs, {"p": made, "w": w}, sizes)
    return made


def _joined(
    graph: Graph,
    output: Tensor,
    first: str,
    second: str,
    join: Callable[[Node, Node], Node],
) -> Graph:
    """The graph with the ops `first` and `second` joined where `second` is the only reader of `first`.

    An op whose module has not been loaded is in no graph.
    """
    if not {f"{first}_forward", f"{second}_forward"} <= KERNELS.keys():
        return Graph(nodes=graph.nodes)
    before_op, after_op = KERNELS[f"{first}_forward"].op, KERNELS[f"{second}_forward"].op
    producer: dict[Any, Node] = {node.output: node for node in graph.nodes}
    uses = Counter([output, *(tensor for node in graph.nodes for _, tensor in node.inputs())])
    source: dict[Node, Node] = {}
    for node in graph.nodes:
        before = producer.get(node.arguments.get("x"))
        if node.op is after_op and before and before.op is before_op and uses[before.output] == 1:
            source[node] = before
    dropped = set(source.values())
    nodes = [join(source[n], n) if n in source else n for n in graph.nodes if n not in dropped]
    return Graph(nodes=nodes)


def _rectified(first: Node, drop: Node) -> Node:
    from fastnet.layers.relu_dropout import relu_dropout

    arguments = {**drop.arguments, "x": first.arguments["x"]}
    return Node(relu_dropout, arguments, drop.sizes, drop.stream, drop.times, label=first.label)


def _folded(first: Node, norm: Node) -> Node:
    w, b = first.arguments["w"], first.arguments["b"]
    gamma, beta = norm.arguments["gamma"], norm.arguments["beta"]
    mean, var = norm.arguments["running_mean"], norm.arguments["running_var"]
    eps = norm.arguments["eps"]

    def scale() -> Array:
        s: Array = 1.0 / np.sqrt(var.value + eps)
        return s if gamma is None else s * gamma.value

    def weight() -> Array:
        folded: Array = w.value * scale()
        return folded

    def bias() -> Array:
        shifted = (0.0 if b is None else b.value) - mean.value
        folded: Array = shifted * scale() + (0.0 if beta is None else beta.value)
        return folded

    arguments = {
        "x": first.arguments["x"],
        "w": Derived(w.shape, weight),
        "b": Derived((w.shape[1],), bias),
        "y": norm.output,
    }
    return Node(linear, arguments, first.sizes, times=first.times, label=first.label)
