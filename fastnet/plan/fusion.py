"""Fusions: rewritings of a graph that keep what it computes, within tolerance."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.layers.batchnorm import batchnorm_inference
from fastnet.layers.linear import linear
from fastnet.op import Array
from fastnet.parameter import Derived
from fastnet.plan.graph import Graph, Node, Tensor


def fold_batchnorm(graph: Graph, output: Tensor) -> Graph:
    """For prediction: a linear followed by batchnorm's affine map becomes one linear.

    With s = gamma/√(running_var + eps): w′ = w·s (by columns), b′ = (b − running_mean)·s + beta.
    """
    producer: dict[Any, Node] = {node.output: node for node in graph.nodes}
    uses: dict[Tensor, int] = {output: 1}
    for node in graph.nodes:
        for _, tensor in node.inputs():
            uses[tensor] = uses.get(tensor, 0) + 1
    folded: dict[Node, Node] = {}
    for node in graph.nodes:
        source = producer.get(node.arguments.get("x"))
        if node.op is not batchnorm_inference or source is None or source.op is not linear:
            continue
        if uses[source.output] == 1:
            folded[node] = source
    dropped = set(folded.values())
    nodes = [_folded(folded[n], n) if n in folded else n for n in graph.nodes if n not in dropped]
    return Graph(training=graph.training, nodes=nodes)


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
    return Node(linear, arguments, first.sizes)
