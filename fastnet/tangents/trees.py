"""The hierarchical softmax in simpler ops: softmaxes of decisions, and sums along the paths of a tree.

Sums along paths are made by doubling: after k rounds a node has the sum over itself and the 2^k − 1 nodes
above it, and the next round adds that of the node 2^k above it. So a tree of depth D needs log₂ D rounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.layers.activations import log_sigmoid
from fastnet.layers.class_tree import ABOVE, CHILDREN, FIRST_ROW, PLACE, ClassTree
from fastnet.layers.columns import take_columns
from fastnet.layers.hierarchical import transposed_linear, tree_log_softmax
from fastnet.layers.joining import add, concat
from fastnet.layers.ntk_linear import times
from fastnet.layers.scale import scale
from fastnet.layers.softmax import log_softmax
from fastnet.losses.cross_entropy import nll
from fastnet.losses.hierarchical import hierarchical_nll
from fastnet.losses.labels import constant
from fastnet.op import Array
from fastnet.parameter import Derived
from fastnet.plan.graph import Graph, Tensor
from fastnet.tangents.expand import expands


def _taken(g: Graph, x: Tensor, places: Array) -> Tensor:
    table = places.astype(np.int64)
    made = Derived(table.shape, lambda: table, "int64", constant=True)
    return g.apply(take_columns, x=x, places=made)


def _decisions(g: Graph, z: Tensor, tree: ClassTree) -> tuple[Tensor, Array]:
    """The logarithms of the probabilities of all outcomes, and of each column the node that it leads to."""
    inner = np.arange(tree.classes, len(tree.nodes))
    count, first = tree.nodes[inner][:, [CHILDREN, FIRST_ROW]].T
    child = {(above, place): n for n, (above, place) in enumerate(tree.nodes[:, [ABOVE, PLACE]])}
    parts, leads = list[Tensor](), list[int]()
    for size in np.unique(count):
        of_size = inner[count == size]
        begins = first[count == size]
        if size == 2:  # one logit, that of the first outcome
            logits = _taken(g, z, begins)
            parts.append(g.apply(log_sigmoid, x=logits))
            parts.append(g.apply(log_sigmoid, x=g.apply(times, x=logits, factor=-1.0)))
            leads += [child[n, place] for place in (0, 1) for n in of_size]
            continue
        logits = _taken(g, z, (begins[:, None] + np.arange(size)).ravel())
        made = g.apply(log_softmax, x=g.reshape(logits, (int(size),), len(of_size)))
        parts.append(g.reshape(made, (len(of_size) * int(size),)))
        leads += [child[n, place] for n in of_size for place in range(size)]
    found = parts[0]
    for part in parts[1:]:
        found = g.apply(concat, a=found, b=part)
    return found, np.array(leads)


@expands(tree_log_softmax)
def of_a_tree(g: Graph, a: dict[str, Any]) -> Tensor:
    """y_c = Σ log p over the nodes from class c up to the root."""
    tree = a["nodes"].tree
    found, node_of = _decisions(g, a["z"], tree)
    column = np.full(len(tree.nodes), -1)
    column[node_of] = np.arange(len(node_of))
    above = column[tree.nodes[node_of, ABOVE]]  # −1 behind the root
    while (above >= 0).any():
        higher = _taken(g, found, np.maximum(above, 0))
        there = constant((above >= 0).astype(float))
        found = g.apply(add, a=found, b=g.apply(scale, x=higher, w=there))
        above = np.where(above >= 0, above[np.maximum(above, 0)], -1)
    return _taken(g, found, column[: tree.classes])


@expands(hierarchical_nll)
def by_all_classes(g: Graph, a: dict[str, Any]) -> Tensor:
    """−y_t for the log-probabilities y of all classes, of the logits that the model's last layer has made.

    It costs as much as a full softmax, where the op itself computes the decisions above the label alone.
    """
    logits = next(
        n.output
        for n in reversed(g.nodes)
        if n.op is transposed_linear
        and (n.arguments["x"].root, n.arguments["w"]) == (a["x"].root, a["w"])
    )
    y = of_a_tree(g, {"z": logits, "nodes": a["nodes"]})
    return g.apply(nll, y=y, t=a["t"], v=None, ignored=a["ignored"])
